import json
import math
import warnings
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.ml.evaluation import BinaryClassificationEvaluator, MulticlassClassificationEvaluator
from pyspark.ml.functions import array_to_vector
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from scipy.stats import rankdata
from sklearn.metrics import classification_report, roc_auc_score

from tuner.base.choices import Metric
from tuner.base.errors import TrialError
from tuner.evaluation.metrics import evaluate, summarize_folds
from tuner.evaluation.predictions import Scored, predictions_table

MLLIB_METRICS = ("accuracy", "f1", "weightedPrecision", "weightedRecall", "logLoss")


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(count))


def random_scores(
    rows: int, classes: int, seed: int, absent: int | None = None, sharpness: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that know something of them; some probabilities are exactly 0 or 1."""
    generator = np.random.default_rng(seed)
    truth = generator.choice([index for index in range(classes) if index != absent], rows)
    raw = generator.normal(size=(rows, classes)) * sharpness + 1.5 * np.eye(classes)[truth]
    probability = np.exp(raw - raw.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    certain = generator.random(rows) < 0.1
    probability[certain] = np.eye(classes)[probability[certain].argmax(axis=1)]
    return truth, probability


def mllib_metrics(spark: SparkSession, truth: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    rows = [
        (float(label), [float(p) for p in row], float(row.argmax()))
        for label, row in zip(truth, probability, strict=True)
    ]
    table = (
        spark.createDataFrame(rows, "label double, p array<double>, prediction double")
        .withColumn("probability", array_to_vector("p"))
        .coalesce(1)
        .cache()
    )
    evaluator = MulticlassClassificationEvaluator()
    found = {name: evaluator.setMetricName(name).evaluate(table) for name in MLLIB_METRICS}
    classes = probability.shape[1]
    binary = BinaryClassificationEvaluator(rawPredictionCol="score", labelCol="positive", numBins=0)
    areas = []
    for index in [1] if classes == 2 else sorted(set(truth.tolist())):
        one_against_rest = table.select(
            (F.col("label") == index).cast("double").alias("positive"), F.col("p")[index].alias("score")
        )
        areas.append(binary.evaluate(one_against_rest))
    table.unpersist()
    return found | {"roc_auc": float(np.mean(areas))}


@pytest.mark.long
@pytest.mark.parametrize(
    ("rows", "classes", "absent", "sharpness"),
    [(60, 2, None, 2.0), (200, 10, None, 2.0), (50, 5, 3, 2.0), (40, 4, None, 0.0), (80, 3, 0, 300.0)],
    ids=["two classes", "ten classes", "a class absent", "prediction from noise", "probabilities of 0"],
)
def test_metrics_equal_those_of_mllib(spark, rows, classes, absent, sharpness):
    truth, probability = random_scores(rows, classes, seed=rows, absent=absent, sharpness=sharpness)
    metrics = evaluate(truth, probability, names(classes)).metrics
    assert set(metrics) == set(get_args(Metric))
    assert metrics == pytest.approx(mllib_metrics(spark, truth, probability), rel=1e-9)


def test_a_class_that_is_never_predicted_costs_no_warning_and_scores_as_in_mllib(spark):
    truth, probability = np.array([0, 0, 1, 2]), np.tile([0.7, 0.2, 0.1], (4, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = evaluate(truth, probability, names(3)).metrics
    assert metrics == pytest.approx(mllib_metrics(spark, truth, probability))
    assert metrics["roc_auc"] == 0.5


@settings(deadline=None)
@given(
    rows=st.integers(1, 60),
    classes=st.integers(2, 8),
    seed=st.integers(0, 2**32 - 1),
    sharpness=st.sampled_from([0.0, 1.0, 100.0]),
)
def test_any_predictions_give_a_consistent_evaluation(rows, classes, seed, sharpness):
    truth, probability = random_scores(rows, classes, seed, sharpness=sharpness)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation = evaluate(truth, probability, names(classes))
    confusion, metrics = evaluation.confusion, evaluation.metrics
    assert confusion.shape == (classes, classes)
    assert confusion.sum(axis=1).tolist() == np.bincount(truth, minlength=classes).tolist()
    assert metrics["accuracy"] == pytest.approx(np.trace(confusion) / rows)
    assert metrics["accuracy"] == pytest.approx(metrics["weightedRecall"])
    assert ("roc_auc" in metrics) == (len(set(truth.tolist())) > 1)
    assert all(math.isfinite(value) for value in metrics.values())
    scored = Scored([f"{row}.png" for row in range(rows)], truth, probability)
    table = predictions_table(scored, names(classes))
    assert table["correct"].mean() == pytest.approx(metrics["accuracy"])


def test_the_confusion_matrix_has_true_classes_in_rows():
    truth, probability = np.array([0, 0, 1]), np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert evaluate(truth, probability, ("cat", "dog")).confusion.tolist() == [[1, 1], [0, 1]]


def test_equally_probable_classes_are_decided_for_the_first_as_in_mllib():
    evaluation = evaluate(np.array([0, 1]), np.full((2, 2), 0.5), ("cat", "dog"))
    assert evaluation.confusion.tolist() == [[1, 0], [1, 0]]


def test_labels_may_be_the_doubles_of_mllib_and_probabilities_float32():
    truth, probability = random_scores(30, 3, seed=1)
    exact = evaluate(truth, probability, names(3))
    rounded = evaluate(truth.astype(float), probability.astype(np.float32), names(3))
    assert rounded.confusion.tolist() == exact.confusion.tolist()
    assert rounded.metrics["logLoss"] == pytest.approx(exact.metrics["logLoss"], rel=1e-5)


def test_the_report_names_every_class_and_is_plain_data():
    truth, probability = random_scores(30, 3, seed=2, absent=1)
    evaluation = evaluate(truth, probability, ("Löwe", "<b>", "accuracy"))
    report = json.loads(json.dumps(evaluation.report))
    assert report["<b>"]["support"] == 0
    assert report["Löwe"]["support"] == (truth == 0).sum()
    assert report["accuracy"]["support"] == (truth == 2).sum()


def test_the_report_is_that_of_scikit_learn():
    for rows, classes, absent in ((30, 2, None), (60, 5, 3), (40, 12, 0)):
        truth, probability = random_scores(rows, classes, seed=rows, absent=absent)
        report = classification_report(
            truth,
            probability.argmax(axis=1),
            labels=range(classes),
            target_names=names(classes),
            output_dict=True,
            zero_division=0,
        )
        found = evaluate(truth, probability, names(classes)).report
        assert found.keys() == report.keys()
        for name, row in report.items():
            assert found[name] == pytest.approx(row)


AVERAGES = ("accuracy", "macro avg", "weighted avg", "micro avg", "accuracy (all classes)")


@pytest.mark.parametrize("classes", range(2, len(AVERAGES) + 1))
def test_classes_that_are_called_like_an_average_keep_their_rows(classes: int):
    truth, probability = random_scores(60, classes, seed=classes)
    plain = evaluate(truth, probability, names(classes)).report
    report = evaluate(truth, probability, AVERAGES[:classes]).report
    assert len(report) == len(plain) == classes + 3
    for index, label in enumerate(AVERAGES[:classes]):
        assert report[label] == plain[f"class {index}"]
    for average in ("accuracy", "macro avg", "weighted avg"):
        (name,) = [name for name in report if name not in AVERAGES[:classes] and name.startswith(average)]
        assert report[name] == plain[average]


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_the_area_under_the_curve_is_that_of_ranks(classes: int, levels: int):
    """Against scikit-learn's curve and SciPy's mid-ranks, with many equal scores."""
    rng = np.random.default_rng(levels)
    truth = rng.integers(0, classes, 80)
    raw = rng.integers(1, levels + 1, (80, classes)).astype(float)
    probability = raw / raw.sum(axis=1, keepdims=True)
    curves, areas = [], []
    ranks = rankdata(probability, axis=0)
    for index in [1] if classes == 2 else range(classes):
        own = truth == index
        curves.append(roc_auc_score(own, probability[:, index]))
        count = own.sum()
        won = ranks[own, index].sum() - count * (count + 1) / 2
        areas.append(won / (count * (80 - count)))
    found = evaluate(truth, probability, names(classes)).metrics["roc_auc"]
    assert found == pytest.approx(np.mean(curves), rel=1e-12)
    assert found == pytest.approx(np.mean(areas), rel=1e-12)


def test_nothing_to_evaluate_and_numbers_that_are_none_say_what_to_do():
    with pytest.raises(TrialError, match="no images to evaluate"):
        evaluate(np.array([]), np.empty((0, 2)), names(2))
    with pytest.raises(TrialError, match="raise regParam"):
        evaluate(np.array([0]), np.array([[np.nan, np.nan]]), names(2))


def test_folds_give_means_with_standard_errors_and_pooled_counts():
    truth, probability = random_scores(90, 3, seed=3)
    parts = np.split(np.arange(90), 3)
    folds = [evaluate(truth[part], probability[part], names(3)) for part in parts]
    summary = summarize_folds(folds, truth, probability)
    for metric in get_args(Metric):
        values = [fold.metrics[metric] for fold in folds]
        mean = sum(values) / 3
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
        assert summary.metrics[metric] == pytest.approx(mean)
        assert summary.metrics[f"{metric}_std_error"] == pytest.approx(spread / math.sqrt(3))
    assert (summary.confusion == sum(fold.confusion for fold in folds)).all()
    assert summary.report == evaluate(truth, probability, names(3)).report
    assert summary.labels == names(3)


def test_a_metric_that_a_fold_cannot_have_is_left_out_of_the_summary():
    probability = np.array([[0.9, 0.1], [0.2, 0.8]])
    folds = [evaluate(np.array(truth), probability, ("cat", "dog")) for truth in ([0, 1], [1, 1])]
    summary = summarize_folds(folds, np.array([0, 1, 1, 1]), np.tile(probability, (2, 1)))
    assert not any(name.startswith("roc_auc") for name in summary.metrics)
    assert summary.metrics["accuracy"] == pytest.approx(0.75)


def test_decision_values_give_all_metrics_but_those_that_need_probabilities() -> None:
    """What ranks in the same order has the same area, the same classes have the same counts."""
    rng = np.random.default_rng(0)
    truth, margins = rng.integers(0, 3, 50), rng.normal(size=(50, 3)) * 9
    found = evaluate(truth, margins, names(3), "decision").metrics
    assert set(found) == {"accuracy", "f1", "weightedPrecision", "weightedRecall", "roc_auc"}
    assert found["accuracy"] == (margins.argmax(axis=1) == truth).mean()
    folds = [
        evaluate(truth[part], margins[part], names(3), "decision") for part in (slice(25), slice(25, 50))
    ]
    summary = summarize_folds(folds, truth, margins, "decision")
    assert set(summary.metrics) == set(found) | {f"{name}_std_error" for name in found}
    with pytest.raises(TrialError, match="gives decision values that are not numbers"):
        evaluate(truth, margins * np.nan, names(3), "decision")
