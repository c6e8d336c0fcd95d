"""The steps before MLlib's classifiers as MLlib's own stages: made, read, and written without a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.ml import feature

from tuner.base.columns import FEATURES, STEPPED
from tuner.classifiers.heads.steps import Step
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.rows.row import NORMALIZER, PCA, STANDARD_SCALER
from tuner.models.mllib.files import PythonStage, new_uid
from tuner.models.mllib.numbers import MATRIX, VECTOR, dense_matrix, dense_vector, write_numbers

_COLUMNS = {"inputCol": FEATURES, "outputCol": STEPPED}
_MODELS = {STANDARD_SCALER: "StandardScalerModel", NORMALIZER: "Normalizer", PCA: "PCAModel"}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    STANDARD_SCALER: {"withMean": False, "withStd": True},
    NORMALIZER: {"p": 2.0},
    PCA: {},
}
# Of what a model's file holds: as MLlib has it, PCA's dense whatever there is in it.
_SCHEMAS = {
    STANDARD_SCALER: pa.struct([("std", VECTOR), ("mean", VECTOR)]),
    PCA: pa.struct([("pc", MATRIX), ("explainedVariance", VECTOR)]),
}
_VALUES: Mapping[str, Callable[[np.ndarray], dict[str, Any]]] = {"pc": dense_matrix}


def step_stage(params: TrialParams) -> Any:
    """Make the stage of a trial's step, which is not fitted yet: MLlib's own."""
    return getattr(feature, params.prestep)(**_COLUMNS, **_given(params.prestep, params.components))


def _given(name: str, components: int) -> dict[str, Any]:
    given: Mapping[str, dict[str, Any]] = {STANDARD_SCALER: {"withMean": True}, PCA: {"k": components}}
    return given.get(name, {})


def step_of(stage: Any) -> Step:
    """A fitted stage, of classic Spark or of Connect, as arrays."""
    name = next(name for name, model in _MODELS.items() if model == type(stage).__name__)
    names = [] if name not in _SCHEMAS else [one.name for one in _SCHEMAS[name]]
    return Step(name, {one: np.asarray(getattr(stage, one).toArray(), np.float64) for one in names})


@dataclass(frozen=True)
class StepStage:
    """A step as MLlib's own stage with the files that its writer would leave."""

    step: Step

    @cached_property
    def uid(self) -> str:
        """A new one."""
        return new_uid(self.step.name)

    def write(self, folder: Path) -> None:
        """Write metadata and, of what was fitted, data."""
        name, numbers = self.step.name, self.step.numbers
        components = numbers["pc"].shape[1] if name == PCA else 0
        PythonStage(
            f"org.apache.spark.ml.feature.{_MODELS[name]}",
            self.uid,
            {**_COLUMNS, **_given(name, components)},
            {"outputCol": f"{self.uid}__output", **_DEFAULTS[name]},
        ).write(folder)
        if name in _SCHEMAS:
            row = {one: _VALUES.get(one, dense_vector)(values) for one, values in numbers.items()}
            write_numbers(folder, row, _SCHEMAS[name])
