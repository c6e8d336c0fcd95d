"""Networks resolved: their weights found, built or loaded, and all of it stored under its digest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import shutil
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tuner.base.choices import DEFAULT_DECODING, Decoding, Pooling, Precision, Preprocessing, Transparent
from tuner.base.errors import NetworkError
from tuner.base.files import file_digest
from tuner.base.wording import first_sentence
from tuner.experiment.networks import NetworkSpec
from tuner.networks.builders import (
    build_with_imagenet,
    build_with_random_weights,
    build_with_weights_of,
    network_digest,
)
from tuner.networks.embedded.files import NETWORK_FILES
from tuner.networks.files import (
    FeatureFunction,
    check_precision,
    import_keras,
    limit_threads,
    open_network,
    pack_saved_model,
)
from tuner.networks.onnx.session import SUFFIX, open_onnx
from tuner.networks.store import NetworkStore, StoredNetwork, is_tuned
from tuner.networks.table import NETWORKS, Architecture, find_architecture

_KEY_VERSION = 2  # of the cache's keys: raise it when the pixels of every image change


@dataclass(frozen=True)
class Network:
    """A network with its weights: everything that decides a feature.

    Attributes
    ----------
    name : str
        What the experiment calls it.
    digest : str
        sha256 hex of its architecture and weights: the same on any day and machine.
    file : str
        Where the network is stored: ``<digest>.keras``, or ``<digest>.zip`` for a SavedModel. Of a
        model that carries it as ONNX: that file.
    input_size : tuple of int
        Height and width in pixels.
    preprocessing : {"tf", "caffe", "torch", "unit", "none"}
        What is done to the pixels before the network sees them.
    width : int
        The number of features.
    precision : {"float32", "bfloat16"}
        What the layers compute in; features are float32 in any case.
    file_digest : str
        sha256 hex of the stored file's bytes, by which it is known again where it is fetched from.
    transparent : {"white", "black"}
        The ground on which transparent pictures are laid.
    max_value : float, optional
        What stands for white where an image's values could go beyond it.
    pooling : {"avg", "max", "none"}
        What becomes of its last map, unless its file pools by itself; ``none``: it is flattened.
    """

    name: str
    digest: str
    file: str
    input_size: tuple[int, int]
    preprocessing: Preprocessing
    width: int
    precision: Precision
    file_digest: str = ""
    transparent: Transparent = DEFAULT_DECODING.transparent
    max_value: float | None = DEFAULT_DECODING.max_value
    pooling: Pooling = "avg"

    @property
    def key(self) -> str:
        """The feature cache's key: sha256 hex of what decides the features of every image, and of no more.

        What else decided one image, such as the ground it was laid on, the cache keeps beside its features.
        """
        decides = [self.digest, self.input_size, self.preprocessing, self.precision, _KEY_VERSION]
        # The average was all that there was: its keys stay.
        return _json_digest(decides if self.pooling == "avg" else [*decides, self.pooling])

    @property
    def decoding(self) -> Decoding:
        """How images are decoded for it."""
        return Decoding(self.transparent, self.max_value)

    def to_dict(self) -> dict[str, Any]:
        """Return the network as plain data, fit for JSON."""
        return {**asdict(self), "input_size": list(self.input_size)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Network:
        """Return the network that `to_dict` described."""
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
    include_top: bool = False  # with its head for ImageNet's classes
    pooling: Pooling = "avg"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the stored network and its width, as far as it is known without building it."""
        pooled = {} if self.pooling == "avg" else {"pooling": self.pooling}
        if self.kind == "network":
            return {"network": file_digest(self.file), "input_size": self.input_size, **pooled}
        weights: dict[str, Any] = {"weights": self.kind}
        if self.kind == "weights":
            weights = {"weights": file_digest(self.file)}
        if self.kind == "random":
            weights["seed"] = self.seed
        if self.include_top:
            weights["include_top"] = True
        keras = importlib.metadata.version("keras")
        return {"name": self.name, **weights, "input_size": self.input_size, "keras": keras, **pooled}


def resolve_network(
    spec: NetworkSpec,
    precision: Precision,
    store: NetworkStore,
    decoding: Decoding = DEFAULT_DECODING,
    *,
    include_top: bool = False,
) -> Network:
    """Find, build or load a network, and store it for the workers.

    What was resolved before is found without building it or importing TensorFlow.

    Parameters
    ----------
    spec : NetworkSpec
        A network of `NETWORKS` with its weights, or a network of one's own.
    precision : {"float32", "bfloat16"}
        What its layers shall compute in.
    store : NetworkStore
        Where it is looked for and kept.
    decoding : Decoding
        How its images shall be decoded.
    include_top : bool
        With the head for ImageNet's 1,000 classes: its outputs are probabilities, not features. A network
        of one's own is taken as it is.

    Raises
    ------
    NetworkError
        The name, weights, file, input size or precision cannot work, the weights cannot be had, or there
        is no such head.
    CacheError
        The store cannot be written.
    """
    wanted = _checked(_fetched(spec, store), precision, include_top)
    stored = store.recall(wanted.identity) or store.make_once(wanted.identity, lambda: _make(wanted, store))
    return _network(wanted, stored, precision, store, decoding)


def recall_network(
    spec: NetworkSpec, precision: Precision, store: NetworkStore, decoding: Decoding = DEFAULT_DECODING
) -> Network | None:
    """Give what `resolve_network` would, if it was resolved before; errors are the same."""
    wanted = _checked(_fetched(spec, store), precision)
    stored = store.recall(wanted.identity)
    return _network(wanted, stored, precision, store, decoding) if stored else None


def load_network(network: Network, file: Path, threads: int) -> FeatureFunction:
    """Open a stored network in any process: a worker, a server, the driver; a process opens it once.

    Parameters
    ----------
    network : Network
        What was resolved.
    file : Path
        Where its stored network lies here.
    threads : int
        For ONNX Runtime, or for TensorFlow if this process has not computed with it yet.

    Returns
    -------
    Callable
        ``(n, height, width, 3)`` float32, preprocessed → ``(n, width)`` float32.

    Raises
    ------
    NetworkError
        The file is missing or is not a network.
    """
    if file.suffix == SUFFIX:
        return _open_onnx_once(file, network.input_size, threads)
    import_keras()
    limit_threads(threads)
    return _open_once(file, network.input_size, network.precision, network.pooling)


@lru_cache(maxsize=2)  # a worker serves one task after another, and seldom more than two networks in turn
def _open_once(
    file: Path, input_size: tuple[int, int], precision: Precision, pooling: Pooling
) -> FeatureFunction:
    return open_network(file, input_size, precision, pooling)


@lru_cache(maxsize=2)
def _open_onnx_once(file: Path, input_size: tuple[int, int], threads: int) -> FeatureFunction:
    return open_onnx(file, input_size, threads)


def _fetched(spec: NetworkSpec, store: NetworkStore) -> NetworkSpec:
    """A tuned network as one of a file that is here; any other as it is."""
    if not is_tuned(spec.file):
        return spec
    tuned, file = store.tuned(spec.name, str(spec.file))
    described = {"input_size": tuned.input_size, "preprocessing": tuned.preprocessing}
    return spec.model_copy(update={**described, "file": file})


def _checked(spec: NetworkSpec, precision: Precision, include_top: bool = False) -> _Wanted:
    wanted = _wanted(spec)
    if include_top and spec.file is None:
        _check_head(find_architecture(spec.name))
        wanted = replace(wanted, include_top=True)
    if wanted.kind == "network":
        check_precision(wanted.file, precision)
    return wanted


def _network(
    wanted: _Wanted, stored: StoredNetwork, precision: Precision, store: NetworkStore, decoding: Decoding
) -> Network:
    file = store.path(stored)
    return Network(
        wanted.name,
        stored.digest,
        str(file),
        wanted.input_size,
        wanted.preprocessing,
        stored.width,
        precision,
        _digest_of(file, file.stat().st_size, file.stat().st_mtime_ns),
        decoding.transparent,
        decoding.max_value,
        wanted.pooling,
    )


@lru_cache(maxsize=64)  # a search asks for each of its networks a few times
def _digest_of(file: Path, _size: int, _changed: int) -> str:
    return file_digest(file)


def _wanted(spec: NetworkSpec) -> _Wanted:
    return replace(_found(spec), pooling=spec.pooling)


def _found(spec: NetworkSpec) -> _Wanted:
    if spec.file is not None and spec.input_size is not None and spec.preprocessing is not None:
        _check_network_file(spec.name, spec.file)
        return _Wanted(spec.name, "network", spec.input_size, spec.preprocessing, spec.file)
    network = find_architecture(spec.name)
    weights = spec.weights or network.weights
    size = spec.input_size or network.input_size
    preprocessing = spec.preprocessing or network.preprocessing
    if network.weights == "embedded":
        _check_embedded(network, weights, size)
        if spec.pooling != "avg":
            raise _nothing_to_pool(spec.name)
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
        raise NetworkError(f"There is no file {file} for the network {name}: check its path.")
    if file.suffix != ".keras" and not (file / "saved_model.pb").is_file():
        raise NetworkError(
            f"The file {file} of the network {name} is neither a .keras file nor a SavedModel "
            "folder: save the network as one of these."
        )


def _check_weights_file(name: str, file: Path) -> None:
    if file.suffix not in (".h5", ".keras") or not file.is_file():
        problem = "There is no" if not file.exists() else "This is not a"
        raise NetworkError(
            f"{problem} weights file {file} for {name}: give {NETWORKS[name].weights}, random, or "
            "the path of a .h5, .weights.h5 or .keras file."
        )


def _check_embedded(network: Architecture, weights: str, size: tuple[int, int]) -> None:
    if weights == "imagenet":
        raise NetworkError(f"{network.name} has no ImageNet weights: leave out its weights.")
    if network.name == "GaborNet" and weights != "embedded":
        raise NetworkError("GaborNet has fixed filters and learns nothing: leave out its weights.")
    if size != network.input_size:
        height, width = network.input_size
        raise NetworkError(
            f"{network.name} takes images of {height} x {width} pixels: leave out its input_size."
        )


def _check_head(network: Architecture) -> None:
    if network.weights == "embedded":
        raise NetworkError(
            f"{network.name} was not trained on ImageNet, and has no head for its classes: take another "
            "network, such as EfficientNetLite0."
        )


def _make(wanted: _Wanted, store: NetworkStore) -> StoredNetwork:
    if wanted.kind == "network":
        return _keep_file(wanted, store)
    network = _build(wanted)
    digest = network_digest(network, wanted.name, wanted.input_size)
    return store.keep(digest, ".keras", math.prod(network.output_shape[1:]), network.save)


def _build(wanted: _Wanted) -> Any:
    how: dict[str, Any] = {"include_top": wanted.include_top, "pooling": wanted.pooling}
    if wanted.kind == "imagenet":
        return build_with_imagenet(wanted.name, wanted.input_size, **how)
    if wanted.kind == "random":
        return build_with_random_weights(wanted.name, wanted.input_size, wanted.seed, **how)
    return build_with_weights_of(wanted.name, wanted.input_size, wanted.file, **how)


def _keep_file(wanted: _Wanted, store: NetworkStore) -> StoredNetwork:
    """Store a network that came as a file."""
    width = _try_on_two_images(wanted, wanted.pooling)
    if wanted.pooling != "avg" and _try_on_two_images(wanted, "avg") == _try_on_two_images(wanted, "none"):
        raise _nothing_to_pool(wanted.name)
    digest = wanted.identity["network"]
    if wanted.file.is_dir():
        return store.keep(digest, ".zip", width, lambda aside: pack_saved_model(wanted.file, aside))
    return store.keep(digest, ".keras", width, lambda aside: shutil.copyfile(wanted.file, aside))


def _nothing_to_pool(name: str) -> NetworkError:
    return NetworkError(
        f"The network {name} gives one vector an image, in which nothing is left to pool: leave out its "
        "pooling."
    )


def _try_on_two_images(wanted: _Wanted, pooling: Pooling) -> int:
    """Return the width; a graph can be fixed to one image, and say so only when it runs."""
    run = open_network(wanted.file, wanted.input_size, "float32", pooling)
    try:
        rows, width = run(np.zeros((2, *wanted.input_size, 3), np.float32)).shape
    except Exception as error:  # the network is from outside, and so is its mistake
        raise NetworkError(
            f"The network {wanted.file} does not run on two images: {first_sentence(error)}."
        ) from error
    if rows != 2:
        raise NetworkError(
            f"The network {wanted.file} gives {rows} rows of features for two images: it must give "
            "one for each."
        )
    return int(width)


def _json_digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
