"""The network that a training begins with: opened so that it can learn, its layers frozen and unfrozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.base.choices import Pooling, Preprocessing
from tuner.base.errors import NetworkError
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.training.fine_tuning import ALL, NONE, SMALL_CNN
from tuner.networks.files import import_keras, open_keras, open_saved_model
from tuner.networks.resolution import resolve_network
from tuner.networks.store import NetworkStore


@dataclass(frozen=True)
class Base:
    """A network to begin with, as it travels to a worker.

    Attributes
    ----------
    name
        As the experiment has it.
    file
        Where it is stored, `.keras` or a SavedModel's `.zip`; None of `small-cnn`, which is built.
    input_size
        Height and width in pixels.
    preprocessing, pooling
        What is done to pixels before it, and to its last map after it.
    own
        Whether it is a file of the user's own.
    """

    name: str
    file: Path | None
    input_size: tuple[int, int]
    preprocessing: Preprocessing
    pooling: Pooling
    own: bool = False

    @property
    def is_saved_model(self) -> bool:
        """Whether it is a graph of TensorFlow's, whose layers nobody can tell apart."""
        return self.file is not None and self.file.suffix != ".keras"


def find_base(spec: NetworkSpec, store: NetworkStore) -> Base:
    """Find, build or load a base, and store it for the workers; errors as `resolve_network`."""
    if spec.name == SMALL_CNN:
        assert spec.input_size is not None
        assert spec.preprocessing is not None
        if min(spec.input_size) < 6:
            height, width = spec.input_size
            raise NetworkError(
                f"{SMALL_CNN} cannot be built for images of {height} x {width} pixels: it needs 6 a side."
            )
        return Base(spec.name, None, spec.input_size, spec.preprocessing, "none")
    if spec.file is not None and spec.file.suffix == ".onnx":
        raise NetworkError(
            f"The base {spec.name} is an ONNX file, whose layers cannot learn here: give a .keras file or "
            "a SavedModel folder."
        )
    network = resolve_network(spec, "float32", store)
    return Base(
        network.name,
        Path(network.file),
        network.input_size,
        network.preprocessing,
        network.pooling,
        own=spec.file is not None,
    )


def open_base(base: Base) -> Any:
    """Open a base as one layer, all of which learns until some of it is frozen.

    Returns
    -------
    keras.Model or keras.layers.TFSMLayer
    """
    if base.file is None:
        return _small_cnn(base.input_size)
    if base.is_saved_model:
        return open_saved_model(base.file, trainable=True)
    return open_keras(base.file, base.input_size, "float32")


def _small_cnn(input_size: tuple[int, int]) -> Any:
    """32 and 64 filters of 3×3, then pooling, as in Keras's first example of a CNN."""
    layers = import_keras().layers
    return import_keras().Sequential(
        [
            layers.Input((*input_size, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
        ],
        name="small_cnn",
    )


def check_unfreeze(base: Base, wanted: Sequence[int | str]) -> None:
    """Refuse what `unfreeze` would, before anything is trained; errors are the same."""
    if set(wanted) - {ALL, NONE}:
        opened = open_base(base)
        for what in wanted:
            unfreeze(opened, base, what)


def unfreeze(opened: Any, base: Base, what: int | str) -> str:
    """Let some layers of an opened base learn, and the others not; gives a phrase that says which.

    Parameters
    ----------
    opened
        As `open_base` gives it.
    base
        What it is of.
    what
        `layers[what:]` of a number, as the source counts; a layer's name: that one and all after it; `all`;
        `none`.

    Raises
    ------
    NetworkError
        There are fewer layers, or none of this name; or it is a SavedModel, and only some should learn.
    """
    if what in (ALL, NONE):
        opened.trainable = what == ALL
        return f"{what} of its layers"
    if base.is_saved_model:
        raise NetworkError(
            f"The base {base.name} is a SavedModel, whose layers cannot be told apart, and unfreeze is "
            f"{what}: set it to {ALL} or {NONE}."
        )
    layers = list(opened.layers)
    first = _place(layers, base, what)
    opened.trainable = True
    for place, layer in enumerate(layers):
        layer.trainable = place >= first
    return f"{len(layers) - first} of its {len(layers)} layers, from {layers[first].name} on"


def _place(layers: list[Any], base: Base, what: int | str) -> int:
    names = [layer.name for layer in layers]
    if isinstance(what, str):
        if what not in names:
            raise NetworkError(
                f"The base {base.name} has no layer {what} to unfreeze from: its last ones are "
                f"{', '.join(names[-5:])}."
            )
        return names.index(what)
    if not -len(layers) <= what < len(layers):
        raise NetworkError(
            f"unfreeze is {what}, and the base {base.name} has {len(layers)} layers, the last of which is "
            f"number {len(layers) - 1}: lower it, or set it to {ALL}."
        )
    return what % len(layers)
