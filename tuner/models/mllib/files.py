"""MLlib's file format, written by pyarrow: a pipeline's folder without a Spark session.

MLlib's own writers need a JVM, and a Spark job for each stage. What they write is a line of JSON for the
parameters of each stage, and a Parquet file of one row for a model's numbers.

References
----------
`DefaultParamsWriter`, `PipelineSharedReadWrite` and `LogisticRegressionModelWriter` in Spark's sources.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from tuner.models.mllib.numbers import (
    MATRIX,
    VECTOR,
    matrix,
    new_folder,
    required,
    spark_version,
    vector,
    write_numbers,
)

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

_ROW = pa.struct(
    [
        required("numClasses", pa.int32()),
        required("numFeatures", pa.int32()),
        ("interceptVector", VECTOR),
        ("coefficientMatrix", MATRIX),
        required("isMultinomial", pa.bool_()),
    ]
)


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
            "sparkVersion": spark_version(),
            "uid": self.uid,
            "paramMap": dict(self.paramMap),
            "defaultParamMap": dict(self.defaultParamMap),
            **self.extra,
        }
        text = json.dumps(metadata, separators=(",", ":"))
        file = new_folder(folder / "metadata") / "part-00000.txt"
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
            "interceptVector": vector(np.asarray(self.intercepts, np.float64)),
            "coefficientMatrix": matrix(np.asarray(self.coefficients, np.float64)),
            "isMultinomial": self.isMultinomial,
        }
        write_numbers(folder, row, _ROW)
