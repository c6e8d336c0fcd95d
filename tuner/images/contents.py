"""The bytes of images as Spark reads them, on the workers."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.types import BinaryType, StructType

from tuner.images.files import read_file

_BATCH_BYTES, _BATCH_ROWS = 8 * 2**20, 256  # what a worker holds of its files at once, one file apart


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
