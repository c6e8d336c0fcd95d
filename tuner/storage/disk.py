"""A folder of this machine, by the words in which one on a Hadoop filesystem is spoken of."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple, Protocol


class Entry(NamedTuple):
    """What lies in a folder: its name there, its size in bytes, and whether it is a folder itself.

    `changed` is when that was last, in seconds since 1970.
    """

    name: str
    size: int
    is_folder: bool
    changed: float


class Folder(Protocol):
    """A folder, wherever it is; names are relative to it."""

    def entries(self, name: str = "") -> list[Entry]:
        """What lies in a folder, by name; nothing where it is not there."""

    def read_text(self, name: str) -> str | None:
        """Read a small file; None where there is none."""

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing happens where there is none."""


class DiskFolder:
    """A folder of this machine.

    Parameters
    ----------
    path
        Where it is; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self, name: str = "") -> list[Entry]:
        """As of a `Folder`; a file that goes meanwhile is left out."""
        found = []
        folder = self.path / name
        for file in folder.iterdir() if folder.is_dir() else ():
            try:
                status = file.stat()
            except FileNotFoundError:
                continue
            found.append(Entry(file.name, status.st_size, file.is_dir(), status.st_mtime))
        return sorted(found)

    def read_text(self, name: str) -> str | None:
        """As of a `Folder`."""
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """As of a `Folder`."""
        place = self.path / name
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
