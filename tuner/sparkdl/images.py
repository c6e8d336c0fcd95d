"""`read_images`: files → a DataFrame of Spark's image struct; and `readImages`, as sparkdl calls it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import BinaryType, IntegerType, StringType, StructField, StructType

from tuner.base.errors import ImageError, ImageSourceError
from tuner.images.decoding import decode_image
from tuner.images.index import reading

_BATCH_BYTES = 8 * 2**20  # of pixels that a worker makes at once
_BGR = 16  # OpenCV's CV_8UC3, by which Spark knows three channels of 8 bits
_INVALID = -1  # Spark's mark, in all numbers of a file that is no image
_NUMBERS = ("height", "width", "nChannels", "mode")
# Spark's image struct, for Spark and for Arrow.
_IMAGE = StructType(
    [
        StructField("origin", StringType()),
        *(StructField(name, IntegerType()) for name in _NUMBERS),
        StructField("data", BinaryType()),
    ]
)
_STRUCT = pa.struct(
    [("origin", pa.string()), *((name, pa.int32()) for name in _NUMBERS), ("data", pa.binary())]
)


def read_images(
    path: str, *, recursive: bool = True, numPartitions: int | None = None, dropInvalid: bool = False
) -> DataFrame:
    """Read image files into Spark's image struct, decoded as everywhere in tuner.

    Unlike Spark's own `image` format, it applies the EXIF orientation, lays transparent pictures on white,
    and reads WebP and TIFF, CMYK and 16 bits. Files are listed now, and read when the DataFrame is used. As
    Spark does, it passes over empty files, and those that begin with a dot or an underscore.

    Parameters
    ----------
    path
        A file, a folder or a pattern, on any filesystem that Spark reads (`hdfs:`, `s3a:`, `viewfs:`).
    recursive
        Whether files in folders below are read, too; else those of folders called `key=value`, as
        partitions.
    numPartitions
        Into how many partitions the files are dealt; default: as Spark deals them, by their size.
    dropInvalid
        Whether files that are no image are left out. Else their rows hold Spark's mark of them: height,
        width, nChannels and mode -1 and no data, of which `DeepImageFeaturizer` makes a null.

    Returns
    -------
    pyspark.sql.DataFrame
        The column `image`: a struct of `origin` (the file's URI), `height`, `width`, `nChannels` (3),
        `mode` (16) and `data` (uint8, row by row, BGR); and the partitions' columns.

    Raises
    ------
    ImageSourceError
        There are no files at `path`, Spark cannot read it, or `numPartitions` is less than 1.
    """
    if numPartitions is not None and numPartitions < 1:
        raise ImageSourceError(f"numPartitions is {numPartitions}: it must be 1 or more.")
    spark = SparkSession.getActiveSession() or SparkSession.builder.getOrCreate()
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", str(recursive).lower())
    files = reading(path, lambda: reader.load(path)).drop("modificationTime", "length")
    if files.select("path").isEmpty():
        below = "" if recursive else ", or set recursive for those in folders below"
        raise ImageSourceError(f"There are no files in {path}: check the path{below}.")
    if numPartitions is not None:
        files = files.repartition(numPartitions)  # before they are decoded: they are smaller
    kept = [field for field in files.schema if field.name not in ("path", "content")]
    names = [field.name for field in kept]
    schema = StructType([StructField("image", _IMAGE), *kept])
    return files.mapInArrow(lambda batches: _decode(batches, names, dropInvalid), schema)


def readImages(imageDirectory: str, numPartition: int | None = None) -> DataFrame:
    """Read image files into Spark's image struct: `read_images`, as sparkdl's scripts call it.

    Parameters
    ----------
    imageDirectory
        A file, a folder or a pattern; folders are read however deep.
    numPartition
        Into how many partitions the files are dealt; default: as Spark deals them.

    Returns
    -------
    pyspark.sql.DataFrame
        As of `read_images`, with Spark's mark for files that are no image.

    Raises
    ------
    ImageSourceError
        As `read_images`.
    """
    return read_images(imageDirectory, numPartitions=numPartition)


def _decode(
    batches: Iterator[pa.RecordBatch], kept: list[str], drop_invalid: bool
) -> Iterator[pa.RecordBatch]:
    """Turn `path` and `content` into `image`; a batch of large pictures becomes several."""
    for batch in batches:
        images: list[dict[str, Any]] = []
        rows: list[int] = []
        size = 0
        for row, (path, content) in enumerate(zip(batch["path"], batch["content"], strict=True)):
            image = _image(path.as_py(), content.as_py())
            if image["mode"] != _INVALID or not drop_invalid:
                images.append(image)
                rows.append(row)
                size += len(image["data"])
            if images and (size >= _BATCH_BYTES or row == batch.num_rows - 1):
                others = [batch[name].take(pa.array(rows)) for name in kept]
                yield pa.RecordBatch.from_arrays([pa.array(images, _STRUCT), *others], ["image", *kept])
                images, rows, size = [], [], 0


def _image(origin: str, content: bytes) -> dict[str, Any]:
    try:
        pixels = decode_image(content)
    except ImageError:
        return {"origin": origin, **dict.fromkeys(_NUMBERS, _INVALID), "data": b""}
    data = np.ascontiguousarray(pixels[..., ::-1]).tobytes()
    return {"origin": origin, **dict(zip(_NUMBERS, (*pixels.shape, _BGR), strict=True)), "data": data}
