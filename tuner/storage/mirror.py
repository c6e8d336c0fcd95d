"""A folder of this machine that goes with one on a Hadoop filesystem: each file is fetched or sent once.

Python, which reads and writes features, sees no Hadoop filesystem; so the driver keeps what lies there in a
folder of its own. That is simple because no file is ever changed: what has the same name is the same.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pyspark import SparkFiles
from pyspark.sql import SparkSession

from tuner.base.files import files_of, write_aside
from tuner.storage.filesystem import HadoopFolder


class Mirror:
    """Files below a folder of this machine, and the same below one on a Hadoop filesystem.

    Parameters
    ----------
    here, there
        The two folders.
    """

    def __init__(self, here: Path, there: HadoopFolder) -> None:
        self.here, self.there = here, there

    def fetch(self, name: str) -> list[Path]:
        """Bring the files of a folder that are missing here; gives them."""
        folder = self.here / name
        folder.mkdir(parents=True, exist_ok=True)
        names = [entry.name for entry in self.there.entries(name) if not entry.is_folder]
        missing = [one for one in names if _is_whole(one) and not (folder / one).exists()]
        for one in missing:
            write_aside(folder / one, partial(self.there.download, f"{name}/{one}"))
        return [folder / one for one in missing]

    def send(self, name: str) -> None:
        """Take the files of a folder there that are missing there."""
        known = {entry.name for entry in self.there.entries(name)}
        for file in sorted((self.here / name).iterdir()):
            if file.is_file() and _is_whole(file.name) and file.name not in known:
                self.there.upload(file, f"{name}/{file.name}")

    def remove(self, file: Path) -> None:
        """Remove a file here and there."""
        file.unlink(missing_ok=True)
        self.there.remove(file.relative_to(self.here).as_posix())

    def ship(self, spark: SparkSession, folder: Path) -> Path:
        """Let Spark bring a folder to the workers, by way of there; gives what stands for it in a task.

        Each executor's JVM fetches it before its next task. `brought_here` finds it.
        """
        place = folder.relative_to(self.here).as_posix()
        for file in files_of(folder):
            self.there.upload(file, f"{place}/{file.relative_to(folder).as_posix()}")
        spark.sparkContext.addFile(self.there.place(place), recursive=True)
        return Path(folder.name)


def brought_here(folder: Path) -> Path:
    """A folder on this machine, worker or driver: what Spark brought to it has a name and no place."""
    return folder if folder.is_absolute() else Path(SparkFiles.get(folder.name))


def _is_whole(name: str) -> bool:
    """Whether a file's name is its own, not that of one which is still being written."""
    return not name.startswith((".", "_"))
