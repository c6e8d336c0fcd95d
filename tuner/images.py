"""Images from folders, Parquet, tables or a built-in set: one DataFrame, and its index on the driver.

Local folders are listed and read with Python: the JVM cannot open non-ASCII names in a C locale, and
Spark's binaryFile skips names that begin with an underscore and cannot take a colon. It reads the rest.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, DataType, IntegralType, StringType

from tuner.errors import ImageSourceError

_IGNORED = frozenset({"thumbs.db", "desktop.ini"})  # what file managers leave
_CONTENT = pa.schema([("path", pa.string()), ("content", pa.binary()), ("error", pa.string())])


@dataclass(frozen=True)
class ImageSet:
    """The images of one source.

    `frame` has one row an image, read when it is used: `path` string, `content` binary, `label` string,
    `label_index` int, the position of the label in `labels`, which are sorted by name. `listing` has
    the files of a local folder (`path`, `label`); `notes` are sentences on what is not part of a class.
    """

    frame: DataFrame
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()
    listing: pd.DataFrame | None = None


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
        return _read_columns(_load(source, lambda: spark.table(rest)), source)
    local = _local_path(source)
    if local is not None and not local.exists():
        raise ImageSourceError(f"There is no folder {source}: check images, the folder of class folders.")
    if _is_parquet(source, local):
        return _read_columns(_load(source, lambda: spark.read.parquet(source)), source)
    if local is None:
        return _read_remote_folder(spark, source)
    return _read_local_folder(spark, local)


def _local_path(source: str) -> Path | None:
    """The path of a local source; None for one that only Spark can read (`hdfs:`, `s3a:`)."""
    parts = urlsplit(source)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(source) if len(parts.scheme) < 2 or "://" not in source else None


def _is_parquet(source: str, local: Path | None) -> bool:
    if source.rstrip("/").endswith(".parquet"):
        return True
    return local is not None and local.is_dir() and any(local.glob("*.parquet"))


def _load(source: str, read: Callable[[], DataFrame]) -> DataFrame:
    try:
        return read()
    except PySparkException as error:
        reason = str(error).strip().splitlines()[0]
        raise ImageSourceError(f"The images {source} cannot be read: {reason}") from error


def _checked_labels(labels: list[str], source: str) -> tuple[str, ...]:
    if len(labels) < 2:
        found = f"only the class {labels[0]}" if labels else "no class folder"
        raise ImageSourceError(
            f"There is {found} in {source}, and a classifier needs at least two: give a folder with one "
            "folder of images for each class."
        )
    return tuple(sorted(labels))


def _with_index(frame: DataFrame, labels: tuple[str, ...]) -> DataFrame:
    position = F.array_position(F.array(*[F.lit(label) for label in labels]), F.col("label"))
    return frame.withColumn("label_index", (position - 1).cast("int"))


# Local folders ------------------------------------------------------------------------------------


def _files(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Every file below a folder, by name; a folder that a link leads back to is entered once."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name.lower() in _IGNORED:
            continue
        if entry.is_dir():
            yield from _files(entry, seen)
        else:
            yield entry


def _read_local_folder(spark: SparkSession, folder: Path) -> ImageSet:
    if not folder.is_dir():
        raise ImageSourceError(
            f"{folder} is a file: give a folder with one folder of images for each class."
        )
    try:
        entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
        classes = {entry.name: list(_files(entry, set())) for entry in entries if entry.is_dir()}
    except OSError as error:
        raise ImageSourceError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error
    labels = _checked_labels(list(classes), str(folder))
    for label in labels:
        if not classes[label]:
            raise ImageSourceError(
                f"The class folder {folder / label} has no images: add some or remove it."
            )
    rows = [(str(path.absolute()), label) for label in labels for path in classes[label]]
    listing = pd.DataFrame(rows, columns=["path", "label"])
    frame = _with_index(_read_files(spark.createDataFrame(listing)).drop("error"), labels)
    loose = sum(not entry.is_dir() and entry.name.lower() not in _IGNORED for entry in entries)
    notes = (f"{loose} file(s) directly in {folder} belong to no class and are left out",) if loose else ()
    return ImageSet(frame, labels, notes, listing)


def _read_files(listing: DataFrame) -> DataFrame:
    """Read the files of a listing on the workers; one that cannot be read has a null and a reason."""
    others = [field for field in listing.schema if field.name != "path"]

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in range(batch.num_rows):  # one at a time: a batch of contents may be large
                path = batch.column("path")[row].as_py()
                try:
                    content, reason = Path(path).read_bytes(), None
                except OSError as error:
                    content, reason = None, f"cannot be read: {error.strerror}"
                columns = [
                    pa.array([value], field.type)
                    for value, field in zip((path, content, reason), _CONTENT, strict=True)
                ]
                kept = [batch.column(field.name).slice(row, 1) for field in others]
                names = [*_CONTENT.names, *(field.name for field in others)]
                yield pa.RecordBatch.from_arrays([*columns, *kept], names=names)

    extra = "".join(f", {field.name} {field.dataType.simpleString()}" for field in others)
    return listing.mapInArrow(read, "path string, content binary, error string" + extra)


def _read_remote_folder(spark: SparkSession, source: str) -> ImageSet:
    files = _load(
        source,
        lambda: spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(source),
    )
    root = source.rstrip("/") + "/"
    relative = F.substring_index(F.col("path"), root.split("://", 1)[1].partition("/")[2], -1)
    parts = F.split(relative, "/")
    frame = files.where(F.size(parts) > 1).select("path", "content", parts[0].alias("label"))
    labels = _checked_labels(_distinct_labels(frame), source)
    return ImageSet(_with_index(frame, labels), labels)


# Parquet, tables, the built-in set -----------------------------------------------------------------


def _distinct_labels(frame: DataFrame) -> list[str]:
    return [row["label"] for row in frame.select("label").distinct().collect()]


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
    labels = _distinct_labels(named)
    if None in labels:
        raise ImageSourceError(f"The column label of {source} has nulls: every image needs its class.")
    by_content = F.concat(F.lit("sha256:"), F.substring(F.sha2(F.col("content"), 256), 1, 16))
    named = named.withColumn("path", F.coalesce("path", by_content, F.lit("null")))
    checked = _checked_labels(labels, source)
    return ImageSet(_with_index(named, checked), checked)


def _read_builtin(spark: SparkSession, name: str) -> ImageSet:
    if name != "digits":
        raise ImageSourceError(f"There is no built-in set {name}: there is builtin:digits.")
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = [
        (f"digits/{number:04d}.png", _png(pixels), str(label))
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True))
    ]
    labels = _checked_labels(list({label for _, _, label in rows}), f"builtin:{name}")
    frame = spark.createDataFrame(pd.DataFrame(rows, columns=["path", "content", "label"]))
    return ImageSet(_with_index(frame, labels), labels)


def _png(pixels: object) -> bytes:
    """8 x 8 gray levels from 0 to 16 as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(np.asarray(pixels) * 255 / 16).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


# Index and contents -------------------------------------------------------------------------------


def index_images(images: ImageSet) -> pd.DataFrame:
    """Hash every image in one pass over the source; contents stay on the workers.

    Returns
    -------
    One row an image, sorted by path: `path`, `label`, `label_index` (int), `digest` (sha256, hex),
    `bytes` (int) and `error`: None, or why the file could not be read.
    """
    frame = images.frame
    if images.listing is not None:
        spark = frame.sparkSession
        frame = _with_index(_read_files(spark.createDataFrame(images.listing)), images.labels)
    else:
        frame = frame.withColumn("error", F.when(F.col("content").isNull(), "is null"))
    hashed = frame.select(
        "path",
        "label",
        "label_index",
        F.coalesce(F.sha2(F.col("content"), 256), F.lit("")).alias("digest"),
        F.coalesce(F.length("content"), F.lit(0)).cast("long").alias("bytes"),
        "error",
    )
    index: pd.DataFrame = hashed.toPandas()
    index["error"] = index["error"].astype(object).where(index["error"].notna(), None)
    return index.sort_values(["path", "label"], ignore_index=True)


def contents(images: ImageSet, index: pd.DataFrame, partitions: int) -> DataFrame:
    """The bytes of the images of `index`: `digest`, `content`, one row a digest, evenly spread.

    Of a local folder only these files are read.
    """
    wanted = index.drop_duplicates("digest")
    spark = images.frame.sparkSession
    if images.listing is not None:
        listed = spark.createDataFrame(wanted[["path", "digest"]]).repartition(partitions)
        return _read_files(listed).select("digest", "content")
    digests = spark.createDataFrame(wanted[["digest"]])
    hashed = images.frame.select(F.sha2("content", 256).alias("digest"), "content")
    found = hashed.join(F.broadcast(digests), "digest", "leftsemi").dropDuplicates(["digest"])
    return found.repartition(partitions)
