"""Parquet files and tables of images: in tuner's own columns, Spark's image struct or Hugging Face's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, IntegralType, StringType, StructType

from tuner.base.choices import GivenSplit
from tuner.base.errors import ImageError, ImageSourceError
from tuner.base.uris import literal
from tuner.images.decoding import struct_pixels
from tuner.images.folders import ORIGIN
from tuner.images.index import ImageSet, checked_labels, png_file, reading, with_index
from tuner.images.layout import part_of, shown_names
from tuner.images.splits import GIVEN, TRAIN

_INFERENCE = "spark.sql.sources.partitionColumnTypeInference.enabled"
_BATCH_BYTES = 8 * 2**20  # of pictures that a worker makes at once
_CONTENTS, _LABELS = ("content", "image", "img"), ("label", "labels")
_WANTED = (
    "it needs content (the bytes of image files) or image (Spark's or Hugging Face's struct), and label "
    "(text or whole numbers)"
)
_SPARK_IMAGE = frozenset({"height", "width", "nChannels", "data"})


# Files ----------------------------------------------------------------------------------------------


def read_parquet(
    spark: SparkSession, places: Sequence[str], source: str, given: GivenSplit | None, *, training: bool
) -> ImageSet:
    """Read Parquet files and folders of them, partitioned (`label=…`) or not.

    Parameters
    ----------
    places
        Files and folders, as Spark knows them, without patterns.
    source
        What the user calls them.
    given
        `folders`: files and folders called train, test and so on are the parts of a split.

    Raises
    ------
    ImageSourceError
        They cannot be read, have other columns, too few classes, or are not what `given` says.
    """
    frame = reading(source, lambda: _frame_of(spark, places))
    files = [unquote(file) for file in frame.inputFiles()]
    parts = _parts_of(files, places)
    names = sorted({_name_of_part(file, places) for file in files if parts.get(file)})
    if given is None and len(set(parts.values()) - {None}) > 1:
        raise ImageSourceError(
            f"The files of {source} ({shown_names(names)}) look like the parts of a split. Set "
            "split.given: folders to keep that split, or give one of them alone."
        )
    notes: list[str] = []
    if given is not None:
        frame, notes = _split_frame(spark, frame, parts, places, source, given)
    classes = _class_names(files[0]) if files else ()
    partitioned = any("label=" in file for file in files)
    return read_columns(frame, source, training=training, notes=notes, classes=classes, escaped=partitioned)


def _frame_of(spark: SparkSession, places: Sequence[str]) -> DataFrame:
    """Spark's own partitions where folders are called `key=value`, else all files, however deep."""
    with _partitions_as_text(spark):
        reader = spark.read
        if all(not place.rstrip("/").endswith(".parquet") for place in places):
            reader = reader.option("pathGlobFilter", "*.parquet")  # what else lies there
        patterns = [literal(place) for place in places]
        frame = reader.option("recursiveFileLookup", "true").parquet(*patterns)
        begins = {_partitions_of(unquote(file), places) for file in frame.inputFiles()}
        if begins - {None}:
            # From where the partitions begin: of other files further up, Spark makes a conflict.
            patterns = [literal(place) for place in begins if place] if len(begins) == 1 else patterns
            frame = reader.option("recursiveFileLookup", "false").parquet(*patterns)
        return frame


@contextmanager
def _partitions_as_text(spark: SparkSession) -> Iterator[None]:
    """Let a folder called `label=001` stand for the class 001, not 1."""
    before = spark.conf.get(_INFERENCE)
    spark.conf.set(_INFERENCE, "false")
    try:
        yield
    finally:
        spark.conf.set(_INFERENCE, str(before))


def _partitions_of(file: str, places: Sequence[str]) -> str | None:
    """The folder in which the partitions of a file (`key=value/…`) begin; None if it is in none."""
    below = _below(file, places)
    match = re.search(r"(^|(?<=/))[^/=]+=", below.rpartition("/")[0])
    return file[: len(file) - len(below) + match.start()] if match else None


def _below(file: str, places: Sequence[str]) -> str:
    """The path of a file below what was given; its name, where it was given itself."""
    bare = re.sub(ORIGIN, "", file)
    for place in places:
        root = re.sub("/+", "/", re.sub(ORIGIN, "", place)).strip("/")
        if bare.startswith(f"{root}/"):
            return bare[len(root) + 1 :]
    return bare.rpartition("/")[2]


def _name_of_part(file: str, places: Sequence[str]) -> str:
    """The folder or file below what was given that says which part of a split it is; empty if none does."""
    *folders, name = _below(file, places).split("/")
    for folder in folders:
        key, _, value = folder.rpartition("=")
        if key != "label" and part_of(value):
            return folder
    return name if part_of(re.split(r"[-_.]", name)[0]) else ""


def _parts_of(files: Sequence[str], places: Sequence[str]) -> dict[str, str | None]:
    """The part of each file, as its folder (`test/`, `split=test/`) or name (`test-0-of-1`) says."""
    named = {file: _name_of_part(file, places) for file in files}
    return {
        file: part_of(re.split(r"[-_.]", name.rpartition("=")[2])[0]) if name else None
        for file, name in named.items()
    }


def _split_frame(
    spark: SparkSession,
    frame: DataFrame,
    parts: Mapping[str, str | None],
    places: Sequence[str],
    source: str,
    given: GivenSplit,
) -> tuple[DataFrame, list[str]]:
    """The rows of the files that are parts, with `given`; and what is left out."""
    found = {part for part in parts.values() if part}
    if len(found) < 2 or TRAIN not in found:
        raise ImageSourceError(
            f"split.given is {given}, and {source} holds no split: that takes files or folders called "
            "train and test or val. Leave split.given out, or give the folder that has them."
        )
    partitioned = any(key for key in frame.columns if any(f"/{key}=" in file for file in parts))
    base = {"basePath": places[0]} if partitioned and len(places) == 1 else {}
    frames = []
    with _partitions_as_text(spark):
        for part in sorted(found):
            own = [literal(file) for file, its in parts.items() if its == part]
            frames.append(spark.read.options(**base).parquet(*own).withColumn(GIVEN, F.lit(part)))
    other = sum(part is None for part in parts.values())
    notes = (
        [f"{other} file(s) of {source} belong to no part of the split and are left out"] if other else []
    )
    return reduce(lambda one, more: one.unionByName(more, allowMissingColumns=True), frames), notes


def _class_names(file: str) -> tuple[str, ...]:
    """The names of a Hugging Face ClassLabel, which the numbers stand for; none, if it states none."""
    path = Path("/" + re.sub(ORIGIN, "", file))
    if not path.is_file():  # elsewhere
        return ()
    metadata = pq.read_schema(path).metadata or {}
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        names = next(features[name]["names"] for name in _LABELS if name in features)
    except (ValueError, KeyError, TypeError, StopIteration):
        return ()
    return tuple(map(str, names))


# Columns --------------------------------------------------------------------------------------------


def read_columns(
    frame: DataFrame,
    source: str,
    *,
    training: bool,
    notes: Sequence[str] = (),
    classes: Sequence[str] = (),
    escaped: bool = False,
) -> ImageSet:
    """Read a frame with images and their labels, in the columns that people have.

    `classes` are the names of labels that are numbers from 0 on; `escaped` labels come from the names of
    folders. Errors are those of `read_parquet`.
    """
    content, label = _column(frame, _CONTENTS, source), _column(frame, _LABELS, source)
    kind = frame.schema[label].dataType
    if not isinstance(kind, (StringType, IntegralType)):
        raise ImageSourceError(
            f"The column {label} of {source} is {kind.simpleString()}: it must be text or whole numbers."
        )
    named = _with_files(frame, content, label, source)
    found = [row["label"] for row in reading(source, named.select("label").distinct().collect)]
    if None in found:
        raise ImageSourceError(f"The column {label} of {source} has nulls: every image needs its class.")
    if "" in found:
        raise ImageSourceError(
            f"The column {label} of {source} has empty text: every image needs its class."
        )
    if classes and isinstance(kind, IntegralType):
        texts = _named(found, classes, f"The column {label} of {source}")
    else:
        texts = {text: _unescaped(text) if escaped else text for text in found}
    if any(old != new for old, new in texts.items()):
        pairs = F.create_map(*[F.lit(text) for pair in texts.items() for text in pair])
        named = named.withColumn("label", pairs[F.col("label")])
    by_content = F.concat(F.lit("sha256:"), F.substring(F.sha2(F.col("content"), 256), 1, 16))
    named = named.withColumn("path", F.coalesce("path", by_content, F.lit("null")))
    labels = checked_labels(
        list(set(texts.values())), source, "image", "add images of another class", training=training
    )
    return ImageSet(frame.sparkSession, lambda: with_index(named, labels), labels, tuple(notes))


def _column(frame: DataFrame, names: Sequence[str], source: str) -> str:
    for name in names:
        if name in frame.columns:
            return name
    raise ImageSourceError(
        f"{source} has no column {names[0]}, but {shown_names(frame.columns) or 'none'}: {_WANTED}."
    )


def _named(found: Sequence[str], classes: Sequence[str], where: str) -> dict[str, str]:
    """The classes that numbers stand for."""
    wrong = sorted(text for text in found if not 0 <= int(text) < len(classes))
    if wrong:
        raise ImageSourceError(
            f"{where} has {wrong[0]}, and its {len(classes)} named classes have the numbers from 0: leave "
            "these images out."
        )
    return {text: classes[int(text)] for text in found}


def _unescaped(text: str) -> str:
    """The name of a partition: Spark takes each byte of an escaped letter for a letter of its own."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _with_files(frame: DataFrame, content: str, label: str, source: str) -> DataFrame:
    """The columns `path`, `content`, `label` and, with a split or structs, `given` and `fault`."""
    kind, image = frame.schema[content].dataType, F.col(content)
    fields = {field.name: field.dataType for field in kind} if isinstance(kind, StructType) else {}
    none = F.lit(None).cast("string")
    path: Column = F.col("path").cast("string") if "path" in frame.columns else none
    kept = [F.col(label).cast("string").alias("label"), *([F.col(GIVEN)] if GIVEN in frame.columns else [])]
    if isinstance(kind, BinaryType):
        return frame.select(path.alias("path"), image.alias("content"), *kept)
    if content != "content" and isinstance(fields.get("bytes"), BinaryType):
        inner = image["path"].cast("string") if "path" in fields else none
        fault = F.when(
            image["bytes"].isNull() & inner.isNotNull(),
            F.concat(F.lit("no bytes in the column, only the path "), inner),
        )
        path = F.coalesce(path, inner)
        return frame.select(
            path.alias("path"), image["bytes"].alias("content"), *kept, fault.alias("fault")
        )
    if content != "content" and set(fields) >= _SPARK_IMAGE:
        path = F.coalesce(path, image["origin"]) if "origin" in fields else path
        rows = frame.select(path.alias("path"), image.alias("content"), *kept)
        schema = StructType([f for f in rows.schema if f.name != "content"])
        return rows.mapInArrow(_encode, schema.add("content", BinaryType()).add("fault", StringType()))
    wanted = "binary" if content == "content" else "binary, or Spark's or Hugging Face's image struct"
    raise ImageSourceError(
        f"The column {content} of {source} is {kind.simpleString()}: it must be {wanted}."
    )


def _encode(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Turn the column `content` from Spark's image struct into files, which the rest of tuner reads."""
    for batch in batches:
        others = [name for name in batch.schema.names if name != "content"]
        files: list[bytes | None] = []
        faults: list[str | None] = []
        size = 0
        for row, image in enumerate(batch.column("content"), start=1):
            try:
                files.append(png_file(struct_pixels(image.as_py())))
                faults.append(None)
            except ImageError as error:
                files.append(None)
                faults.append(str(error))
            size += len(files[-1] or b"")
            if size >= _BATCH_BYTES or row == batch.num_rows:
                rows = batch.select(others).slice(row - len(files), len(files))
                made = rows.append_column("content", pa.array(files, pa.binary()))
                yield made.append_column("fault", pa.array(faults, pa.string()))
                files, faults, size = [], [], 0
