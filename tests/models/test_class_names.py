from pathlib import Path

import numpy as np
import pytest
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

from tuner.models.class_names import ClassNames


@pytest.mark.long
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_names_follow_predictions_and_nan_features_give_nulls(
    classes: int, spark: SparkSession, tmp_path: Path
) -> None:
    labels = [f"class {index}" for index in range(classes)]
    features = np.random.default_rng(0).normal(0, 0.1, (4 * classes, 12))
    index = np.arange(4 * classes) % classes
    features[np.arange(len(index)), index] += 5
    rows = [(int(i), Vectors.dense(row)) for i, row in zip(index, features, strict=True)]
    train = spark.createDataFrame(rows, ["label", "features"]).coalesce(1)
    model = LogisticRegression(maxIter=20).fit(train)
    path = str(tmp_path / "model")
    PipelineModel([model, ClassNames(labels=labels)]).write().save(path)
    pipeline = PipelineModel.load(path)
    assert pipeline.stages[-1].getLabels() == labels

    unknown = [(-1, Vectors.dense([np.nan] * 12)), (-1, Vectors.dense([0.0] * 11 + [np.nan]))]
    scored = pipeline.transform(spark.createDataFrame([*rows, *unknown], ["label", "features"]))
    for row in scored.collect():
        if row.label < 0:
            assert (row.prediction, row.probability, row.predicted_label) == (None, None, None)
        else:
            assert row.prediction == row.label
            assert row.predicted_label == labels[row.label]
            assert row.probability.toArray().argmax() == row.label
