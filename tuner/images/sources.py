"""Sources of images: what a name, a path or a URI stands for, and who reads it.

Local folders are listed and read with Python (`tuner.images.files`); what lies elsewhere, with Spark.
"""

from __future__ import annotations

import glob
import io
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from PIL import Image
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from tuner.base.choices import GivenSplit
from tuner.base.errors import ImageSourceError
from tuner.base.uris import hadoop_uri, literal, local_path
from tuner.images.folders import (
    ONE_FOLDER_EACH,
    LocalFolder,
    read_local_folder,
    read_remote_folder,
)
from tuner.images.index import ImageSet, reading, sorted_labels, with_index
from tuner.images.tables import read_columns, read_parquet

# What tells that a folder is a table with a log: the files that its folder holds are not its rows.
_LOGS = {
    "a Delta table": "_delta_log",
    "a Hudi table": ".hoodie",
    "an Iceberg table": "metadata/*.metadata.json",
    "a Paimon table": "snapshot/snapshot-*",
}
_ABOVE = 3  # folders above a file or partition in which the log of its table is looked for
# What Spark needs for a scheme that it does not bring itself.
_NEEDED = {
    "s3a": "org.apache.hadoop:hadoop-aws",
    "gs": "com.google.cloud.bigdataoss:gcs-connector",
    "abfs": "org.apache.hadoop:hadoop-azure",
    "abfss": "org.apache.hadoop:hadoop-azure",
    "wasb": "org.apache.hadoop:hadoop-azure",
    "wasbs": "org.apache.hadoop:hadoop-azure",
}
_DOCS = "docs/how-to/own-images.md says how"
_SCHEME = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+:/", re.IGNORECASE)


def read_images(
    spark: SparkSession, source: str, *, given: GivenSplit | None = None, training: bool = True
) -> ImageSet:
    """Read a source of labelled images.

    Parameters
    ----------
    source
        A folder of class folders; a Parquet file, or a folder or pattern of them, of `content` (binary) or
        `image` (Spark's or Hugging Face's struct), `label` (text or whole numbers) and, if it likes,
        `path`; `table:<name>` with the same columns; or `builtin:digits`.
    given
        `folders`: the source is split already, into folders or files called train, val and test.
    training
        False: one class is enough, and a class folder may be empty.

    Raises
    ------
    ImageSourceError
        The source is missing or empty, is not what it looks like, has one class only, or columns of other
        types.
    """
    scheme, _, rest = source.partition(":")
    if scheme in ("builtin", "table"):
        if given:
            raise ImageSourceError(
                f"split.given is {given}, and {source} has no folders: leave split.given out."
            )
        if scheme == "builtin":
            return _read_builtin(spark, rest)
        frame = reading(source, lambda: spark.table(rest), _missing_table)
        return read_columns(frame, source, training=training)
    local = _local_path(source)
    if local is None:
        return _read_elsewhere(spark, source, given, training)
    if not _exists(local):
        matches = _matches(local)
        for folder in {Path(file.removeprefix("file://")).parent for file in matches}:
            refuse_table_with_log(spark, source, folder)
        if matches:
            return read_parquet(spark, matches, source, given, training=training)
        raise ImageSourceError(f"There is no folder {source}: check images, the folder of class folders.")
    refuse_table_with_log(spark, source, local)
    place = hadoop_uri(local)
    if place.endswith(".parquet"):
        return read_parquet(spark, [place], source, given, training=training)
    if not local.is_dir():
        raise ImageSourceError(f"{local} is a file: {ONE_FOLDER_EACH}, or a Parquet (.parquet).")
    listed = LocalFolder.list(local)
    if listed.is_table:
        _refuse_tables_below(source, listed)
        return read_parquet(spark, [place], source, given, training=training)
    return read_local_folder(spark, listed, given, training=training)


def _read_elsewhere(spark: SparkSession, source: str, given: GivenSplit | None, training: bool) -> ImageSet:
    """Read what only Spark can."""
    place = literal(source.rstrip("/"))

    def has_files() -> bool:
        return any(exists_for_spark(spark, f"{place}/{pattern}") for pattern in ("*.parquet", "*=*"))

    refuse_table_with_log(spark, source, None)
    if source.rstrip("/").endswith(".parquet") or reading(source, has_files, _missing_scheme(source)):
        return read_parquet(spark, [source], source, given, training=training)
    return read_remote_folder(spark, source, given, training=training)


def exists_for_spark(spark: SparkSession, pattern: str) -> bool:
    """Whether Spark finds a path or a pattern, wherever it is."""
    try:
        spark.read.format("binaryFile").load(pattern)
    except AnalysisException as error:
        if error.getCondition() == "PATH_NOT_FOUND":
            return False
        raise
    return True


def refuse_table_with_log(spark: SparkSession, source: str, local: Path | None) -> None:
    """Refuse the files of a Delta, Hudi, Iceberg or Paimon table, and of a part of one.

    Raises
    ------
    ImageSourceError
        Its log says which rows count, and which were deleted or replaced; the files hold all of them.
    """
    for kind, pattern in _LOGS.items():
        if local is None:
            places = _logs_elsewhere(spark, source, pattern)
        else:
            # What says "snapshot" may be anything, further up.
            above = list(local.absolute().parents)[: 0 if pattern.startswith("snapshot") else _ABOVE]
            places = [str(folder) for folder in (local, *above) if any(folder.glob(pattern))]
        if places:
            raise _table_with_log(source, kind, f"{places[0]}/{pattern}")


def _refuse_tables_below(source: str, listed: LocalFolder) -> None:
    """Refuse a folder that holds tables with a log; errors as of `refuse_table_with_log`."""
    files = [file for files in listed.folders.values() for file in files]
    for kind, pattern in _LOGS.items():
        inside = pattern if "*" in pattern else f"{pattern}/*"
        found = next((file.parent for file in files if file.match(inside)), None)
        if found is None and pattern in listed.passed:  # hidden, and not listed
            found = next(listed.path.rglob(pattern), None)
        if found is not None:
            raise _table_with_log(source, kind, str(found))


def _table_with_log(source: str, kind: str, log: str) -> ImageSourceError:
    return ImageSourceError(
        f"{source} belongs to {kind} (there is {log}), whose files also hold rows that were deleted or "
        f"replaced: register the table in Spark's catalogue, and give it as table:NAME ({_DOCS})."
    )


def _logs_elsewhere(spark: SparkSession, source: str, pattern: str) -> list[str]:
    place = source.rstrip("/")
    found = reading(
        source, lambda: exists_for_spark(spark, f"{literal(place)}/{pattern}"), _missing_scheme(source)
    )
    return [place] if found else []


def _local_path(source: str) -> Path | None:
    """The path of a local source; None for one that only Spark can read (`hdfs:`, `s3a:`)."""
    try:
        urlsplit(source)
        path = local_path(source)
    except ValueError as error:  # a bracket that no host has, or a home folder that nobody has
        raise ImageSourceError(f"The images {source} are no path and no URI: {error}.") from error
    if path is not None and _SCHEME.match(source) and not _exists(path):
        return None  # hdfs:/photos, and no folder of this name
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # no permission above it, or a name longer than names may be
        raise ImageSourceError(f"The images {path} cannot be read: {error.strerror}.") from error


def _matches(pattern: Path) -> list[str]:
    """The Parquet files that a pattern stands for, such as `train-*.parquet`."""
    found = sorted(glob.glob(str(pattern.absolute())))  # noqa: PTH207  # a path of any length, absolute
    return (
        list(map(hadoop_uri, map(Path, found))) if all(file.endswith(".parquet") for file in found) else []
    )


def _missing_table(refusal: str) -> str:
    if "TABLE_OR_VIEW_NOT_FOUND" not in refusal and "NAMESPACE" not in refusal:
        return ""
    return (
        "; tuner's Spark knows the tables of its own catalogue only: for those of a Hive metastore or "
        f"another catalogue it needs settings ({_DOCS})"
    )


def _missing_scheme(source: str) -> Callable[[str], str]:
    """What Spark needs to read a URI, said of its refusal."""
    scheme = urlsplit(source).scheme

    def missing(refusal: str) -> str:
        if "ClassNotFoundException" in refusal or "No FileSystem for scheme" in refusal:
            if scheme in ("s3", "s3n"):
                return f"; Spark calls it s3a: give s3a:{source.partition(':')[2]} ({_DOCS})"
            package = f"the package {_NEEDED[scheme]}" if scheme in _NEEDED else "a package for it"
            return f"; Spark needs {package} and its settings to read {scheme}: URIs ({_DOCS})"
        if "no host" in refusal:
            path = source.partition(":")[2].lstrip("/")
            return f"; give its host, too: {scheme}://HOST/{path} ({_DOCS})"
        if scheme in ("http", "https"):
            return "; Spark cannot list the folders of a web server: download the images"
        return ""

    return missing


def _read_builtin(spark: SparkSession, name: str) -> ImageSet:
    if name != "digits":
        raise ImageSourceError(f"There is no built-in set {name}: there is builtin:digits.")
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = [
        (f"digits/{number:04d}.png", _png(pixels), str(label))
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True))
    ]
    labels = sorted_labels({label for _, _, label in rows})
    held = pd.DataFrame(rows, columns=["path", "content", "label"])
    return ImageSet(spark, lambda: with_index(spark.createDataFrame(held), labels), labels, held=held)


def _png(pixels: object) -> bytes:
    """8 x 8 gray levels from 0 to 16 as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(np.asarray(pixels) * 255 / 16).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()
