"""The process that exports a network to ONNX, and compares what TensorFlow and ONNX Runtime make of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tuner.base.choices import Pooling, Preprocessing
from tuner.base.errors import NetworkError
from tuner.base.wording import first_line
from tuner.images.preprocessing import preprocess
from tuner.networks.files import feature_graph, open_network
from tuner.networks.onnx.session import open_onnx

OPSET = 17
"""The set of operators that networks are exported to; ONNX Runtime has it since 1.12."""
TOLERANCE = 1e-4
"""Of the largest feature: what differs by more is not used."""
REQUEST, IMAGES, NETWORK, RESULT = "request.json", "images.npy", "network.onnx", "result.json"
_RANDOM_IMAGES = 8


@dataclass(frozen=True)
class Request:
    """A network to export: where it lies, and what decides its features."""

    file: str
    input_size: tuple[int, int]
    preprocessing: Preprocessing
    pooling: Pooling


def write_request(folder: Path, request: Request, images: np.ndarray) -> None:
    """Ask for an export: `images` are real ones, ready for the network, to compare the two on."""
    (folder / REQUEST).write_text(json.dumps(asdict(request)), encoding="utf-8")
    np.save(folder / IMAGES, images, allow_pickle=False)


def main(folder: str) -> None:
    """Export what the folder asks for to `NETWORK` there; what came of it is written to `RESULT`."""
    place = Path(folder)
    asked = json.loads((place / REQUEST).read_text(encoding="utf-8"))
    request = Request(**{**asked, "input_size": tuple(asked["input_size"])})
    try:
        convert(request, place / NETWORK)
        images = np.concatenate([_random_images(request), np.load(place / IMAGES, allow_pickle=False)])
        result: dict[str, float | str] = {"difference": compare(request, place / NETWORK, images)}
    except Exception as error:  # networks come from outside, and operators are many
        result = {"reason": first_line(error)}
    (place / RESULT).write_text(json.dumps(result), encoding="utf-8")


def convert(request: Request, target: Path) -> None:
    """Write a network as ONNX: ``(n, height, width, 3)`` float32, preprocessed → ``(n, width)`` float32.

    Raises
    ------
    NetworkError
        The network cannot be opened.
    ImportError
        tf2onnx is not installed.
    Exception
        Whatever tf2onnx says of what it cannot convert.
    """
    graph, _ = feature_graph(Path(request.file), request.input_size, "float32", request.pooling)
    import onnx
    import tf2onnx

    model, _ = tf2onnx.convert.from_function(graph, graph.input_signature, opset=OPSET)
    # Tensors that a layer holds, as `Normalization` does its means, come as inputs: they are constants.
    captures = graph.get_concrete_function(*graph.input_signature).graph.captures
    held = {inner.name: outer for outer, inner in captures}
    for given in [given for given in model.graph.input if given.name in held]:
        model.graph.input.remove(given)
        model.graph.initializer.append(onnx.numpy_helper.from_array(held[given.name].numpy(), given.name))
    onnx.save(model, str(target))


def compare(request: Request, exported: Path, images: np.ndarray) -> float:
    """Give the largest difference between what ONNX Runtime and TensorFlow compute, of the largest feature.

    Raises
    ------
    NetworkError
        It is more than `TOLERANCE`, or a feature is not finite.
    """
    expected = open_network(Path(request.file), request.input_size, "float32", request.pooling)(images)
    found = open_onnx(exported, request.input_size, threads=1)(images)
    if found.shape != expected.shape:
        raise NetworkError(f"it gives {found.shape[1]} features instead of {expected.shape[1]}")
    largest = float(np.abs(expected).max(initial=0.0))
    difference = float(np.abs(found - expected).max(initial=0.0)) / (largest or 1.0)
    if not difference <= TOLERANCE:  # NaN, too
        raise NetworkError(
            f"its features differ by {difference:.2g} of the largest, more than {TOLERANCE:g}"
        )
    return difference


def _random_images(request: Request) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (_RANDOM_IMAGES, *request.input_size, 3), np.uint8)
    return preprocess(pixels, request.preprocessing)
