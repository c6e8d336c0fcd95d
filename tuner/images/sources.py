"""Images from folders, Parquet, tables or a built-in set, as one DataFrame.

Local folders are listed and read with Python (`tuner.images.files`); what lies elsewhere, with Spark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pandas as pd
from PIL import Image
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, DataType, IntegralType, StringType

from tuner.base.errors import ImageSourceError
from tuner.base.wording import first_line
from tuner.images.contents import with_contents
from tuner.images.files import IGNORED, files_below, path_text

_ORIGIN = r"^[A-Za-z][A-Za-z0-9+.-]*:(//[^/]*)?/*"  # scheme and host of a Hadoop path
_CONDITION = re.compile(r"\[[A-Z][A-Z0-9_.]+\] .+")
_T = TypeVar("_T")
_ONE_FOLDER_EACH = "give a folder with one folder of images for each class"


@dataclass(frozen=True)
class ImageSet:
    """The images of one source.

    `labels` are sorted by name; `notes` are sentences on what is not part of a class; `listing` has the
    files of a local folder (`path`, `label`).
    """

    spark: SparkSession
    make_frame: Callable[[], DataFrame]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()
    listing: pd.DataFrame | None = None

    @cached_property
    def frame(self) -> DataFrame:
        """One row an image, read when it is used.

        `path` string, `content` binary, `label` string, `label_index` int, the position in `labels`. Made
        when it is asked for: a new JVM takes a second for its first DataFrame.
        """
        return self.make_frame()


def read_images(spark: SparkSession, source: str) -> ImageSet:
    """Read a source of labelled images.

    Parameters
    ----------
    source
        A folder of class folders; a Parquet of `content` (binary), `label` (text or whole numbers) and,
        if it likes, `path`; `table:<name>` with the same columns; or `builtin:digits`.

    Raises
    ------
    ImageSourceError
        The source is missing or empty, has one class only, or columns of other types.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "builtin":
        return _read_builtin(spark, rest)
    if scheme == "table":
        return _read_columns(reading(source, lambda: spark.table(rest)), source)
    local = _local_path(source)
    if local is not None and not _exists(local):
        raise ImageSourceError(f"There is no folder {source}: check images, the folder of class folders.")
    if _is_parquet(source, local):
        place = _literal(str(local.absolute()) if local else source)
        return _read_columns(reading(source, lambda: spark.read.parquet(place)), source)
    if local is None:
        return _read_remote_folder(spark, source)
    return _read_local_folder(spark, local)


def _local_path(source: str) -> Path | None:
    """The path of a local source; None for one that only Spark can read (`hdfs:`, `s3a:`)."""
    try:
        parts = urlsplit(source)
    except ValueError as error:  # a bracket that no host has
        raise ImageSourceError(f"The images {source} are no path and no URI: {error}.") from error
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(source) if len(parts.scheme) < 2 or "://" not in source else None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # no permission above it, or a name longer than names may be
        raise ImageSourceError(f"The images {path} cannot be read: {error.strerror}.") from error


def _is_parquet(source: str, local: Path | None) -> bool:
    if source.rstrip("/").endswith(".parquet"):
        return True
    return local is not None and local.is_dir() and any(local.glob("*.parquet"))


def _literal(path: str) -> str:
    """A path in which Spark sees no pattern."""
    return re.sub(r"([{}\[\]*?\\])", r"\\\1", path)


def reading(source: str, read: Callable[[], _T]) -> _T:
    """Let Spark read, and turn its refusal into one sentence (`ImageSourceError`)."""
    try:
        return read()
    except (PySparkException, Py4JJavaError) as error:
        condition = _CONDITION.search(str(error))  # Spark's own words, wherever in a chain of causes
        text = error.java_exception.toString() if isinstance(error, Py4JJavaError) else str(error)
        reason = condition[0] if condition else first_line(text)
        raise ImageSourceError(f"The images {source} cannot be read: {reason}") from error


def _checked_labels(labels: list[str], source: str, missing: str, advice: str) -> tuple[str, ...]:
    if len(labels) < 2:
        found = f"only the class {labels[0]}" if labels else f"no {missing}"
        raise ImageSourceError(
            f"There is {found} in {source}, and a classifier needs at least two classes: {advice}."
        )
    return tuple(sorted(labels))


def _image_set(frame: DataFrame, labels: tuple[str, ...], notes: tuple[str, ...] = ()) -> ImageSet:
    return ImageSet(frame.sparkSession, lambda: _with_index(frame, labels), labels, notes)


def _with_index(frame: DataFrame, labels: tuple[str, ...]) -> DataFrame:
    position = F.array_position(F.array(*[F.lit(label) for label in labels]), F.col("label"))
    return frame.withColumn("label_index", (position - 1).cast("int"))


# Local folders ------------------------------------------------------------------------------------


def _read_local_folder(spark: SparkSession, folder: Path) -> ImageSet:
    if not folder.is_dir():
        raise ImageSourceError(f"{folder} is a file: {_ONE_FOLDER_EACH}, or a Parquet (.parquet).")
    try:
        root = folder.stat()
        entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
        classes = {
            path_text(entry.name): list(files_below(entry, {(root.st_dev, root.st_ino)}))
            for entry in entries
            if entry.is_dir()
        }
    except OSError as error:
        raise ImageSourceError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error
    labels = _checked_labels(list(classes), str(folder), "class folder", _ONE_FOLDER_EACH)
    for label in labels:
        if not classes[label]:
            raise ImageSourceError(
                f"The class folder {folder / label} has no images: add some or remove it."
            )
    rows = [(path_text(path.absolute()), label) for label in labels for path in classes[label]]
    listing = pd.DataFrame(rows, columns=["path", "label"])

    def frame() -> DataFrame:
        listed = _with_index(spark.createDataFrame(listing, "path string, label string"), labels)
        return with_contents(listed).select("path", "content", "label", "label_index")

    loose = sum(not entry.is_dir() and entry.name.lower() not in IGNORED for entry in entries)
    return ImageSet(spark, frame, labels, _loose_note(loose, str(folder)), listing)


def _loose_note(count: int, source: str) -> tuple[str, ...]:
    return (f"{count} file(s) directly in {source} belong to no class and are left out",) if count else ()


# Folders elsewhere --------------------------------------------------------------------------------


def _read_remote_folder(spark: SparkSession, source: str) -> ImageSet:
    """Read with Spark, which leaves out files and folders that begin with an underscore or a dot."""
    files = reading(
        source,
        lambda: (
            spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(_literal(source))
        ),
    )
    # `path` is the root, made canonical, and the names below it; nothing in it is percent-encoded.
    root = re.sub("/+", "/", re.sub(_ORIGIN, "", source)).rstrip("/")
    names = F.regexp_replace("path", _ORIGIN, "").substr(len(root) + 2 if root else 1, 2**31 - 1)
    parts = F.split(names, "/")
    label = F.when(F.size(parts) > 1, parts[0])  # null beside the class folders
    labelled = files.withColumn("label", label).where(~F.lower(F.element_at(parts, -1)).isin(*IGNORED))
    counts: dict[str | None, int] = dict(
        reading(source, lambda: labelled.groupBy("label").count().collect())
    )
    labels = _checked_labels(
        [name for name in counts if name is not None], source, "class folder", _ONE_FOLDER_EACH
    )
    frame = labelled.where(F.col("label").isNotNull()).select("path", "content", "label")
    return _image_set(frame, labels, _loose_note(counts.get(None, 0), source))


# Parquet, tables, the built-in set -----------------------------------------------------------------


def _read_columns(frame: DataFrame, source: str) -> ImageSet:
    wanted: dict[str, tuple[type[DataType], ...]] = {
        "content": (BinaryType,),
        "label": (StringType, IntegralType),
    }
    for name, kinds in wanted.items():
        if name not in frame.columns:
            raise ImageSourceError(
                f"{source} has no column {name}: it needs content (binary) and label (text or numbers)."
            )
        kind = frame.schema[name].dataType
        if not isinstance(kind, kinds):
            raise ImageSourceError(
                f"The column {name} of {source} is {kind.simpleString()}: it must be "
                f"{'binary' if name == 'content' else 'text or whole numbers'}."
            )
    path = F.col("path").cast("string") if "path" in frame.columns else F.lit(None).cast("string")
    named = frame.select(path.alias("path"), "content", F.col("label").cast("string").alias("label"))
    labels = [row["label"] for row in reading(source, named.select("label").distinct().collect)]
    if None in labels:
        raise ImageSourceError(f"The column label of {source} has nulls: every image needs its class.")
    if "" in labels:
        raise ImageSourceError(f"The column label of {source} has empty text: every image needs its class.")
    by_content = F.concat(F.lit("sha256:"), F.substring(F.sha2(F.col("content"), 256), 1, 16))
    named = named.withColumn("path", F.coalesce("path", by_content, F.lit("null")))
    checked = _checked_labels(labels, source, "image", "add images of another class")
    return _image_set(named, checked)


def _read_builtin(spark: SparkSession, name: str) -> ImageSet:
    if name != "digits":
        raise ImageSourceError(f"There is no built-in set {name}: there is builtin:digits.")
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = [
        (f"digits/{number:04d}.png", _png(pixels), str(label))
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True))
    ]
    labels = tuple(sorted({label for _, _, label in rows}))
    frame = spark.createDataFrame(pd.DataFrame(rows, columns=["path", "content", "label"]))
    return _image_set(frame, labels)


def _png(pixels: object) -> bytes:
    """8 x 8 gray levels from 0 to 16 as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(np.asarray(pixels) * 255 / 16).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()
