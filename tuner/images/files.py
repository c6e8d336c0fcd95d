"""Local image files: listed on the driver, read and hashed on the workers, all with Python.

Digests of files are remembered by path, size and time of change: what did not change is not read again.

The JVM cannot open non-ASCII names in a C locale, and Spark's binaryFile skips names that begin with an
underscore and cannot take a colon.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pyarrow as pa

from tuner.base.files import write_aside

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
        "@__thumb",
        "#recycle",
        "#snapshot",
        "~snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "network trash folder",
        "temporary items",
    }
)

MAX_FILE_BYTES = 256 * 2**20  # a file crosses from Python to the JVM and back in one piece
# A file that was written just now may be written again within the same tick of its clock.
_SETTLED_SECONDS = 2.0
_COLUMNS = ["path", "size", "changed", "digest"]
_FACTS = ["path", "size", "changed"]


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
        if status.st_size > MAX_FILE_BYTES:
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


class RememberedDigests:
    """The digests of a source's files, in a Parquet file.

    Parameters
    ----------
    folder
        Where such files are; made if missing. One that cannot be written costs the memory and no more.
    listing
        The source's files, in a column `path`; which file they are remembered in follows from them.
    """

    def __init__(self, folder: Path, listing: pd.DataFrame) -> None:
        common = os.path.commonpath(list(listing["path"])) if len(listing) else ""
        self._file = folder / f"{hashlib.sha256(os.fsencode(common)).hexdigest()[:16]}.parquet"

    def hashed(
        self, listing: pd.DataFrame, hash_files: Callable[[pd.DataFrame], pd.DataFrame]
    ) -> pd.DataFrame:
        """Add `digest`, `bytes` and `error` to files; `hash_files` does so with those not known."""
        facts = _facts(listing)
        known = facts.merge(self._read(), on=_FACTS, how="left")["digest"].to_numpy()
        changed = facts["changed"].to_numpy()
        settled = (changed >= 0) & (changed < (time.time() - _SETTLED_SECONDS) * 1e9)
        is_known = pd.notna(known) & settled
        old = listing[is_known].assign(
            digest=known[is_known], bytes=facts["size"].to_numpy()[is_known], error=None
        )
        new = hash_files(listing[~is_known]) if not is_known.all() else old[:0]
        if len(new):
            found = pd.concat([old, new.set_axis(listing.index[~is_known])]).loc[listing.index]
            good = settled & found["error"].isna().to_numpy()
            self._write(facts.assign(digest=found["digest"].to_numpy())[good])
            return found
        return old

    def _read(self) -> pd.DataFrame:
        try:
            return pd.read_parquet(self._file, columns=_COLUMNS).drop_duplicates(_FACTS)
        except (OSError, ValueError, KeyError, pa.ArrowException):  # none yet, or damaged: it is made anew
            return pd.DataFrame({name: [] for name in _COLUMNS}).astype(
                {"path": str, "size": "int64", "changed": "int64", "digest": str}
            )

    def _write(self, table: pd.DataFrame) -> None:
        with suppress(OSError, ValueError, pa.ArrowException):  # a name may be no text
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_aside(self._file, lambda aside: table.to_parquet(aside, index=False))


def _facts(listing: pd.DataFrame) -> pd.DataFrame:
    """Size in bytes and time of change in nanoseconds of each file; −1 where there is none to be had."""
    sizes, times = [], []
    for path in listing["path"]:
        size, changed = -1, -1
        with suppress(OSError):
            status = Path(path).stat()
            size, changed = status.st_size, status.st_mtime_ns
        sizes.append(size)
        times.append(changed)
    return pd.DataFrame({"path": list(listing["path"]), "size": sizes, "changed": times})
