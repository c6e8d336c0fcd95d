"""MLlib's estimators, made of rows of the table of classifiers and of a trial's parameters."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import OneVsRest, OneVsRestModel, OneVsRestModelWriter
from pyspark.ml.util import JavaMLWriter

from tuner.base.choices import ClassWeight
from tuner.base.columns import DECISION, FEATURES, LABEL_INDEX, PREDICTION, PROBABILITY, STEPPED, WEIGHT
from tuner.base.uris import hadoop_uri
from tuner.classifiers.heads.steps import Step
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.rows.row import NONE
from tuner.classifiers.table import DEFAULT
from tuner.models.fitted.steps import step_of, step_stage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_BLOCK_MB = 64.0  # rows that MLlib multiplies at once; its default is 1
_HIDDEN = "hiddenSize"  # for a person, of MLlib's `layers`


def weight_of(params: TrialParams, class_weight: ClassWeight) -> ClassWeight:
    """How classes weigh in a trial: as it says itself, or as its search does."""
    return params.class_weight or class_weight


def _columns(params: TrialParams, class_weight: ClassWeight) -> dict[str, Any]:
    """What every estimator reads and writes, by MLlib's names."""
    features = FEATURES if params.prestep == NONE else STEPPED
    columns = {"featuresCol": features, "labelCol": LABEL_INDEX, "predictionCol": PREDICTION}
    if weight_of(params, class_weight) != "none":
        columns["weightCol"] = WEIGHT
    return columns


def classifier_params(params: TrialParams, class_weight: ClassWeight = "none") -> dict[str, Any]:
    """What `LogisticRegression` is given for a trial's parameters, by MLlib's names."""
    columns = _columns(params, class_weight) | {"probabilityCol": PROBABILITY}
    return {**columns, **params.own, "maxBlockSizeInMB": _BLOCK_MB}


def estimator(
    params: TrialParams,
    class_weight: ClassWeight = "none",
    *,
    width: int = 0,
    classes: int = 0,
    seed: int = 0,
) -> Any:
    """Make the estimator of a trial, without the step before it.

    One that knows two classes only is fitted for each against the rest.

    Parameters
    ----------
    width, classes
        How many features, before the step, and classes there are; a perceptron's layers need them.
    seed
        `search.seed`, for what has a part of chance.
    """
    row = params.row
    module, _, name = row.implementation.rpartition(".")
    made = getattr(importlib.import_module(f"pyspark.ml.{module}"), name)
    if row.name == DEFAULT:
        return made(**classifier_params(params, class_weight))
    values = {**row.fixed, **params.own}
    if _HIDDEN in values:
        values["layers"] = [params.components or width, values.pop(_HIDDEN), classes]
    if row.seeded:
        values["seed"] = seed
    columns = _columns(params, class_weight)
    if row.one_vs_rest:
        one = made(**values).setRawPredictionCol(DECISION)
        return OneVsRest(classifier=one, rawPredictionCol=DECISION, **columns)
    return made(**values, **columns, probabilityCol=PROBABILITY)


def fit_estimator(
    table: DataFrame,
    params: TrialParams,
    class_weight: ClassWeight = "none",
    *,
    width: int = 0,
    classes: int = 0,
    seed: int = 0,
) -> Any:
    """Fit on a table of `features`, `label_index` and maybe `weight`; all else as for `estimator`.

    Gives MLlib's model or, where a step comes before it, a `PipelineModel` of the two.
    """
    made = estimator(params, class_weight, width=width, classes=classes, seed=seed)
    if params.prestep == NONE:
        return made.fit(table)
    return Pipeline(stages=[step_stage(params), made]).fit(table)


def step_and_model(fitted: Any) -> tuple[Step | None, Any]:
    """What `fit_estimator` gave, as the step before the classifier, or None, and MLlib's model."""
    if not isinstance(fitted, PipelineModel):
        return None, fitted
    step, model = fitted.stages
    return step_of(step), model


def save_fitted(model: Any, folder: Path | str) -> None:
    """Let MLlib save a fitted classifier, of classic Spark or of Connect, to a folder that is not there.

    It is a path or, as text, the URI of one on a Hadoop filesystem.

    On classic Spark, `OneVsRestModel.write` forgets the name of the column of decision values; the writer
    that Connect takes keeps it.
    """
    writer = model.write()
    if isinstance(model, OneVsRestModel) and isinstance(writer, JavaMLWriter):
        writer = OneVsRestModelWriter(model)
    writer.save(folder if isinstance(folder, str) else hadoop_uri(folder))
