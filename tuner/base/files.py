"""Files: their digests, how they are written whole or not at all, and what is said when they cannot be."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tuner.base.errors import CacheError
from tuner.base.wording import first_line

DEFAULT_CACHE = Path(".tuner")
"""The feature cache, and the store of networks in it, unless an experiment names another."""


def file_digest(file: Path) -> str:
    """Return the sha256 of a file's bytes, or of a folder's files with their relative paths."""
    if file.is_file():
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    digest = hashlib.sha256()
    for part in files_of(file):
        digest.update(f"{part.relative_to(file).as_posix()}\n{file_digest(part)}\n".encode())
    return digest.hexdigest()


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder, in the order of their relative paths."""
    files = (part for part in folder.rglob("*") if part.is_file())
    return sorted(files, key=lambda part: part.relative_to(folder).as_posix())


def write_aside(target: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target, then rename: a reader sees all of a file or none of it."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        aside = Path(folder, target.name)
        write(aside)
        aside.replace(target)


def private_folder() -> Path:
    """A folder of this user's own among the temporary ones, the same for all of the user's processes.

    Where somebody else has taken its name, which others can foresee, it is a new one.
    """
    folder = Path(tempfile.gettempdir(), f"tuner-{os.getuid()}")
    with suppress(OSError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return folder if own and not status.st_mode & 0o077 else Path(tempfile.mkdtemp(prefix="tuner-"))


@contextmanager
def writing(what: str, place: Path | str, advice: str) -> Iterator[None]:
    """Turn the system's refusal to write into one sentence.

    Parameters
    ----------
    what, place
        What is written to, as the sentence calls it, and where it is.
    advice
        What the user can do.

    Raises
    ------
    CacheError
        The system refused.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise CacheError(f"{what} {place} cannot be written ({reason}): {advice}.") from error
