"""Local image files: listed on the driver, read and hashed on the workers, all with Python.

The JVM cannot open non-ASCII names in a C locale, and Spark's binaryFile skips names that begin with an
underscore and cannot take a colon.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

CHANGED = "The image %s changed or vanished while it was in use: start again."
IGNORED = frozenset(
    {"thumbs.db", "desktop.ini", "ehthumbs.db"}
)  # what file managers leave; hidden files, too
SYSTEM_FOLDERS = frozenset(  # of archives, file systems and file servers; hidden folders, too
    {
        "__macosx",
        "__pycache__",
        "lost+found",
        "found.000",
        "@eadir",
        "@tmp",
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
    }
)

_MAX_FILE_BYTES = 256 * 2**20  # a file crosses from Python to the JVM and back in one piece


def is_system_folder(name: str) -> bool:
    """Whether a folder is hidden, or the system's own."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_passed_over(name: str) -> bool:
    """Whether a file is hidden, or left by a file manager."""
    return name.startswith(".") or name.lower() in IGNORED


def files_below(folder: Path, seen: set[tuple[int, int]], passed: set[str] | None = None) -> Iterator[Path]:
    """Every file below a folder, however deep; a folder that a link leads back to is not entered again.

    The system's folders are not entered either; their names are added to `passed`.
    """
    folders = [folder]  # a list, not a recursion: Python's own ends after a thousand folders
    while folders:
        current = folders.pop()
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in sorted(current.iterdir()):
            if entry.is_dir():
                if not is_system_folder(entry.name):
                    folders.append(entry)
                elif passed is not None:
                    passed.add(path_text(entry.name))
            elif not is_passed_over(entry.name):
                yield entry


def path_text(path: Path | str) -> str:
    """A path as text; one that is not UTF-8 gets escapes, by which no worker will find it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_file(path: str) -> tuple[bytes | None, str | None]:
    """The content of a file and None, or None and why it cannot be read."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for its other end
            return None, "cannot be read: not a regular file"
        if status.st_size > _MAX_FILE_BYTES:
            return None, f"too large: {status.st_size} bytes"
        return Path(path).read_bytes(), None
    except OSError as error:
        return None, f"cannot be read: {error.strerror}"


def hash_files(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Add digest, size and error to paths; a content lives no longer than its hash takes."""
    for batch in batches:
        digests, sizes, errors = [], [], []
        for path in batch.column("path").to_pylist():
            content, error = read_file(path)
            digests.append("" if content is None else hashlib.sha256(content).hexdigest())
            sizes.append(len(content or b""))
            errors.append(error)
        yield (
            batch.append_column("digest", pa.array(digests, pa.string()))
            .append_column("bytes", pa.array(sizes, pa.int64()))
            .append_column("error", pa.array(errors, pa.string()))
        )
