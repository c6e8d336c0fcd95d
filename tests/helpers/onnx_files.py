"""ONNX files made by hand: a small network, and what an odd or hostile file could be."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = (4, 5)
WIDTH = 6


def small_network(size: tuple[int, int] = SIDE, width: int = WIDTH) -> onnx.ModelProto:
    """Means over height and width, times a seeded matrix: (n, height, width, 3) → (n, width)."""
    kernel = np.random.default_rng(1).normal(size=(3, width)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["means", "kernel"], ["features"]),
    ]
    return model_of(nodes, [numpy_helper.from_array(kernel, "kernel")], size, width)


def model_of(
    nodes: list[Any], weights: list[Any], size: tuple[int, int] = SIDE, width: int = WIDTH, opset: int = 17
) -> onnx.ModelProto:
    taken = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", *size, 3])
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", width])
    graph = helper.make_graph(nodes, "network", [taken], [given], weights)
    domains = {node.domain for node in nodes} - {""}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def computed(images: np.ndarray, width: int = WIDTH) -> np.ndarray:
    """What `small_network` gives."""
    kernel = np.random.default_rng(1).normal(size=(3, width)).astype(np.float32)
    return images.mean(axis=(1, 2)) @ kernel


def saved(model: onnx.ModelProto, folder: Path, name: str = "network.onnx") -> Path:
    file = folder / name
    file.write_bytes(model.SerializeToString())
    return file


def with_weights_elsewhere(folder: Path, location: str) -> onnx.ModelProto:
    """Its kernel is said to be in another file."""
    model = small_network()
    (kernel,) = model.graph.initializer
    (folder / "weights.bin").write_bytes(kernel.raw_data)
    kernel.ClearField("raw_data")
    kernel.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(4 * 3 * WIDTH))):
        entry = kernel.external_data.add()
        entry.key, entry.value = key, value
    return model


def with_a_foreign_operator() -> onnx.ModelProto:
    node = helper.make_node("RunProgram", ["images"], ["features"], domain="com.example")
    return model_of([node], [])


def with_a_foreign_operator_inside() -> onnx.ModelProto:
    """The operator is in a branch of a condition."""
    inner = helper.make_node("RunProgram", [], ["features"], domain="com.example")
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", WIDTH])
    branch = helper.make_graph([inner], "branch", [], [given])
    node = helper.make_node("If", ["yes"], ["features"], then_branch=branch, else_branch=branch)
    return model_of([node], [numpy_helper.from_array(np.array(True), "yes")])
