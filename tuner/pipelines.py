"""Parameters of a trial → MLlib classifier and pipeline; the same on a classic session and on Connect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel

from tuner.backbones import Backbone
from tuner.class_names import ClassNames
from tuner.columns import CONTENT, FEATURES, LABEL_INDEX, PREDICTED_LABEL, PREDICTION, PROBABILITY
from tuner.featurizer import DeepImageFeaturizer
from tuner.search_space import TrialParams

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_BLOCK_MB = 64.0  # rows that MLlib multiplies at once; its default is 1


def fit_classifier(table: DataFrame, params: TrialParams) -> LogisticRegressionModel:
    """Fit MLlib's `LogisticRegression` on a table of `features` and `label_index`."""
    classifier = LogisticRegression(
        featuresCol=FEATURES,
        labelCol=LABEL_INDEX,
        predictionCol=PREDICTION,
        probabilityCol=PROBABILITY,
        regParam=params.regParam,
        elasticNetParam=params.elasticNetParam,
        maxIter=params.maxIter,
        maxBlockSizeInMB=_BLOCK_MB,
    )
    return classifier.fit(table)


def assemble(
    backbone: Backbone, model: LogisticRegressionModel, labels: Sequence[str], **params: Any
) -> PipelineModel:
    """Put together the whole model: image bytes → features → prediction and probability → class name.

    `params` are further ones of the `DeepImageFeaturizer`, such as `embedWeights`.
    """
    featurizer = DeepImageFeaturizer.from_backbone(
        backbone, inputCol=CONTENT, outputCol=FEATURES, handleInvalid="keep", **params
    )
    names = ClassNames(
        predictionCol=PREDICTION,
        probabilityCol=PROBABILITY,
        outputCol=PREDICTED_LABEL,
        labels=list(labels),
    )
    return PipelineModel([featurizer, model, names])
