"""Networks of the table, built by Keras with ImageNet's weights, random ones or those of a file."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import re
import traceback
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tuner.base.choices import Pooling
from tuner.base.errors import NetworkError
from tuner.base.files import write_aside
from tuner.base.wording import first_sentence
from tuner.networks.efficientnet_lite import (
    LITE_NETWORKS,
    build_efficientnet_lite,
    has_package,
    load_imagenet_weights,
)
from tuner.networks.embedded.glyphnet import build_glyphnet
from tuner.networks.files import import_keras
from tuner.networks.table import NETWORKS

DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer
_BLOCK = 2**16


def build_with_imagenet(
    name: str, input_size: tuple[int, int], *, include_top: bool = False, pooling: Pooling = "avg"
) -> Any:
    """Build a network with its ImageNet weights: Keras downloads them once, or a package holds them.

    Returns
    -------
    keras.Model
        ``(n, height, width, 3)`` → ``(n, features)``: without the top, pooled, or with ``none`` the last
        map, ``(n, rows, columns, channels)``; with the top, ``(n, 1000)``, the probabilities of ImageNet's
        classes.

    Raises
    ------
    NetworkError
        Keras does not allow the input size, or the weights cannot be downloaded: the message names
        the file and where to put it.
    """
    if name in LITE_NETWORKS:
        network = _build_lite(name, input_size, include_top, pooling)
        load_imagenet_weights(network, name)
        return network
    with _downloads_that_end():
        return _build(name, input_size, "imagenet", include_top, pooling)


def weights_at_hand() -> list[str]:
    """Name the networks whose ImageNet weights are on this machine, in the order of the table.

    Keras's files are known by their names, in which the longest name of a network counts
    (``resnet50v2_weights_….h5``); they must be those without the head, as a search wants them.
    """
    files = [re.sub(r"[^a-z0-9]", "", file.stem.lower()) for file in weights_folder().glob("*no*top*.h5")]
    trained = [name for name, row in NETWORKS.items() if row.weights == "imagenet"]
    longest_first = sorted(trained, key=len, reverse=True)
    keras = {next((name for name in longest_first if name.lower() in file), None) for file in files}
    return [name for name in trained if (has_package(name) if name in LITE_NETWORKS else name in keras)]


def weights_folder() -> Path:
    """Where Keras keeps the weights that it downloads; `KERAS_HOME` moves it."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"


def build_with_random_weights(
    name: str,
    input_size: tuple[int, int],
    seed: int,
    *,
    include_top: bool = False,
    pooling: Pooling = "avg",
) -> Any:
    """Build a network with its own initializers; the same seed gives the same weights.

    Raises
    ------
    NetworkError
        Keras does not allow the input size or the seed.
    """
    if name == "GlyphNet":
        import_keras()
        return build_glyphnet(seed)
    with seeded(seed):
        if name in LITE_NETWORKS:
            return _build_lite(name, input_size, include_top, pooling)
        return _build(name, input_size, None, include_top, pooling)


def build_with_weights_of(
    name: str,
    input_size: tuple[int, int],
    file: Path,
    *,
    include_top: bool = False,
    pooling: Pooling = "avg",
) -> Any:
    """Build a network and load its weights from a ``.h5``, ``.weights.h5`` or ``.keras`` file.

    Raises
    ------
    NetworkError
        Keras does not allow the input size, or the file is of another architecture.
    """
    network = build_with_random_weights(name, input_size, 0, include_top=include_top, pooling=pooling)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of parts of what it then refuses
            network.load_weights(file)
    except Exception as error:  # a file from outside can fail in any way
        raise NetworkError(
            f"The weights file {file} is not of {name} {'with' if include_top else 'without'} its top "
            f"(include_top={include_top}): {first_sentence(error)}."
        ) from error
    return network


def network_digest(network: Any, name: str, input_size: tuple[int, int]) -> str:
    """Return sha256 hex of what a network of the table computes, the same on any day and machine.

    Not of its file, which holds the date, and names that count all layers of the process.
    """
    keras = import_keras()
    layers = [type(layer).__name__ for layer in network.layers]
    digest = hashlib.sha256(json.dumps([name, input_size, layers]).encode())
    for weight in network.weights:
        values = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{values.dtype.str}{values.shape}".encode())
        digest.update(values.data)
    return digest.hexdigest()


def _build_lite(name: str, input_size: tuple[int, int], include_top: bool, pooling: Pooling) -> Any:
    import_keras()
    kept = None if pooling == "none" else pooling
    return build_efficientnet_lite(name, input_size, include_top=include_top, pooling=kept)


def _build(
    name: str, input_size: tuple[int, int], weights: str | None, include_top: bool, pooling: Pooling
) -> Any:
    # Keras pools, not we: ConvNeXt normalizes what it has pooled.
    how = {"pooling": None if pooling == "none" else pooling, "input_shape": (*input_size, 3)}
    builder = getattr(import_keras().applications, name)
    try:
        return builder(include_top=include_top, weights=weights, **how)
    except Exception as error:  # Keras raises a plain Exception when a download fails
        download = _failed_download(error)
        if download is not None:
            origin, target = download
            raise NetworkError(
                f"The ImageNet weights of {name} could not be downloaded "
                f"({str(error).rpartition(' -- ')[2]}): get {origin} where there is a network, and "
                f"put it into {target.parent} as {target.name}."
            ) from error
        raise NetworkError(
            f"{name} cannot be built for images of {input_size[0]} x {input_size[1]} pixels: "
            f"{first_sentence(error)}."
        ) from error


def _failed_download(error: BaseException) -> tuple[str, Path] | None:
    """Return the URL and the local file that Keras was after, if a download failed.

    Keras's message has the URL alone, and the file is not always named like it (NASNet), so both
    are read off the frame of `keras.utils.get_file`; there is no public way to ask for them.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "get_file":
            return frame.f_locals["origin"], Path(frame.f_locals["download_target"])
    return None


@contextmanager
def _downloads_that_end() -> Iterator[None]:
    """Keras downloads without a timeout, would wait for ever, and has no way to set one.

    `urllib` takes that of the whole process, which is not ours to set. So Keras's own name for the function
    is replaced meanwhile.
    """
    module = importlib.import_module("keras.src.utils.file_utils")
    before = module.urlretrieve
    module.urlretrieve = _retrieve  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.urlretrieve = before  # type: ignore[attr-defined]


def _retrieve(url: str, target: str, report: Callable[[int, int, int], object]) -> None:
    """Do what `urllib.request.urlretrieve` does, with a timeout, and to a whole file or none."""
    with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as answer:
        total = int(answer.headers.get("Content-Length", -1))

        def write(aside: Path) -> None:
            with aside.open("wb") as file:
                for block, part in enumerate(iter(lambda: answer.read(_BLOCK), b""), start=1):
                    file.write(part)
                    report(block, _BLOCK, total)
                if file.tell() < total:
                    raise OSError(f"it ended after {file.tell()} of {total} bytes")

        write_aside(Path(target), write)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the initializers of Keras, and leave the generators of the process as they were."""
    keras = import_keras()
    python, numpy = random.getstate(), np.random.get_state()
    try:
        keras.utils.set_random_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
