"""The numbers of MLlib's models as their files hold them: vectors and matrices, in Parquet of one row.

References
----------
`VectorUDT` and `MatrixUDT` in Spark's sources; `Matrix.compressed` and `Vector.compressed` in its
`ml.linalg`, for what is stored dense and what sparse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def required(name: str, kind: pa.DataType) -> pa.Field:
    """A field of a row that is never null."""
    return pa.field(name, kind, nullable=False)


_INTS = pa.list_(required("element", pa.int32()))
_DOUBLES = pa.list_(required("element", pa.float64()))
VECTOR = pa.struct(
    [required("type", pa.int8()), ("size", pa.int32()), ("indices", _INTS), ("values", _DOUBLES)]
)
MATRIX = pa.struct(
    [
        required("type", pa.int8()),
        required("numRows", pa.int32()),
        required("numCols", pa.int32()),
        ("colPtrs", _INTS),
        ("rowIndices", _INTS),
        ("values", _DOUBLES),
        required("isTransposed", pa.bool_()),
    ]
)
_SPARSE, _DENSE = 0, 1  # the values of `type`
_HEAD = 12  # bytes that MLlib counts for an array, beside 8 a double and 4 an index
_SPARK_NAMES = {pa.int8(): "byte", pa.int32(): "integer", pa.float64(): "double", pa.bool_(): "boolean"}
_UDTS = {VECTOR: "VectorUDT", MATRIX: "MatrixUDT"}


def new_folder(folder: Path) -> Path:
    """Make a folder as Spark leaves it after a job that went well."""
    folder.mkdir(parents=True)
    (folder / "_SUCCESS").touch()
    return folder


@cache
def spark_version() -> str:
    """The version of Spark's files, which is that of pyspark."""
    return version("pyspark")


def write_numbers(folder: Path, row: Mapping[str, Any], kind: pa.StructType) -> None:
    """Write a model's numbers, one row of this type, into the folder of its stage.

    With them go the notes of Spark's own: its version, and the row's type as JSON.
    """
    notes = {
        "org.apache.spark.version": spark_version(),
        "org.apache.spark.sql.parquet.row.metadata": json.dumps(_spark_type(kind), separators=(",", ":")),
    }
    table = pa.Table.from_pylist([row], schema=pa.schema(list(kind)))
    file = new_folder(folder / "data") / "part-00000.snappy.parquet"
    with pq.ParquetWriter(file, table.schema, use_dictionary=False, store_schema=False) as writer:
        writer.add_key_value_metadata(notes)
        writer.write_table(table)


def _spark_type(kind: pa.DataType, *, udt: bool = True) -> Any:
    """Spark's name of a type, in its JSON form; `udt`: MLlib's own types as such, not as what they hold."""
    if udt and kind in _UDTS:
        return {
            "type": "udt",
            "class": f"org.apache.spark.ml.linalg.{_UDTS[kind]}",
            "pyClass": f"pyspark.ml.linalg.{_UDTS[kind]}",
            "sqlType": _spark_type(kind, udt=False),
        }
    if pa.types.is_list(kind):
        item = kind.value_field
        return {"type": "array", "elementType": _spark_type(item.type), "containsNull": item.nullable}
    if pa.types.is_struct(kind):
        fields = [
            {"name": each.name, "type": _spark_type(each.type), "nullable": each.nullable, "metadata": {}}
            for each in kind
        ]
        return {"type": "struct", "fields": fields}
    return _SPARK_NAMES[kind]


def dense_vector(values: np.ndarray) -> dict[str, Any]:
    """A vector as MLlib keeps one that is dense."""
    return {"type": _DENSE, "values": values}


def dense_matrix(values: np.ndarray) -> dict[str, Any]:
    """A matrix as MLlib keeps one that is dense: by rows."""
    rows, columns = values.shape
    shape = {"numRows": rows, "numCols": columns}
    return {**shape, "type": _DENSE, "values": values.ravel(), "isTransposed": True}


def vector(values: np.ndarray) -> dict[str, Any]:
    """A vector as MLlib keeps it: dense or sparse, whichever takes less room.

    The infinite intercept of the only class among several stays sparse whatever their number.
    """
    places = np.flatnonzero(values)
    dense = 8 * len(values) + _HEAD
    sparse = (8 + 4) * len(places) + 2 * _HEAD + 4
    only_class = len(values) > 1 and bool(np.isinf(values).any())
    if dense <= sparse and not only_class:
        return dense_vector(values)
    return {"type": _SPARSE, "size": len(values), "indices": places, "values": values[places]}


def matrix(values: np.ndarray) -> dict[str, Any]:
    """A matrix as MLlib keeps it: dense or, by rows or columns, sparse: whichever takes less room."""
    rows, columns = values.shape
    shape = {"numRows": rows, "numCols": columns}
    dense = 8 * values.size + _HEAD + 9
    starts = min(rows, columns) + 1  # where each row or column begins
    sparse = (8 + 4) * np.count_nonzero(values) + 4 * starts + 3 * _HEAD + 9
    if dense <= sparse:
        return dense_matrix(values)
    by_rows = rows < columns
    lines = values if by_rows else values.T
    line, place = np.nonzero(lines)
    return {
        **shape,
        "type": _SPARSE,
        "colPtrs": np.searchsorted(line, np.arange(len(lines) + 1)),
        "rowIndices": place,
        "values": lines[line, place],
        "isTransposed": by_rows,
    }
