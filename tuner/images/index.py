"""The images of a source: names and classes, their bytes on the workers, their index on the driver."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, StructType

from tuner.base.columns import LABEL_INDEX
from tuner.base.errors import ImageSourceError
from tuner.base.machine import machine_cores
from tuner.base.wording import first_line
from tuner.images.files import CHANGED, RememberedDigests, hash_files, read_file
from tuner.images.splits import GIVEN
from tuner.spark.settings import is_local

_HASHED_AT_ONCE = 64  # files
_BATCH_BYTES, _BATCH_ROWS = 8 * 2**20, 256  # what a worker holds of its files at once, one file apart
_CONDITION = re.compile(r"\[[A-Z][A-Z0-9_.]+\] .+")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_T = TypeVar("_T")


@dataclass(frozen=True)
class ImageSet:
    """The images of one source.

    `labels` are sorted, numbers as numbers; `notes` are sentences on what is not part of a class, or
    unusual; `listing` has the files of a local folder (`path`, `label` and, where the source is split
    already, `given`); `held` are images that the driver has (`path`, `content`, `label`): a job of Spark
    would take seconds for what takes it a moment.
    """

    spark: SparkSession
    make_frame: Callable[[], DataFrame]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()
    listing: pd.DataFrame | None = None
    held: pd.DataFrame | None = None

    @cached_property
    def frame(self) -> DataFrame:
        """One row an image, read when it is used.

        `path` string, `content` binary, `label` string, `label_index` int, the position in `labels`; where
        the source is split already, `given`, its part; where contents can be unfit, `fault`, the reason.
        Made when it is asked for: a new JVM takes a second for its first DataFrame.
        """
        return self.make_frame()


def sorted_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort class names; as numbers, where all are."""
    names = list(labels)
    if all(_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (Decimal(name), name)))
    return tuple(sorted(names))


def checked_labels(
    labels: Sequence[str], source: str, missing: str, advice: str, *, training: bool
) -> tuple[str, ...]:
    """Sort the class names of a source, once there are enough: two to train, one to evaluate."""
    if len(labels) < (2 if training else 1):
        found = f"only the class {labels[0]}" if labels else f"no {missing}"
        wanted = ", and a classifier needs at least two classes" if training else ""
        raise ImageSourceError(f"There is {found} in {source}{wanted}: {advice}.")
    return sorted_labels(labels)


def nominal(classes: int) -> dict[str, Any]:
    """What a column of label indices says of itself: how many classes there are.

    Without it MLlib counts them; some of its classifiers, and Spark Connect before a fit, do so up to 100.

    References
    ----------
    `org.apache.spark.ml.attribute.NominalAttribute`.
    """
    return {"ml_attr": {"type": "nominal", "name": LABEL_INDEX, "num_vals": classes}}


def with_index(frame: DataFrame, labels: tuple[str, ...]) -> DataFrame:
    """Add `label_index` to a frame with `label`."""
    position = F.array_position(F.array(*[F.lit(label) for label in labels]), F.col("label"))
    indexed = frame.withColumn(LABEL_INDEX, (position - 1).cast("int"))
    return indexed.withMetadata(LABEL_INDEX, nominal(len(labels)))


def with_contents(listing: DataFrame) -> DataFrame:
    """Add the contents of the files of a listing, read on the workers; null where one cannot be read."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            held: list[bytes | None] = []
            size = 0
            for row, path in enumerate(batch.column("path").to_pylist(), start=1):
                held.append(read_file(path)[0])
                size += len(held[-1] or b"")
                if size >= _BATCH_BYTES or len(held) == _BATCH_ROWS or row == batch.num_rows:
                    rows = batch.slice(row - len(held), len(held))
                    yield rows.append_column("content", pa.array(held, pa.binary()))
                    held, size = [], 0

    return listing.mapInArrow(read, StructType([*listing.schema]).add("content", BinaryType()))


def png_file(pixels: np.ndarray) -> bytes:
    """Write gray, RGB or RGBA pixels as a PNG that is not compressed.

    By hand: the same pixels are the same bytes with any version of any library, for by its bytes a picture
    is known to the split and to the cache.

    References
    ----------
    ISO/IEC 15948 (PNG), RFC 1950 and 1951 (zlib and its stored blocks).
    """
    height, width = pixels.shape[:2]
    colour = {1: 0, 3: 2, 4: 6}[pixels[0, 0].size]
    rows = pixels.reshape(height, -1)
    data = np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes()  # 0: a row that is not filtered
    blocks = []
    for start in range(0, len(data), 65_535):
        block = data[start : start + 65_535]
        last = start + len(block) == len(data)
        blocks.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    stored = b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(data))
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", stored) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def reading(source: str, read: Callable[[], _T], missing: Callable[[str], str] = lambda _: "") -> _T:
    """Let Spark read, and turn its refusal into one sentence (`ImageSourceError`).

    `missing` says, of the refusal's text, what Spark would need, or nothing.
    """
    try:
        return read()
    except (PySparkException, Py4JJavaError) as error:
        condition = _CONDITION.search(str(error))  # Spark's own words, wherever in a chain of causes
        text = error.java_exception.toString() if isinstance(error, Py4JJavaError) else str(error)
        reason = (condition[0] if condition else first_line(text)).rstrip(".")
        raise ImageSourceError(
            f"The images {source} cannot be read: {reason}{missing(str(text))}."
        ) from error


def index_images(images: ImageSet, *, here: bool = False, memory: Path | None = None) -> pd.DataFrame:
    """Hash every image in one pass over the source; contents stay on the workers.

    Parameters
    ----------
    images
        The source.
    here
        Files of a local folder are hashed in this process, wherever Spark computes.
    memory
        A folder in which the digests of files that this process hashes are remembered; None: they are not.

    Returns
    -------
    One row an image, sorted by path: `path`, `label`, `label_index` (int), `digest` (sha256, hex),
    `bytes` (int) and `error`: None, or why the file could not be read; where the source is split already,
    `given`, its part.
    """
    if images.listing is not None:
        index: pd.DataFrame = _hashed_listing(images, here, memory)
    elif images.held is not None:
        index = _hashed_held(images.held)
    else:
        index = reading("listed", lambda: _hashed_frame(images.frame).toArrow().to_pandas())
    index["error"] = index["error"].astype(object).where(index["error"].notna(), None)
    positions = {label: position for position, label in enumerate(images.labels)}
    index.insert(2, "label_index", index["label"].map(positions))
    return index.sort_values(["path", "label"], ignore_index=True)


def _hashed_listing(images: ImageSet, here: bool, memory: Path | None) -> pd.DataFrame:
    spark, listing = images.spark, images.listing
    assert listing is not None
    if here or is_local(spark.sparkContext):  # here: a worker takes seconds to start
        if memory is None:
            return _hashed_here(listing)
        return RememberedDigests(memory, listing).hashed(listing, _hashed_here)
    columns = ", ".join(f"{name} string" for name in listing.columns)
    listed = spark.createDataFrame(listing, columns)
    return listed.mapInArrow(hash_files, f"{columns}, digest string, bytes bigint, error string").toPandas()


def _hashed_here(listing: pd.DataFrame) -> pd.DataFrame:
    batches = pa.Table.from_pandas(listing, preserve_index=False).to_batches(_HASHED_AT_ONCE)
    with ThreadPoolExecutor(machine_cores()) as pool:  # files are read and hashed outside Python's lock
        found = pool.map(lambda batch: next(hash_files(iter([batch]))), batches)
        return pa.Table.from_batches(found).to_pandas()


def _hashed_held(held: pd.DataFrame) -> pd.DataFrame:
    return held[["path", "label"]].assign(
        digest=[sha256(content).hexdigest() for content in held["content"]],
        bytes=held["content"].map(len),
        error=None,
    )


def _hashed_frame(frame: DataFrame) -> DataFrame:
    faults = [F.col("fault")] if "fault" in frame.columns else []
    return frame.select(
        "path",
        "label",
        *([GIVEN] if GIVEN in frame.columns else []),
        F.coalesce(F.sha2("content", 256), F.lit("")).alias("digest"),
        F.coalesce(F.length("content"), F.lit(0)).cast("long").alias("bytes"),
        F.when(F.col("content").isNull(), F.coalesce(*faults, F.lit("null content"))).alias("error"),
    )


def contents(images: ImageSet, index: pd.DataFrame, partitions: int) -> DataFrame:
    """The bytes of the images of `index`: `digest`, `content`, one row a digest, evenly spread.

    Of a local folder only these files are read; one that changed since it was indexed fails the job.
    """
    wanted = index.drop_duplicates("digest")[["path", "digest"]]
    wanted = wanted.assign(part=np.arange(len(wanted)) % partitions)  # Spark's own dealing is less even
    if images.held is not None:
        rows = wanted.merge(images.held[["path", "content"]], on="path")
        given = images.spark.createDataFrame(
            rows[["digest", "content", "part"]], "digest string, content binary, part int"
        )
        return given.repartitionById(partitions, "part").drop("part")
    listed = images.spark.createDataFrame(wanted, "path string, digest string, part int")
    if images.listing is not None:
        read = with_contents(listed.repartitionById(partitions, "part"))
        return read.select("digest", _unchanged().alias("content"))
    hashed = images.frame.select(F.sha2("content", 256).alias("digest"), "content")
    found = hashed.join(F.broadcast(listed.drop("path")), "digest").dropDuplicates(["digest"])
    return found.repartitionById(partitions, "part").drop("part")


def _unchanged() -> Column:
    """The column `content`, with an error where it is not what `digest` stands for."""
    message = F.format_string(CHANGED, "path")
    same = F.sha2("content", 256) == F.col("digest")
    return F.when(same, F.col("content")).otherwise(F.raise_error(message))
