"""Networks' ONNX files in the store: found, or made by another process while this one does other work."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from tuner.base.errors import ImageError
from tuner.base.files import file_digest, write_aside
from tuner.base.wording import first_line
from tuner.networks.embedded.files import NETWORK_FILES
from tuner.networks.exporting.program import NETWORK, RESULT, Request, write_request
from tuner.networks.inference import content_reader
from tuner.networks.onnx.session import SUFFIX
from tuner.networks.resolution import Network
from tuner.networks.store import NetworkStore

_FOLDER = "onnx"  # in the store of networks
_DECIDES = ("tf2onnx", "onnx", "onnxruntime", "tensorflow")  # whose versions decide what can be exported
_LONGEST = 900.0  # seconds; the largest network of the table took 30 on a busy machine
# With the path of the process that asks, so that it finds the same tuner, and none of the working folder.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tuner.networks.exporting.program import main; main(sys.argv[2])"
)


@dataclass(frozen=True)
class OnnxNetwork:
    """What came of exporting a network.

    Attributes
    ----------
    file
        Where its ONNX file lies; None: there is none.
    difference
        The largest difference of a feature from TensorFlow's, as a share of the largest feature; None: not
        known, or the network comes with its ONNX file.
    reason
        Why there is none.
    """

    file: Path | None = None
    difference: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Record:
    """What the store remembers of an export, beside its file."""

    versions: dict[str, str]
    difference: float | None = None
    reason: str | None = None


@contextmanager
def exported(
    network: Network, store: NetworkStore, contents: Sequence[bytes | None] = ()
) -> Iterator[Callable[[], OnnxNetwork]]:
    """Have a network exported to ONNX, unless the store has it, while the block does other work.

    The process is ended with the block, whatever ends that.

    Parameters
    ----------
    network
        Its `file` lies here.
    store
        Where its ONNX file is looked for and kept.
    contents
        Bytes of image files, on which both are compared beside random images.

    Yields
    ------
    A function that waits for what comes of it. No network fails for it: what does not export stays with
    TensorFlow, and the reason is told.
    """
    known = find_onnx(network, store)
    if known is not None:
        yield lambda: known
        return
    place = onnx_place(network, store)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = tempfile.TemporaryDirectory(dir=place.parent)
    except OSError as error:
        unwritable = OnnxNetwork(reason=f"{place.parent} cannot be written: {error.strerror}")
        yield lambda: unwritable
        return
    with aside as folder:
        process = _start(Path(folder), network, contents)
        try:
            yield cache(lambda: _finished(process, Path(folder), place))
        finally:
            process.kill()
            process.wait()


def find_onnx(network: Network, store: NetworkStore) -> OnnxNetwork | None:
    """Give what is known of a network as ONNX without making it; None: nothing.

    What could not be exported is tried again once a library that decides it is of another version.
    """
    if network.precision != "float32":
        return OnnxNetwork(reason=f"it computes in {network.precision}, in which TensorFlow is faster")
    for file in NETWORK_FILES.values():
        own = file.with_suffix(SUFFIX)
        if network.pooling == "avg" and network.file_digest == file_digest(file) and own.is_file():
            return OnnxNetwork(own)
    place = onnx_place(network, store)
    try:
        record = _Record(**json.loads(_record(place).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # not there, or half of one
        return None
    if record.reason is not None:
        return OnnxNetwork(reason=record.reason) if record.versions == _versions() else None
    return OnnxNetwork(place, record.difference) if place.is_file() else None


def onnx_place(network: Network, store: NetworkStore) -> Path:
    """Where a network's ONNX file lies, by the network's digest and what else decides its features."""
    height, width = network.input_size
    name = f"{network.digest}-{height}x{width}-{network.pooling}{SUFFIX}"
    return (store.folder / _FOLDER / name).absolute()


def _start(folder: Path, network: Network, contents: Sequence[bytes | None]) -> subprocess.Popen[bytes]:
    request = Request(network.file, network.input_size, network.preprocessing, network.pooling)
    write_request(folder, request, _pixels(network, contents))
    path = json.dumps([str(Path(entry).absolute()) for entry in sys.path])
    with (folder / "stderr").open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, path, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )


def _pixels(network: Network, contents: Sequence[bytes | None]) -> np.ndarray:
    read, images = content_reader(network), []
    for content in contents:
        try:
            images.append(read(content))
        except ImageError:
            continue
    return np.stack(images) if images else np.empty((0, *network.input_size, 3), np.float32)


def _finished(process: subprocess.Popen[bytes], folder: Path, place: Path) -> OnnxNetwork:
    """Wait for the process, and keep what it made."""
    started = time.monotonic()
    try:
        process.wait(_LONGEST)
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except subprocess.TimeoutExpired:
        return OnnxNetwork(reason=f"it was not exported within {time.monotonic() - started:.0f} s")
    except (OSError, ValueError):
        return OnnxNetwork(reason=f"the process that exports it ended with {_last_words(process, folder)}")
    record = _Record(_versions(), **result)
    try:
        if record.reason is None:
            (folder / NETWORK).replace(place)
        text = json.dumps(asdict(record), indent=1)
        write_aside(_record(place), lambda aside: aside.write_text(text, encoding="utf-8"))
    except OSError as error:
        return OnnxNetwork(reason=f"{place.parent} cannot be written: {error.strerror}")
    return OnnxNetwork(place if record.reason is None else None, record.difference, record.reason)


def _last_words(process: subprocess.Popen[bytes], folder: Path) -> str:
    lines = (folder / "stderr").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"code {process.returncode}" + (f": {first_line(lines[-1])}" if lines else "")


def _record(place: Path) -> Path:
    return place.with_suffix(".json")


def _versions() -> dict[str, str]:
    found = {}
    for name in _DECIDES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found
