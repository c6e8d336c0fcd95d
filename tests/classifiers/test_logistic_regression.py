"""The worker's fit against MLlib's own: the same steps, the same coefficients, the same predictions."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tests.classifiers.rows import Rows, sample
from tuner.classifiers.logistic_regression import LogisticRegressionFit, fit
from tuner.classifiers.standardized import Standardized

# The session serves all examples.
compared = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def fitted(rows: Rows, **params) -> LogisticRegressionFit:
    return fit(Standardized(rows.features, rows.weights), rows.label_index, classes=rows.classes, **params)


@dataclass(frozen=True, eq=False)
class MllibFit:
    coefficients: np.ndarray
    intercepts: np.ndarray
    objectiveHistory: list[float]
    probability: np.ndarray
    prediction: np.ndarray


def as_table(spark: SparkSession, rows: Rows) -> DataFrame:
    vectors = pa.array(list(rows.features.astype(np.float64)), pa.list_(pa.float64()))
    label = rows.label_index.astype(np.float64)
    columns = {"row": range(len(label)), "values": vectors, "label": label}
    if rows.weights is not None:
        columns["weight"] = rows.weights
    declared = {"ml_attr": {"type": "nominal", "name": "label", "num_vals": rows.classes}}
    return (
        spark.createDataFrame(pa.table(columns))
        .coalesce(1)
        .withColumn("features", array_to_vector("values"))
        .withColumn("label", F.col("label").alias("label", metadata=declared))
    )


def mllib_fit(spark: SparkSession, rows: Rows, **params) -> MllibFit:
    table = as_table(spark, rows)
    classifier = LogisticRegression(**params)
    if rows.weights is not None:
        classifier = classifier.setWeightCol("weight")
    model = classifier.fit(table)
    scored = (
        model.transform(table)
        .select("row", vector_to_array("probability").alias("probability"), "prediction")
        .toPandas()
        .sort_values("row")
    )
    return MllibFit(
        model.coefficientMatrix.toArray(),
        model.interceptVector.toArray(),
        list(model.summary.objectiveHistory),
        np.array(scored["probability"].tolist()),
        scored["prediction"].to_numpy().astype(int),
    )


def assert_equal(ours: LogisticRegressionFit, mllib: MllibFit, rows: Rows) -> None:
    assert len(ours.objectiveHistory) == len(mllib.objectiveHistory)
    near = 1e-10 * abs(mllib.objectiveHistory[0])
    np.testing.assert_allclose(ours.objectiveHistory, mllib.objectiveHistory, rtol=0, atol=near)
    for name in ("coefficients", "intercepts"):
        expected = getattr(mllib, name)
        near = 1e-6 * np.abs(expected[np.isfinite(expected)]).max(initial=1e-9)
        np.testing.assert_allclose(getattr(ours, name), expected, rtol=0, atol=near, err_msg=name)
    prediction = ours.probability(rows.features).argmax(axis=1)
    # Of classes that are equally probable but for rounding, either may be predicted.
    chosen = mllib.probability[np.arange(len(prediction)), prediction]
    tied = chosen > mllib.probability.max(axis=1) - 1e-9
    assert ((prediction == mllib.prediction) | tied).all()


@st.composite
def samples(draw) -> Rows:
    rows = sample(
        seed=draw(st.integers(0, 2**32 - 1)),
        rows=draw(st.integers(20, 300)),
        width=draw(st.integers(2, 60)),
        classes=draw(st.integers(2, 6)),
        kind=draw(st.sampled_from(["dense", "half zero", "constant column"])),
        weighted=draw(st.booleans()),
        signal=draw(st.sampled_from([0.1, 1.0, 5.0])),
    )
    absent = draw(st.none() | st.integers(0, rows.classes - 1))
    if absent is not None:
        rows.label_index[rows.label_index == absent] = draw(st.integers(0, rows.classes - 1))
    return rows


# A share of L1 that is not 0 has to be more than rounding. Of a class without rows the gradients of all
# coefficients are 0 at the start but for rounding, and in OWL-QN their signs say which way each may go. A
# lesser share does not hold them at 0: with 2.8e-306, MLlib's own coefficients differed by 1.3e-4 when its
# rows came in another order. (From 1e-15 on, order made no difference to the worker's.)
_LEAST_SHARE = 1e-6

parameters = st.fixed_dictionaries(
    {
        "regParam": st.just(0.0) | st.floats(-4, 0).map(lambda power: 10**power),
        "elasticNetParam": st.sampled_from([0.0, 1.0]) | st.floats(_LEAST_SHARE, 1),
        "maxIter": st.integers(1, 60),
    }
)


@given(rows=samples(), params=parameters)
@settings(compared, max_examples=4)
def test_takes_the_steps_of_mllib(spark, rows, params):
    assert_equal(fitted(rows, **params), mllib_fit(spark, rows, **params), rows)


@pytest.mark.long
@pytest.mark.timeout(3600)
@given(rows=samples(), params=parameters)
@settings(compared, max_examples=150)
def test_takes_the_steps_of_mllib_in_many_cases(spark, rows, params):
    assert_equal(fitted(rows, **params), mllib_fit(spark, rows, **params), rows)


@pytest.mark.parametrize("classes", [2, 3])
def test_many_blocks_of_rows_are_as_one(monkeypatch, spark, classes):
    monkeypatch.setattr("tuner.classifiers.standardized._BLOCK_BYTES", 8 * 7 * 20)
    rows = sample(seed=1, rows=150, width=20, classes=classes, weighted=True)
    params = {"regParam": 0.01, "elasticNetParam": 0.5, "maxIter": 20}
    assert_equal(fitted(rows, **params), mllib_fit(spark, rows, **params), rows)


@pytest.mark.parametrize(
    ("classes", "label", "intercepts"),
    [(2, 1, [np.inf]), (2, 0, [np.inf]), (5, 3, [0, 0, 0, np.inf, 0])],
    ids=["the second of two", "the first of two", "the fourth of five"],
)
def test_one_class_only_is_certain(spark, classes, label, intercepts):
    rows = sample(seed=2, rows=20, width=4, classes=classes)
    rows.label_index[:] = label
    params = {"regParam": 0.1, "elasticNetParam": 0.0, "maxIter": 5}
    ours, mllib = fitted(rows, **params), mllib_fit(spark, rows, **params)
    assert_equal(ours, mllib, rows)
    assert ours.intercepts.tolist() == intercepts
    assert (ours.stop, ours.iterations) == ("one class only", 0)
    np.testing.assert_array_equal(ours.probability(rows.features), mllib.probability)


def test_a_constant_feature_of_weighted_rows_has_no_coefficient(spark):
    """MLlib's may have any, for it has a deviation, of rounding; its intercepts make up for that."""
    rows = sample(seed=3, rows=160, width=13, classes=6, weighted=True)
    rows.features[:, 4] = -1.69
    params = {"regParam": 2.6e-4, "elasticNetParam": 0.0, "maxIter": 50}
    ours, mllib = fitted(rows, **params), mllib_fit(spark, rows, **params)
    assert (ours.coefficients[:, 4] == 0).all()
    np.testing.assert_allclose(ours.probability(rows.features), mllib.probability, rtol=0, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_as_mllib_does(spark, classes):
    rows = sample(seed=4, rows=100, width=30, classes=classes, signal=5.0)
    mllib = mllib_fit(spark, rows, regParam=1e-4, maxIter=40)
    same = LogisticRegressionFit(mllib.coefficients, mllib.intercepts, [0.0], "maxIter reached")
    np.testing.assert_allclose(same.probability(rows.features), mllib.probability, rtol=0, atol=1e-12)


def test_features_are_read_from_their_file_and_serve_many_fits(tmp_path):
    rows = sample(seed=5, rows=50, width=6, classes=3)
    np.save(tmp_path / "features.npy", rows.features)
    table = Standardized(np.load(tmp_path / "features.npy", mmap_mode="r"))
    params = {"regParam": 0.01, "elasticNetParam": 0.5, "maxIter": 10}
    expected = fitted(rows, **params)
    for _ in range(2):
        again = fit(table, rows.label_index, classes=3, **params)
        np.testing.assert_array_equal(again.coefficients, expected.coefficients)


@pytest.mark.parametrize(
    "label_index", [[0, 1, 2], [0, -1], [0, 2]], ids=["too many", "below 0", "not declared"]
)
def test_labels_that_do_not_fit(label_index):
    rows = Rows(np.ones((2, 2)), np.array(label_index), classes=2)
    with pytest.raises(ValueError, match="from 0 to 1, one a row"):
        fitted(rows, regParam=0.0, elasticNetParam=0.0, maxIter=1)
