"""MLlib's file format, written by pyarrow: a pipeline's folder without a Spark session.

MLlib's own writers need a JVM, and a Spark job for each stage. What they write is a line of JSON for the
parameters of each stage, and a Parquet file of one row for a model's numbers.

References
----------
`DefaultParamsWriter`, `PipelineSharedReadWrite` and `LogisticRegressionModelWriter` in Spark's sources;
`Matrix.compressed` and `Vector.compressed` in its `ml.linalg`, for what is stored dense and what sparse.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# What MLlib's `LogisticRegression` has without being asked.
_DEFAULTS: dict[str, Any] = {
    "aggregationDepth": 2,
    "elasticNetParam": 0.0,
    "family": "auto",
    "featuresCol": "features",
    "fitIntercept": True,
    "labelCol": "label",
    "maxBlockSizeInMB": 0.0,
    "maxIter": 100,
    "predictionCol": "prediction",
    "probabilityCol": "probability",
    "rawPredictionCol": "rawPrediction",
    "regParam": 0.0,
    "standardization": True,
    "threshold": 0.5,
    "tol": 1e-6,
}
# MLlib refuses to read a whole number where it expects a float.
_TYPES = {name: type(value) for name, value in _DEFAULTS.items()} | {"weightCol": str}


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_INTS = pa.list_(_required("element", pa.int32()))
_DOUBLES = pa.list_(_required("element", pa.float64()))
VECTOR = pa.struct(
    [_required("type", pa.int8()), ("size", pa.int32()), ("indices", _INTS), ("values", _DOUBLES)]
)
MATRIX = pa.struct(
    [
        _required("type", pa.int8()),
        _required("numRows", pa.int32()),
        _required("numCols", pa.int32()),
        ("colPtrs", _INTS),
        ("rowIndices", _INTS),
        ("values", _DOUBLES),
        _required("isTransposed", pa.bool_()),
    ]
)
_ROW = pa.struct(
    [
        _required("numClasses", pa.int32()),
        _required("numFeatures", pa.int32()),
        ("interceptVector", VECTOR),
        ("coefficientMatrix", MATRIX),
        _required("isMultinomial", pa.bool_()),
    ]
)
_SPARSE, _DENSE = 0, 1  # the values of `type`
_HEAD = 12  # bytes that MLlib counts for an array, beside 8 a double and 4 an index
_SPARK_NAMES = {pa.int8(): "byte", pa.int32(): "integer", pa.float64(): "double", pa.bool_(): "boolean"}
_UDTS = {VECTOR: "VectorUDT", MATRIX: "MatrixUDT"}


class Stage(Protocol):
    """A stage of a pipeline: it writes itself to a folder that is not there yet."""

    @property
    def uid(self) -> str:
        """The stage's id, which its folder's name holds."""

    def write(self, folder: Path) -> None:
        """Make the folder."""


def new_uid(name: str) -> str:
    """An id as MLlib gives it to a stage: `LogisticRegression_0123456789ab`."""
    return f"{name}_{uuid.uuid4().hex[-12:]}"


def write_pipeline(folder: Path, stages: Sequence[Stage], uid: str | None = None) -> None:
    """Write a `PipelineModel` to a folder that is not there yet; `PipelineModel.load` reads it.

    Parameters
    ----------
    folder
        Its path, on this process's disk.
    stages
        In the order in which they transform.
    uid
        The pipeline's id; default: a new one.

    Raises
    ------
    FileExistsError
        The folder holds a pipeline.
    """
    uids = [stage.uid for stage in stages]
    pipeline = PythonStage(
        "pyspark.ml.pipeline.PipelineModel",
        uid or new_uid("PipelineModel"),
        {"stageUids": uids, "language": "Python"},  # as a pipeline with a stage that is not Java's
    )
    pipeline.write(folder)
    digits = len(str(len(stages)))
    for place, stage in enumerate(stages):
        stage.write(folder / "stages" / f"{place:0{digits}d}_{stage.uid}")


@dataclass(frozen=True)
class PythonStage:
    """A stage that is a Python class and holds nothing but parameters, as `DefaultParamsWriter` saves it.

    Parameters
    ----------
    className
        The class with its module: it is imported where the stage is loaded.
    uid
        The stage's id, as of `new_uid`.
    paramMap, defaultParamMap
        Values by parameter name: what was set, and what holds where nothing was.
    extra
        Further entries of the metadata.
    """

    className: str
    uid: str
    paramMap: Mapping[str, Any]
    defaultParamMap: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: Any, **extra: Any) -> PythonStage:
        """Take the parameters of a `pyspark.ml.param.Params`, which needs no JVM, with further metadata."""
        unset = stage.copy()
        for param in stage.params:
            unset.clear(param)
        return cls(
            className=f"{type(stage).__module__}.{type(stage).__name__}",
            uid=stage.uid,
            paramMap={
                param.name: stage.getOrDefault(param) for param in stage.params if stage.isSet(param)
            },
            defaultParamMap={
                param.name: unset.getOrDefault(param) for param in stage.params if stage.hasDefault(param)
            },
            extra=extra,
        )

    def write(self, folder: Path) -> None:
        """Write the line of JSON that MLlib calls metadata."""
        metadata = {
            "class": self.className,
            "timestamp": int(time.time() * 1000),
            "sparkVersion": _spark_version(),
            "uid": self.uid,
            "paramMap": dict(self.paramMap),
            "defaultParamMap": dict(self.defaultParamMap),
            **self.extra,
        }
        text = json.dumps(metadata, separators=(",", ":"))
        file = _new_folder(folder / "metadata") / "part-00000.txt"
        file.write_text(f"{text}\n", encoding="utf-8")


@dataclass(frozen=True, eq=False)
class LogisticRegressionStage:
    """A `LogisticRegressionModel` with the files that MLlib's own fit would leave.

    Parameters
    ----------
    coefficients
        Float64 of shape (classes, width), or (1, width) of a binomial model.
    intercepts
        Float64 of shape (classes,) or (1,).
    numClasses
        The number of classes; a binomial model has 2, or 1 where the first class was the only one.
    isMultinomial
        Whether each class has coefficients of its own.
    params
        What the fit was given, by MLlib's names; all else has MLlib's defaults.
    uid
        Default: a new one.

    Raises
    ------
    ValueError
        The shapes do not fit one another, or MLlib has no such parameter.
    """

    coefficients: np.ndarray
    intercepts: np.ndarray
    numClasses: int
    isMultinomial: bool
    params: Mapping[str, Any]
    uid: str = field(default_factory=lambda: new_uid("LogisticRegression"))

    def __post_init__(self) -> None:
        rows = self.numClasses if self.isMultinomial else 1
        coefficients, intercepts = np.shape(self.coefficients), np.shape(self.intercepts)
        if len(coefficients) != 2 or coefficients[0] != rows or intercepts != (rows,):
            family = "multinomial" if self.isMultinomial else "binomial"
            raise ValueError(
                f"Coefficients of shape {coefficients} and intercepts of shape {intercepts} are no "
                f"{family} model of {self.numClasses} classes: ({rows}, width) and ({rows},) are."
            )
        unknown = self.params.keys() - _TYPES.keys()
        if unknown:
            raise ValueError(f"LogisticRegression has no {', '.join(sorted(unknown))} that can be written.")

    def write(self, folder: Path) -> None:
        """Write metadata and data."""
        given = {name: _TYPES[name](value) for name, value in self.params.items()}
        name = "org.apache.spark.ml.classification.LogisticRegressionModel"
        PythonStage(name, self.uid, given, _DEFAULTS).write(folder)
        row = {
            "numClasses": self.numClasses,
            "numFeatures": self.coefficients.shape[1],
            "interceptVector": _vector(np.asarray(self.intercepts, np.float64)),
            "coefficientMatrix": _matrix(np.asarray(self.coefficients, np.float64)),
            "isMultinomial": self.isMultinomial,
        }
        write_numbers(folder, row, _ROW)


def _new_folder(folder: Path) -> Path:
    """Make a folder as Spark leaves it after a job that went well."""
    folder.mkdir(parents=True)
    (folder / "_SUCCESS").touch()
    return folder


@cache
def _spark_version() -> str:
    return version("pyspark")


def write_numbers(folder: Path, row: Mapping[str, Any], kind: pa.StructType) -> None:
    """Write a model's numbers, one row of this type, into the folder of its stage.

    With them go the notes of Spark's own: its version, and the row's type as JSON.
    """
    notes = {
        "org.apache.spark.version": _spark_version(),
        "org.apache.spark.sql.parquet.row.metadata": json.dumps(_spark_type(kind), separators=(",", ":")),
    }
    table = pa.Table.from_pylist([row], schema=pa.schema(list(kind)))
    file = _new_folder(folder / "data") / "part-00000.snappy.parquet"
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


def _vector(values: np.ndarray) -> dict[str, Any]:
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


def _matrix(values: np.ndarray) -> dict[str, Any]:
    """A matrix as MLlib keeps it: dense or, by rows or columns, sparse: whichever takes less room."""
    rows, columns = values.shape
    matrix = {"numRows": rows, "numCols": columns}
    dense = 8 * values.size + _HEAD + 9
    starts = min(rows, columns) + 1  # where each row or column begins
    sparse = (8 + 4) * np.count_nonzero(values) + 4 * starts + 3 * _HEAD + 9
    if dense <= sparse:
        return dense_matrix(values)
    by_rows = rows < columns
    lines = values if by_rows else values.T
    line, place = np.nonzero(lines)
    return {
        **matrix,
        "type": _SPARSE,
        "colPtrs": np.searchsorted(line, np.arange(len(lines) + 1)),
        "rowIndices": place,
        "values": lines[line, place],
        "isTransposed": by_rows,
    }
