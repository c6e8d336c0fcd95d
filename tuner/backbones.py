"""A backbone: a network with its weights found, built or loaded, and stored under its digest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock

from tuner.decoding import DECODING_VERSION
from tuner.errors import BackboneError, CacheError
from tuner.experiment import BackboneSpec, Precision, Preprocessing
from tuner.network_builders import (
    build_with_imagenet,
    build_with_random_weights,
    build_with_weights_of,
    network_digest,
)
from tuner.network_files import (
    FeatureFunction,
    check_precision,
    file_digest,
    first_sentence,
    import_keras,
    limit_threads,
    open_network,
    pack_saved_model,
)
from tuner.network_table import NETWORKS, Network, find_network
from tuner.networks import NETWORK_FILES

__all__ = ["NETWORKS", "Backbone", "Network", "load_network", "resolve_backbone"]


@dataclass(frozen=True)
class Backbone:
    """Everything that decides a feature.

    Attributes
    ----------
    name : str
        What the experiment calls it.
    digest : str
        sha256 hex of its architecture and weights: the same on any day and machine.
    file : str
        Where the network is stored: ``<digest>.keras``, or ``<digest>.zip`` for a SavedModel.
    input_size : tuple of int
        Height and width in pixels.
    preprocessing : {"tf", "caffe", "torch", "unit", "none"}
        What is done to the pixels before the network sees them.
    width : int
        The number of features.
    precision : {"float32", "bfloat16"}
        What the layers compute in; features are float32 in any case.
    """

    name: str
    digest: str
    file: str
    input_size: tuple[int, int]
    preprocessing: Preprocessing
    width: int
    precision: Precision

    @property
    def key(self) -> str:
        """The feature cache's key: sha256 hex of all that decides a feature, and of no more."""
        return _json_digest(
            [self.digest, self.input_size, self.preprocessing, self.precision, DECODING_VERSION]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the backbone as plain data, fit for JSON."""
        return {**asdict(self), "input_size": list(self.input_size)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Backbone:
        """Return the backbone that `to_dict` described."""
        return cls(**{**data, "input_size": tuple(data["input_size"])})


@dataclass(frozen=True)
class _Wanted:
    """A network as asked for, its name found in the table and its files found on the disk."""

    name: str
    kind: Literal["network", "imagenet", "weights", "random"]  # "network": `file` holds all of it
    input_size: tuple[int, int]
    preprocessing: Preprocessing
    file: Path = Path()
    seed: int = 0

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the stored network, as far as it is known without building it."""
        if self.kind == "network":
            return {"network": file_digest(self.file), "input_size": self.input_size}
        weights: dict[str, Any] = {"weights": self.kind}
        if self.kind == "weights":
            weights = {"weights": file_digest(self.file)}
        if self.kind == "random":
            weights["seed"] = self.seed
        keras = importlib.metadata.version("keras")
        return {"name": self.name, **weights, "input_size": self.input_size, "keras": keras}


@dataclass(frozen=True)
class _Stored:
    """What the store remembers of a network: its digest, its file's name there, its width."""

    digest: str
    file: str
    width: int


def resolve_backbone(spec: BackboneSpec, precision: Precision, store: Path) -> Backbone:
    """Find, build or load a network, and store it for the workers.

    What was resolved before is found without building it or importing TensorFlow.

    Parameters
    ----------
    spec : BackboneSpec
        A network of `NETWORKS` with its weights, or a network of one's own.
    precision : {"float32", "bfloat16"}
        What its layers shall compute in.
    store : Path
        The folder of stored networks; made if missing.

    Raises
    ------
    BackboneError
        The name, weights, file, input size or precision cannot work, or the weights cannot be had.
    CacheError
        The store cannot be written.
    """
    wanted, record = _wanted_and_record(spec, precision, store)
    stored = _recall(record, store) or _make_once(wanted, record, store)
    return _backbone(wanted, stored, precision, store)


def recall_backbone(spec: BackboneSpec, precision: Precision, store: Path) -> Backbone | None:
    """Give what `resolve_backbone` would, if it was resolved before; errors are the same."""
    wanted, record = _wanted_and_record(spec, precision, store)
    stored = _recall(record, store)
    return _backbone(wanted, stored, precision, store) if stored else None


def load_network(backbone: Backbone, file: Path, threads: int) -> FeatureFunction:
    """Open a stored network in any process: a worker, a server, the driver; a process opens it once.

    Parameters
    ----------
    backbone : Backbone
        What was resolved.
    file : Path
        Where its stored network lies here.
    threads : int
        For TensorFlow, if this process has not computed with it yet.

    Returns
    -------
    Callable
        ``(n, height, width, 3)`` float32, preprocessed → ``(n, width)`` float32.

    Raises
    ------
    BackboneError
        The file is missing or is not a network.
    """
    import_keras()
    limit_threads(threads)
    return _open_once(file, backbone.input_size, backbone.precision)


@lru_cache(maxsize=2)  # a worker serves one task after another, and seldom more than two networks in turn
def _open_once(file: Path, input_size: tuple[int, int], precision: Precision) -> FeatureFunction:
    return open_network(file, input_size, precision)


def _wanted_and_record(spec: BackboneSpec, precision: Precision, store: Path) -> tuple[_Wanted, Path]:
    wanted = _wanted(spec)
    if wanted.kind == "network":
        check_precision(wanted.file, precision)
    return wanted, store / "resolved" / f"{_json_digest(wanted.identity)}.json"


def _backbone(wanted: _Wanted, stored: _Stored, precision: Precision, store: Path) -> Backbone:
    return Backbone(
        wanted.name,
        stored.digest,
        str((store / stored.file).absolute()),
        wanted.input_size,
        wanted.preprocessing,
        stored.width,
        precision,
    )


def _wanted(spec: BackboneSpec) -> _Wanted:
    if spec.file is not None and spec.input_size is not None and spec.preprocessing is not None:
        _check_network_file(spec.name, spec.file)
        return _Wanted(spec.name, "network", spec.input_size, spec.preprocessing, spec.file)
    network = find_network(spec.name)
    weights = spec.weights or network.weights
    size = spec.input_size or network.input_size
    preprocessing = spec.preprocessing or network.preprocessing
    if network.weights == "embedded":
        _check_embedded(network, weights, size)
    if weights == "embedded" == network.weights:
        return _Wanted(spec.name, "network", size, preprocessing, NETWORK_FILES[spec.name])
    if weights == "imagenet":
        return _Wanted(spec.name, "imagenet", size, preprocessing)
    if weights == "random":
        return _Wanted(spec.name, "random", size, preprocessing, seed=spec.seed)
    _check_weights_file(spec.name, Path(weights))
    return _Wanted(spec.name, "weights", size, preprocessing, Path(weights))


def _check_network_file(name: str, file: Path) -> None:
    if not file.exists():
        raise BackboneError(f"There is no file {file} for the network {name}: check its path.")
    if file.suffix != ".keras" and not (file / "saved_model.pb").is_file():
        raise BackboneError(
            f"The file {file} of the network {name} is neither a .keras file nor a SavedModel "
            "folder: save the network as one of these."
        )


def _check_weights_file(name: str, file: Path) -> None:
    if file.suffix not in (".h5", ".keras") or not file.is_file():
        problem = "There is no" if not file.exists() else "This is not a"
        raise BackboneError(
            f"{problem} weights file {file} for {name}: give {NETWORKS[name].weights}, random, or "
            "the path of a .h5, .weights.h5 or .keras file."
        )


def _check_embedded(network: Network, weights: str, size: tuple[int, int]) -> None:
    if weights == "imagenet":
        raise BackboneError(f"{network.name} has no ImageNet weights: leave out its weights.")
    if network.name == "GaborNet" and weights != "embedded":
        raise BackboneError("GaborNet has fixed filters and learns nothing: leave out its weights.")
    if size != network.input_size:
        height, width = network.input_size
        raise BackboneError(
            f"{network.name} takes images of {height} x {width} pixels: leave out its input_size."
        )


def _recall(record: Path, store: Path) -> _Stored | None:
    """Return what was stored before, unless the network's file is gone."""
    try:
        stored = _Stored(**json.loads(record.read_text(encoding="utf-8"))["stored"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot_store(store, error) from error
    return stored if (store / stored.file).is_file() else None


def _make_once(wanted: _Wanted, record: Path, store: Path) -> _Stored:
    """Make the network; a second search that wants it waits, and then finds it made."""
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(store / "making.lock"):
            stored = _recall(record, store)
            if stored is None:
                stored = _make(wanted, store)
                remembered = {"wanted": wanted.identity, "stored": asdict(stored)}
                text = json.dumps(remembered, indent=1)
                _write_aside(record, lambda aside: aside.write_text(text, encoding="utf-8"))
            return stored
    except OSError as error:
        raise _cannot_store(store, error) from error


def _cannot_store(store: Path, error: OSError) -> CacheError:
    return CacheError(
        f"The folder of networks {store} cannot be used: {error.strerror or error}; free it, or "
        "set another with cache."
    )


def _make(wanted: _Wanted, store: Path) -> _Stored:
    if wanted.kind == "network":
        return _keep_file(wanted, store)
    network = _build(wanted)
    digest = network_digest(network, wanted.name, wanted.input_size)
    _write_aside(store / f"{digest}.keras", network.save)
    return _Stored(digest, f"{digest}.keras", network.output_shape[-1])


def _build(wanted: _Wanted) -> Any:
    if wanted.kind == "imagenet":
        return build_with_imagenet(wanted.name, wanted.input_size)
    if wanted.kind == "random":
        return build_with_random_weights(wanted.name, wanted.input_size, wanted.seed)
    return build_with_weights_of(wanted.name, wanted.input_size, wanted.file)


def _keep_file(wanted: _Wanted, store: Path) -> _Stored:
    """Store a network that came as a file."""
    width = _try_on_two_images(wanted)
    digest = wanted.identity["network"]
    if wanted.file.is_dir():
        _write_aside(store / f"{digest}.zip", lambda aside: pack_saved_model(wanted.file, aside))
        return _Stored(digest, f"{digest}.zip", width)
    _write_aside(store / f"{digest}.keras", lambda aside: shutil.copyfile(wanted.file, aside))
    return _Stored(digest, f"{digest}.keras", width)


def _try_on_two_images(wanted: _Wanted) -> int:
    """Return the width; a graph can be fixed to one image, and say so only when it runs."""
    run = open_network(wanted.file, wanted.input_size, "float32")
    try:
        rows, width = run(np.zeros((2, *wanted.input_size, 3), np.float32)).shape
    except Exception as error:  # the network is from outside, and so is its mistake
        raise BackboneError(
            f"The network {wanted.file} does not run on two images: {first_sentence(error)}."
        ) from error
    if rows != 2:
        raise BackboneError(
            f"The network {wanted.file} gives {rows} rows of features for two images: it must give "
            "one for each."
        )
    return int(width)


def _write_aside(target: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target, then rename: a reader sees all of a file or none of it."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        aside = Path(folder, target.name)
        write(aside)
        aside.replace(target)


def _json_digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
