"""A logged or registered model as the MLlib pipeline it is, with its class names."""

from __future__ import annotations

from collections.abc import Sequence

import mlflow
from mlflow.exceptions import MlflowException
from pyspark.ml import PipelineModel

from tuner.class_names import ClassNames
from tuner.errors import ModelError
from tuner.featurizer import DeepImageFeaturizer
from tuner.flavor import check_model
from tuner.tracking import reason

REASON = "_reason"  # the column that says why an image could not be decoded; null where it could


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
