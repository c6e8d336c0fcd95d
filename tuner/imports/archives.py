"""Image files in archives (zip, tar) from outside: read in memory, nothing is unpacked to a disk.

An archive is a stranger's. Names are text and no places: what leads out of the archive is left out, and so
are links, devices and what is encrypted. What a file and what an archive may unpack to is bounded, by the
bytes that come, not by those that are promised.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from tuner.base.errors import ImageSourceError
from tuner.base.wording import first_line
from tuner.images.files import MAX_FILE_BYTES, path_text

_MOST_TIMES = 100  # an archive's size: so much it may unpack to; image files hardly shrink at all
_ALWAYS = 2**30  # bytes that it may unpack to, however small it is
_DRIVE = re.compile(r"^[A-Za-z]:")
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)


class Member(NamedTuple):
    """A file in an archive.

    Attributes
    ----------
    names
        The folders that it lies in, and its own name; empty if they lead out of the archive.
    size
        In bytes, as the archive promises.
    stamp
        What tells its content apart, as far as the archive says.
    fault
        Why it cannot be read; None: it is read by `read`.
    read
        Gives its content, before the next member is asked for; or None where it is damaged.
    """

    names: tuple[str, ...]
    size: int
    stamp: str
    fault: str | None
    read: Callable[[], bytes | None]


def is_archive(path: Path) -> bool:
    """Whether a file is called as archives are that can be read."""
    return re.search(r"\.(zip|tar|tar\.(gz|bz2|xz)|t[gbx]z|tbz2)$", path.name, re.IGNORECASE) is not None


def members_of(path: Path) -> Iterator[Member]:
    """Give the files of an archive, in the order in which they stand there.

    Raises
    ------
    ImageSourceError
        It is missing or damaged, or unpacks to far more than image files would.
    """
    with _telling(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from _zipped(path, archive)
        else:
            with _unpacked(path) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
                yield from _taped(path, tar)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except (*_DAMAGED, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ImageSourceError(
            f"The archive {path} cannot be read ({reason}): give a zip or tar file, or unpack it and give "
            "the folder."
        ) from error


def _names(name: str) -> tuple[str, ...]:
    """The folders and the name of a member; Windows' own separators are ones, too."""
    names = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    outside = name.startswith(("/", "\\")) or _DRIVE.match(name) is not None or ".." in names
    return () if outside else tuple(path_text(part) for part in names)


def _too_large(path: Path) -> ImageSourceError:
    return ImageSourceError(
        f"The archive {path} unpacks to more than {_MOST_TIMES} times its size, which images do not: if it "
        "is not made to fill memory, unpack it and give the folder."
    )


def _limit(path: Path) -> int:
    return max(_ALWAYS, _MOST_TIMES * path.stat().st_size)


def _fault(size: int, other: str | None) -> str | None:
    return other or (f"too large: {size} bytes" if size > MAX_FILE_BYTES else None)


# Zip ------------------------------------------------------------------------------------------------


def _zipped(path: Path, archive: zipfile.ZipFile) -> Iterator[Member]:
    left = _limit(path)
    for info in archive.infolist():
        if info.is_dir():
            continue
        left -= info.file_size  # no more comes of it than that: zipfile sees to it
        if left < 0:
            raise _too_large(path)
        kind = stat.S_IFMT(info.external_attr >> 16)
        odd = "no regular file" if kind not in (0, stat.S_IFREG) else None
        odd = "encrypted" if info.flag_bits & 1 else odd
        yield Member(
            _names(info.filename),
            info.file_size,
            f"{info.CRC:08x}",
            _fault(info.file_size, odd),
            lambda info=info: _read_zipped(archive, info),  # type: ignore[misc]
        )


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes | None:
    try:
        with archive.open(info) as file:
            return file.read(MAX_FILE_BYTES)
    except (*_DAMAGED, NotImplementedError, RuntimeError):
        return None


# Tar ------------------------------------------------------------------------------------------------


class _Bounded:
    """A stream that ends in an error where more comes of it than may."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path, self._most = stream, path, _limit(path)

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, place: int, whence: int = 0) -> int:
        if whence == 0 and place > self._most:
            raise _too_large(self._path)
        return self._stream.seek(place, whence)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_FILE_BYTES:  # a header may ask for all of it
            raise _too_large(self._path)
        found = self._stream.read(size)
        if self._stream.tell() > self._most:
            raise _too_large(self._path)
        return found


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        begins = file.read(6)
    opener = next((opener for magic, opener in _OPENERS.items() if begins.startswith(magic)), None)
    with opener(path) if opener else path.open("rb") as stream:
        yield cast("IO[bytes]", _Bounded(stream, path))


def _taped(path: Path, tar: tarfile.TarFile) -> Iterator[Member]:
    while (info := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # it keeps all for links, which are left out
        if info.isdir():
            continue
        odd = None if info.isreg() and not info.issparse() else "no regular file"
        yield Member(
            _names(info.name),
            info.size,
            str(info.mtime),
            _fault(info.size, odd),
            lambda info=info: _read_taped(path, tar, info),  # type: ignore[misc]
        )


def _read_taped(path: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes | None:
    with _telling(path):
        file = tar.extractfile(info)
        return None if file is None else file.read(MAX_FILE_BYTES)
