"""Where a feature cache is: a folder of this machine, or one on a Hadoop filesystem with a copy here."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

from pyspark.sql import SparkSession

from tuner.base.errors import CacheError
from tuner.base.files import DEFAULT_CACHE
from tuner.base.uris import literal, local_path
from tuner.extraction.files import is_sound, writing_to
from tuner.spark.settings import is_local
from tuner.storage.filesystem import HadoopFolder
from tuner.storage.mirror import Mirror

LAST_USE = "last-use"  # the file, empty, whose time of change says when a network's features were used


class CachePlace:
    """The folder of a feature cache.

    Attributes
    ----------
    root
        The folder that this process works in. Of a cache on a Hadoop filesystem, the driver's copy of it,
        in the folder `.tuner`.
    uri
        Of a cache on a Hadoop filesystem, where it is; else None.
    """

    def __init__(self, given: Path | str) -> None:
        self.uri = given if isinstance(given, str) and local_path(given) is None else None
        self.root = (_copy_of(self.uri) if self.uri else _local(Path(given))).absolute()
        self._mirror: Mirror | None = None
        if ":" in str(self.root) and literal(str(self.root)) != str(self.root):  # Hadoop's own limit
            raise CacheError(
                f"The feature cache {self.root} has a colon beside one of []{{}}*?\\ in its path, which "
                "Spark cannot read: choose another folder with cache."
            )

    def connect(self, spark: SparkSession) -> None:
        """Reach the Hadoop filesystem that it is on, if it is on one.

        Raises
        ------
        CacheError
            Spark's Hadoop does not know it, or it cannot be written.
        """
        if self.uri is not None and self._mirror is None:
            with writing_to(self.uri):
                there = HadoopFolder(spark, self.uri)
                there.make()
            self._mirror = Mirror(self.root, there)

    @property
    def there(self) -> HadoopFolder | None:
        """The folder on a Hadoop filesystem, once it is connected; None for a cache of this machine."""
        return self._mirror.there if self._mirror is not None else None

    def seen_by_workers(self, spark: SparkSession) -> Path | None:
        """The folder that workers read and write in; None: what they need, and give, goes through Spark."""
        return self.root if self.uri is None or is_local(spark.sparkContext) else None

    def uris(self, spark: SparkSession, folder: Path, files: list[str]) -> list[str]:
        """Files of a folder below `root` as Spark reads them on any machine; as they are, if it can."""
        if self._mirror is None or self.seen_by_workers(spark):
            return files
        there = self._mirror.there.place(folder.relative_to(self.root).as_posix())
        return [literal(f"{there}/{Path(file).name}") for file in files]

    def exchange(self, spark: SparkSession, folder: Path) -> None:
        """Fetch and send what is missing here and there; parts that are damaged there are removed."""
        self.connect(spark)
        if self._mirror is not None:
            with writing_to(str(self.uri)):
                for part in self._mirror.fetch(folder.relative_to(self.root).as_posix()):
                    if part.suffix == ".parquet" and not is_sound(part):
                        self._mirror.remove(part)
            self.send(folder)

    def send(self, folder: Path) -> None:
        """Take to a Hadoop filesystem what is not there yet."""
        if self._mirror is not None:
            with writing_to(str(self.uri)):
                self._mirror.send(folder.relative_to(self.root).as_posix())

    def for_workers(self, spark: SparkSession, folder: Path) -> Path:
        """A folder below `root` as tasks open it, by `tuner.storage.mirror.brought_here`."""
        if self._mirror is None or self.seen_by_workers(spark):
            return folder.absolute()
        with writing_to(str(self.uri)):
            return self._mirror.ship(spark, folder)

    def for_saving(self, spark: SparkSession, folder: Path) -> Path | str:
        """A folder below `root` as Spark itself writes to it: its path, or the URI of that there."""
        if self._mirror is None or self.seen_by_workers(spark):
            return folder
        return self._mirror.there.place(folder.relative_to(self.root).as_posix())

    def note_use(self, folder: Path) -> None:
        """Note that a folder below `root` is used today; where that cannot be written it is not noted."""
        with suppress(OSError):
            (folder / LAST_USE).touch()
            if self._mirror is not None:
                name = (folder / LAST_USE).relative_to(self.root).as_posix()
                self._mirror.there.write_text(name, "")

    def discard(self, folder: Path) -> None:
        """Remove a folder below `root`, wherever it is."""
        shutil.rmtree(folder, ignore_errors=True)
        if self._mirror is not None:
            with suppress(OSError):
                self._mirror.there.remove(folder.relative_to(self.root).as_posix())


def _copy_of(uri: str) -> Path:
    """Where the driver keeps its copy of a cache on a Hadoop filesystem."""
    return DEFAULT_CACHE / "hadoop" / hashlib.sha256(uri.rstrip("/").encode()).hexdigest()[:16]


def _local(root: Path) -> Path:
    """The path of a `file:` URI, whose slashes `Path` has made fewer; of a path, itself."""
    scheme, colon, _ = str(root).partition(":/")
    if not colon or "/" in scheme or len(scheme) < 2:
        return root
    if scheme != "file":
        raise CacheError(
            f"The feature cache {root} is neither a path nor a URI: write {scheme}://HOST/FOLDER, as text."
        )
    return local_path(str(root)) or root
