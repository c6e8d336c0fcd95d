"""A folder on a Hadoop filesystem (`hdfs:`, `s3a:`, `viewfs:`, `file:`): listed, read, written whole."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from tuner.base.uris import hadoop_uri, local_path
from tuner.spark.jvm import java_reason
from tuner.storage.disk import Entry


class HadoopFolder:
    """A folder on whatever filesystem Spark's Hadoop knows; its JVM does the work, on the driver.

    Names are relative to it, of ASCII letters, digits and ``_ . - /``. A file that is written appears
    whole: beside its place, then renamed. A refusal of the filesystem is an `OSError` that says its reason.

    Parameters
    ----------
    spark
        The driver's classic session, whose Hadoop settings count.
    uri
        The folder: ``hdfs://host/data``, or a path of this machine. It need not be there.

    References
    ----------
    `org.apache.hadoop.fs.FileSystem`. Pyspark offers no other way to it than its gateway to the JVM;
    PyArrow's needs a native library, libhdfs, that is rarely there.
    """

    def __init__(self, spark: SparkSession, uri: str) -> None:
        local = local_path(uri)
        self.uri = hadoop_uri(local) if local else uri
        context: Any = spark.sparkContext
        self._hadoop = context._jvm.org.apache.hadoop.fs
        with _refusals():
            self._root = self._hadoop.Path(self.uri)
            self._files = self._root.getFileSystem(context._jsc.hadoopConfiguration())

    def place(self, name: str = "") -> str:
        """The URI of what is called so."""
        return f"{self.uri.rstrip('/')}/{name}" if name else self.uri

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file or folder."""
        with _refusals():
            return bool(self._files.exists(self._path(name)))

    def entries(self, name: str = "") -> list[Entry]:
        """What lies in a folder, by name; nothing where it is not there."""
        with _refusals():
            path = self._path(name)
            if not self._files.exists(path):
                return []
            found = [
                Entry(
                    str(status.getPath().getName()),
                    int(status.getLen()),
                    bool(status.isDirectory()),
                    status.getModificationTime() / 1000,
                )
                for status in self._files.listStatus(path)
            ]
        return sorted(found)

    def make(self, name: str = "") -> None:
        """Make a folder, and those above it."""
        with _refusals():
            self._files.mkdirs(self._path(name))

    def upload(self, source: Path, name: str) -> None:
        """Copy a file of this machine there; one that is there already is replaced."""
        folder, _, own = name.rpartition("/")
        aside = f"{folder}/_{own}.{uuid.uuid4().hex}" if folder else f"_{own}.{uuid.uuid4().hex}"
        try:
            with _refusals():
                origin = self._hadoop.Path(hadoop_uri(source))
                self._files.copyFromLocalFile(False, True, origin, self._path(aside))
            self.rename(aside, name)
        except BaseException:
            self.remove(aside)
            raise

    def download(self, name: str, target: Path) -> None:
        """Copy a file from there to this machine; no checksum file is left beside it."""
        with _refusals():
            self._files.copyToLocalFile(
                False, self._path(name), self._hadoop.Path(hadoop_uri(target)), True
            )

    def write_text(self, name: str, text: str) -> None:
        """Write a small file."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "text")
            source.write_text(text, encoding="utf-8")
            self.upload(source, name)

    def read_text(self, name: str) -> str | None:
        """Read a small file; None where there is none."""
        if not self.exists(name):
            return None
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "text")
            self.download(name, target)
            return target.read_text(encoding="utf-8")

    def rename(self, old: str, new: str) -> None:
        """Move a file; one that is there already is replaced, which filesystems do not do by themselves."""
        with _refusals():
            source, target = self._path(old), self._path(new)
            if self._files.exists(target):
                if self._files.getFileStatus(target).isDirectory():  # it would be moved into that
                    raise OSError(f"{self.place(new)} is a folder")
                self._files.delete(target, False)
            if not self._files.rename(source, target):
                raise OSError(f"{self.place(old)} cannot be renamed to {new}")

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing happens where there is none."""
        with _refusals():
            self._files.delete(self._path(name), True)

    def _path(self, name: str) -> Any:
        return self._hadoop.Path(self._root, name) if name else self._root


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Py4JJavaError as error:
        raise OSError(java_reason(error)) from error
