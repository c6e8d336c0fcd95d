"""`ClassNames`: the MLlib transformer that ends a pipeline, from prediction to class name."""

from __future__ import annotations

from typing import Any

from pyspark import keyword_only
from pyspark.ml import Transformer
from pyspark.ml.functions import vector_to_array
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasFeaturesCol, HasOutputCol, HasPredictionCol, HasProbabilityCol
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F


class ClassNames(
    Transformer,
    HasFeaturesCol,
    HasPredictionCol,
    HasProbabilityCol,
    HasOutputCol,
    DefaultParamsReadable,  # type: ignore[type-arg]
    DefaultParamsWritable,
):
    """The class name of each prediction; null where an image gave no features.

    MLlib's classifiers fail on a null vector, and call a vector of NaN the first class, or whichever their
    trees end in. So an image that cannot be decoded goes through them as NaN, or infinity
    (`DeepImageFeaturizer.handleInvalid`), and its prediction, probability and name become null here.

    Parameters
    ----------
    featuresCol
        What the classifier read; default: MLlib's own name, `features`.
    predictionCol, probabilityCol
        The classifier's columns; default: MLlib's own names, `prediction` and `probability`. Of a
        classifier without probabilities, the column of its decision values.
    outputCol
        The column for the name; default: `predicted_label`.
    labels
        The class names; their positions are the label indices.
    """

    labels = Param(Params._dummy(), "labels", "class names by index", TypeConverters.toListString)

    @keyword_only
    def __init__(
        self,
        *,
        featuresCol: str | None = None,
        predictionCol: str | None = None,
        probabilityCol: str | None = None,
        outputCol: str | None = None,
        labels: list[str] | None = None,
    ) -> None:
        super().__init__()
        self._setDefault(outputCol="predicted_label")
        given: dict[str, Any] = self._input_kwargs  # type: ignore[attr-defined]  # set by keyword_only
        self._set(**{name: value for name, value in given.items() if value is not None})

    def getLabels(self) -> list[str]:
        """Give the class names, in the order of their indices."""
        return list(self.getOrDefault("labels"))

    def _transform(self, dataset: DataFrame) -> DataFrame:
        prediction, probability = self.getPredictionCol(), self.getProbabilityCol()
        # As in the answer without Spark; infinity less itself is no number either.
        features = F.col(self.getFeaturesCol())
        there = F.when(features.isNotNull(), vector_to_array(features))
        numbers = ~F.exists(there, lambda x: F.isnan(x - x))
        known = numbers & ~F.isnan(vector_to_array(F.col(probability))[0])
        names = F.array(*[F.lit(label) for label in self.getLabels()])
        return (
            dataset.withColumn(prediction, F.when(known, F.col(prediction)))
            .withColumn(probability, F.when(known, F.col(probability)))
            .withColumn(self.getOutputCol(), F.get(names, F.col(prediction).cast("int")))
        )
