"""Export a model as one ONNX file: from decoded pixels to probabilities, for ONNX Runtime alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.base import distribution
from tuner.base.errors import ModelError
from tuner.classifiers.heads.layers import Activation, Layers, layers_of
from tuner.images.decoding import MAX_PIXELS, decode_image, resize
from tuner.images.preprocessing import MODES
from tuner.models.scorer import Scorer
from tuner.networks.exporting.stored import exported
from tuner.networks.onnx.session import SUFFIX, open_session
from tuner.networks.resolution import Network
from tuner.networks.store import NetworkStore
from tuner.serving.export import Export, compare_answers, free_target

PIXELS, LABEL_INDEX = "pixels", "label_index"
ONNX_TOLERANCE = 1e-5  # of a probability, or of the greatest decision value
_OPERATORS: dict[Activation, str] = {"sigmoid": "Sigmoid", "softmax": "Softmax"}


def export_onnx(scorer: Scorer, target: Path, sample: Sequence[bytes]) -> Export:
    """Write a model as ONNX, open what was written, and compare its answers with the model's.

    The file takes `pixels`, uint8 of shape `(n, height, width, 3)`: RGB, resized as `keras.utils.load_img`
    does, transparent pictures laid on their ground first. It gives `probability` (of a classifier without,
    `decision`), float64 of shape `(n, k)`, and `label_index`, int64 of shape `(n,)`. Its metadata has
    `labels`, `input_size`, `preprocessing`, `opset` and what else decides an answer, as JSON.

    Parameters
    ----------
    scorer
        The model.
    target
        The file to make, called `*.onnx`.
    sample
        Image files to compare on.

    Raises
    ------
    ModelError
        The target exists or cannot be made, the classifier is none of layers, the network cannot be
        exported, or the file does not give the model's answers (it is removed then).
    """
    target = free_target(target, SUFFIX)
    layers = layers_of(scorer.head)
    if layers is None:
        raise ModelError(
            "The model's classifier cannot become part of an ONNX file: linear classifiers and multilayer "
            "perceptrons can. Serve the model by MLflow instead (mlflow models serve, tuner predict), or "
            "search one of these."
        )
    with _network_file(scorer.network, sample) as file:
        model = _assembled(file, scorer, layers)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        aside = Path(folder) / target.name
        aside.write_bytes(model.SerializeToString())
        done = compare_answers(scorer, _opened(aside, scorer), sample, target)
        if not done.difference <= ONNX_TOLERANCE:
            raise ModelError(
                f"The ONNX file differs from the model by {done.difference:.2g}, more than "
                f"{ONNX_TOLERANCE:g}: it was not kept."
            )
        aside.replace(target)
    return done


@contextmanager
def _network_file(network: Network, sample: Sequence[bytes]) -> Iterator[Path]:
    """The network's ONNX file: the model's own, or one that is made now."""
    if Path(network.file).suffix == SUFFIX:
        yield Path(network.file)
        return
    with exported(network, NetworkStore(), sample) as result:
        done = result()
    if done.file is None:
        raise ModelError(f"The network {network.name} cannot become part of an ONNX file: {done.reason}.")
    yield done.file


def _assembled(file: Path, scorer: Scorer, layers: Layers) -> Any:
    """Preprocessing, network and classifier as one graph; names of the network's own get a prefix."""
    import onnx
    from onnx import TensorProto, compose, helper

    network = compose.add_prefix(onnx.load(file), "network/")
    taken, given = network.graph.input[0].name, network.graph.output[0].name
    graph = _Graph()
    graph.preprocess(PIXELS, taken, scorer.network)
    before = len(graph.nodes)
    graph.classify(given, scorer.score_column, layers)
    graph.add("ArgMax", [scorer.score_column], LABEL_INDEX, axis=1, keepdims=0)
    size, classes = scorer.network.input_size, len(scorer.labels)
    whole = helper.make_graph(
        [*graph.nodes[:before], *network.graph.node, *graph.nodes[before:]],
        "tuner",
        [helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, ["n", *size, 3])],
        [
            helper.make_tensor_value_info(scorer.score_column, TensorProto.DOUBLE, ["n", classes]),
            helper.make_tensor_value_info(LABEL_INDEX, TensorProto.INT64, ["n"]),
        ],
        [*network.graph.initializer, *graph.weights],
    )
    model = helper.make_model(
        whole,
        producer_name=distribution.NAME,
        producer_version=distribution.version(),
        opset_imports=network.opset_import,
        ir_version=network.ir_version,
        functions=network.functions,
    )
    facts = {key: json.dumps(value) for key, value in _facts(scorer, network).items()}
    helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    return model


def _facts(scorer: Scorer, network: Any) -> dict[str, Any]:
    """What is to be known of a file by itself."""
    described = scorer.network
    return {
        "labels": list(scorer.labels),
        "input_size": list(described.input_size),
        "preprocessing": described.preprocessing,
        "transparent": described.transparent,
        "max_value": described.max_value,
        "backbone": described.name,
        "backbone_digest": described.digest,
        "opset": next(one.version for one in network.opset_import if one.domain in ("", "ai.onnx")),
    }


class _Graph:
    """Nodes in the order in which they compute, with their weights."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Add a node, and give the name of what it computes."""
        from onnx import helper

        output = output or f"tuner/{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def weight(self, values: npt.ArrayLike) -> str:
        """Add a constant, and give its name."""
        from onnx import numpy_helper

        name = f"tuner/weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def preprocess(self, pixels: str, output: str, network: Network) -> None:
        """The arithmetic of the network's mode, step for step as `preprocess` has it."""
        from onnx import TensorProto

        mode = MODES[network.preprocessing]
        values = self.add("Cast", [pixels], to=TensorProto.FLOAT)
        if mode.bgr:
            values = self.add("Gather", [values, self.weight(np.array([2, 1, 0]))], axis=3)
        if mode.divisor != 1:
            values = self.add("Div", [values, self.weight(np.float32(mode.divisor))])
        if any(mode.mean):
            values = self.add("Sub", [values, self.weight(np.array(mode.mean, np.float32))])
        if mode.deviation != (1.0, 1.0, 1.0):
            values = self.add("Div", [values, self.weight(np.array(mode.deviation, np.float32))])
        self.add("Identity", [values], output)

    def classify(self, features: str, output: str, layers: Layers) -> None:
        """The classifier in float64, as the model computes."""
        from onnx import TensorProto

        values = self.add("Cast", [features], to=TensorProto.DOUBLE)
        if layers.unit:
            norm = self.add("ReduceL2", [values], axes=[1], keepdims=1)
            # Features that are all 0 stay so, as scikit-learn's `Normalizer` leaves them.
            nothing = self.add("Equal", [norm, self.weight(np.float64(0.0))])
            norm = self.add("Where", [nothing, self.weight(np.float64(1.0)), norm])
            values = self.add("Div", [values, norm])
        for dense in layers.dense:
            product = self.add("MatMul", [values, self.weight(dense.matrix)])
            values = self.add("Add", [product, self.weight(dense.bias)])
            if dense.activation != "linear":
                values = self.add(_OPERATORS[dense.activation], [values])
        self.add("Identity", [values], output)


def _opened(file: Path, scorer: Scorer) -> Callable[[bytes], tuple[str, np.ndarray]]:
    """Open what was written, as its user would: one image file → the class name and the scores."""
    session = open_session(file, threads=1)

    def run(content: bytes) -> tuple[str, np.ndarray]:
        decoded = decode_image(content, MAX_PIXELS, scorer.network.decoding)
        pixels = resize(decoded, scorer.network.input_size)[None]
        scores, index = session.run([scorer.score_column, LABEL_INDEX], {PIXELS: pixels})
        return scorer.labels[int(index[0])], scores[0]

    return run
