"""The MLlib pipeline: made of a trial's parameters, on classic Spark or on Connect, and loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegressionModel

from tuner.base.choices import ScoreKind
from tuner.base.columns import (
    CONTENT,
    DECISION,
    FEATURES,
    PREDICTED_LABEL,
    PREDICTION,
    PROBABILITY,
)
from tuner.base.errors import ModelError
from tuner.classifiers.linear import LinearHead
from tuner.models.class_names import ClassNames
from tuner.models.featurizer import DeepImageFeaturizer
from tuner.models.loading import check_model
from tuner.networks.resolution import Network
from tuner.tracking.answering import reason

REASON = "_reason"  # the column that says why an image could not be decoded; null where it could
_SCORES: dict[ScoreKind, str] = {"probability": PROBABILITY, "decision": DECISION}


def head_of(model: LogisticRegressionModel) -> LinearHead:
    """A fitted model as arrays."""
    return LinearHead(model.coefficientMatrix.toArray(), model.interceptVector.toArray())


def score_column(gives: ScoreKind) -> str:
    """The column of scores of a classifier that gives probabilities, or decision values."""
    return _SCORES[gives]


def stages_of(
    network: Network,
    labels: Sequence[str],
    gives: ScoreKind = "probability",
    *,
    handleInvalid: str = "keep",
    **params: Any,
) -> tuple[DeepImageFeaturizer, ClassNames]:
    """The stages before and after the classifier; `params` are further ones of the featurizer."""
    featurizer = DeepImageFeaturizer.from_network(
        network, inputCol=CONTENT, outputCol=FEATURES, handleInvalid=handleInvalid, **params
    )
    names = ClassNames(
        featuresCol=FEATURES,
        predictionCol=PREDICTION,
        probabilityCol=score_column(gives),
        outputCol=PREDICTED_LABEL,
        labels=list(labels),
    )
    return featurizer, names


@dataclass(frozen=True)
class LoadedPipeline:
    """A model that a search logged.

    Attributes
    ----------
    pipeline
        Its answers have the column `REASON` beside those that are said by `stages_of`.
    labels
        The class names, in the order of their indices.
    gives
        Whether the column `scores` holds probabilities or decision values.
    """

    pipeline: PipelineModel
    labels: Sequence[str]
    gives: ScoreKind

    @property
    def scores(self) -> str:
        """The column of scores."""
        return score_column(self.gives)


def load_pipeline(model_uri: str) -> LoadedPipeline:
    """Load a model that a search logged.

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
    if isinstance(pipeline, PipelineModel) and len(pipeline.stages) in (3, 4):  # with a step
        featurizer, *_, names = pipeline.stages
        if isinstance(featurizer, DeepImageFeaturizer) and isinstance(names, ClassNames):
            featurizer.set(featurizer.errorCol, REASON)
            gives: ScoreKind = "decision" if names.getProbabilityCol() == DECISION else "probability"
            return LoadedPipeline(pipeline, names.getLabels(), gives)
    raise ModelError(f"The model {model_uri} was not made by a search of tuner: it has other stages.")
