"""The MLlib pipeline: made of a trial's parameters, on classic Spark or on Connect, and loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel

from tuner.base.choices import ClassWeight
from tuner.base.columns import (
    CONTENT,
    FEATURES,
    LABEL_INDEX,
    PREDICTED_LABEL,
    PREDICTION,
    PROBABILITY,
    WEIGHT,
)
from tuner.base.errors import ModelError
from tuner.classifiers.linear import LinearHead
from tuner.classifiers.parameters import TrialParams
from tuner.models.class_names import ClassNames
from tuner.models.featurizer import DeepImageFeaturizer
from tuner.models.loading import check_model
from tuner.networks.resolution import Network
from tuner.tracking.answering import reason

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

REASON = "_reason"  # the column that says why an image could not be decoded; null where it could
_BLOCK_MB = 64.0  # rows that MLlib multiplies at once; its default is 1


def classifier_params(params: TrialParams, class_weight: ClassWeight = "none") -> dict[str, Any]:
    """What `LogisticRegression` is given for a trial's parameters, by MLlib's names."""
    columns = {
        "featuresCol": FEATURES,
        "labelCol": LABEL_INDEX,
        "predictionCol": PREDICTION,
        "probabilityCol": PROBABILITY,
    }
    if class_weight != "none":
        columns["weightCol"] = WEIGHT
    return {**columns, **params.values, "maxBlockSizeInMB": _BLOCK_MB}


def fit_classifier(
    table: DataFrame, params: TrialParams, class_weight: ClassWeight = "none"
) -> LogisticRegressionModel:
    """Fit MLlib's `LogisticRegression` on a table of `features`, `label_index` and maybe `weight`."""
    return LogisticRegression(**classifier_params(params, class_weight)).fit(table)


def head_of(model: LogisticRegressionModel) -> LinearHead:
    """A fitted model as arrays."""
    return LinearHead(model.coefficientMatrix.toArray(), model.interceptVector.toArray())


def stages_of(
    network: Network, labels: Sequence[str], **params: Any
) -> tuple[DeepImageFeaturizer, ClassNames]:
    """The stages before and after the classifier; `params` are further ones of the featurizer."""
    featurizer = DeepImageFeaturizer.from_network(
        network, inputCol=CONTENT, outputCol=FEATURES, handleInvalid="keep", **params
    )
    names = ClassNames(
        predictionCol=PREDICTION,
        probabilityCol=PROBABILITY,
        outputCol=PREDICTED_LABEL,
        labels=list(labels),
    )
    return featurizer, names


def load_pipeline(model_uri: str) -> tuple[PipelineModel, Sequence[str]]:
    """Load a model that a search logged, with its class names in the order of their indices.

    Its answers have the column `REASON` beside those of the pipeline.

    Raises
    ------
    ModelError
        There is no such model, or another tool made it.
    """
    check_model(model_uri)
    try:
        pipeline = mlflow.spark.load_model(model_uri)
    except (MlflowException, OSError) as error:
        raise ModelError(f"The model {model_uri} cannot be loaded: {reason(error)}.") from error
    if isinstance(pipeline, PipelineModel) and len(pipeline.stages) == 3:
        featurizer, _, names = pipeline.stages
        if isinstance(featurizer, DeepImageFeaturizer) and isinstance(names, ClassNames):
            featurizer.set(featurizer.errorCol, REASON)
            return pipeline, names.getLabels()
    raise ModelError(f"The model {model_uri} was not made by a search of tuner: it has other stages.")
