import gc
from pathlib import Path

import numpy as np
import pytest
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

from tests.helpers.hadoop import mount
from tuner.classifiers.logistic_regression import fit
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.standardized import Standardized
from tuner.images.index import nominal
from tuner.models.fitted.estimators import fit_estimator
from tuner.models.pipeline import head_of
from tuner.trials.fits import class_weights
from tuner.trials.spark_fit import SparkFits, SparkSetting, weighted

LABELS = np.array([0] * 5 + [2] * 30 + [3] * 12)  # one class of the four is not among the rows


def test_a_row_of_the_cluster_weighs_what_it_weighs_in_a_worker(spark: SparkSession) -> None:
    table = spark.createDataFrame([(int(label),) for label in LABELS], "label_index int")
    rows = weighted(table, "balanced").toPandas()
    expected = dict(zip(LABELS, class_weights(LABELS, "balanced"), strict=True))
    assert len(rows) == len(LABELS)
    np.testing.assert_allclose(
        rows["weight"], [expected[label] for label in rows["label_index"]], rtol=1e-12
    )
    assert weighted(table, "none") is table


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_rare_classes_weigh_the_same_in_both_ways_to_fit(spark: SparkSession, class_weight) -> None:
    values = np.random.default_rng(0).normal(0.5 * np.eye(4, 6)[LABELS], 1).astype(np.float32)
    rows = [(int(label), Vectors.dense(row)) for label, row in zip(LABELS, values.tolist(), strict=True)]
    table = spark.createDataFrame(rows, ["label_index", "features"]).coalesce(1)
    params = TrialParams.of("any", regParam=0.02, elasticNetParam=0.3, maxIter=20)
    theirs = head_of(fit_estimator(weighted(table, class_weight), params, class_weight))
    weights = class_weights(LABELS, class_weight)
    ours = fit(Standardized(values, weights), LABELS, classes=4, **params.values)
    np.testing.assert_allclose(ours.coefficients, theirs.coefficients, atol=1e-9)
    np.testing.assert_allclose(ours.intercepts, theirs.intercepts, atol=1e-9)


def files_of(folder: Path) -> dict[str, bytes]:
    """What MLlib saved, but for Hadoop's own marks."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name[0] not in "._"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_a_model_that_is_saved_where_no_machine_has_a_path_is_brought_here(
    spark: SparkSession, tmp_path: Path
) -> None:
    labels = np.arange(30) % 3
    values = np.random.default_rng(0).normal(2 * np.eye(3, 4)[labels], 1).astype(np.float32)
    rows = [(int(label), Vectors.dense(row)) for label, row in zip(labels, values.tolist(), strict=True)]
    table = spark.createDataFrame(rows, ["label_index", "features"]).coalesce(1)
    table = table.withMetadata("label_index", nominal(3))
    params = TrialParams.of("any", "GBT", maxIter=1, maxDepth=1)  # a model for each class, of trees
    uri = f"{mount(spark, tmp_path / 'below')}/saved"
    found = SparkFits(table, params, SparkSetting(3, {"any": 4}, "none", 0, uri)).fit_all()
    (below,) = (tmp_path / "below" / "saved").iterdir()
    assert found.saved is not None
    assert not found.saved.is_relative_to(tmp_path)
    there = files_of(below)
    models = {"model_0", "model_1", "model_2"}
    assert {name.partition("/")[0] for name in there} == {"metadata", "classifier"} | models
    assert files_of(found.saved) == there
    expected = SparkFits(table, params, SparkSetting(3, {"any": 4}, "none", 0, tmp_path / "here")).fit_all()
    np.testing.assert_array_equal(found.head.score(values), expected.head.score(values))
    place = found.saved.parent
    del found
    gc.collect()
    assert not place.exists()  # it goes with the fit
