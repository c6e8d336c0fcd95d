"""Predictions → metrics, confusion matrix, report; metrics as MLlib's evaluators mean them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tuner.base.choices import ScoreKind
from tuner.base.errors import TrialError

EPSILON = 1e-15  # MLlib's `eps`: a probability of 0 for the true class costs 34.5, not infinity


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model's scores are worth on labelled images.

    Attributes
    ----------
    labels
        The k class names; their positions are the label indices.
    metrics
        `accuracy`, `f1`, `weightedPrecision`, `weightedRecall` (the last three averaged over the classes,
        weighted by their images), `logLoss` of probabilities, and `roc_auc` where it is defined. Over
        folds, also `<metric>_std_error` of each.
    confusion
        int64 of shape (k, k): rows are true classes, columns predicted ones.
    report
        Plain data: by class name `precision`, `recall`, `f1-score` and `support`. Beside the classes,
        as in scikit-learn's report, `accuracy`, `macro avg` and `weighted avg`; where a class has such a
        name it keeps it, and the average is called `accuracy (all classes)` and so on.
    """

    labels: tuple[str, ...]
    metrics: dict[str, float]
    confusion: np.ndarray
    report: dict[str, Any]


def evaluate(
    label_index: np.ndarray, scores: np.ndarray, labels: Sequence[str], gives: ScoreKind = "probability"
) -> Evaluation:
    """Evaluate scores; the prediction is the class with the greatest one, the first one of equals.

    Parameters
    ----------
    label_index
        True classes as whole numbers in [0, k), of shape (n,). Not every class need be among them.
    scores
        Floats of shape (n, k).
    labels
        The k class names.
    gives
        What the scores are. Decision values give no `logLoss`.

    Raises
    ------
    TrialError
        There is nothing to evaluate, or a score is not a number.

    References
    ----------
    `pyspark.ml.evaluation.MulticlassClassificationEvaluator` and `BinaryClassificationEvaluator`.
    """
    if len(label_index) == 0:
        raise TrialError("There are no images to evaluate the model on: hold back more images.")
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        what = {"probability": "probabilities", "decision": "decision values"}[gives]
        raise TrialError(
            f"The model gives {what} that are not numbers: raise regParam, or what is like it."
        )
    truth, classes = np.asarray(label_index).astype(np.int64), len(labels)
    pairs = truth * classes + scores.argmax(axis=1)
    confusion = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return Evaluation(
        labels=tuple(labels),
        metrics=_metrics(truth, scores, confusion, gives),
        confusion=confusion,
        report=_report(confusion, labels),
    )


def summarize_folds(
    folds: Sequence[Evaluation],
    label_index: np.ndarray,
    scores: np.ndarray,
    gives: ScoreKind = "probability",
) -> Evaluation:
    """Summarize a cross-validation.

    Metrics are means over the folds, each with its standard error, the standard deviation over the folds
    (n - 1) / √n; a metric undefined in one fold is left out. Confusion matrix and report are those of all
    folds' predictions together.

    Parameters
    ----------
    folds
        The evaluation of each fold, two or more.
    label_index, scores, gives
        The folds' predictions one after the other, as `evaluate` takes them.
    """
    metrics = {}
    for name in folds[0].metrics:
        if all(name in fold.metrics for fold in folds):
            values = np.array([fold.metrics[name] for fold in folds])
            metrics[name] = float(values.mean())
            metrics[f"{name}_std_error"] = float(values.std(ddof=1) / math.sqrt(len(values)))
    return replace(evaluate(label_index, scores, folds[0].labels, gives), metrics=metrics)


@dataclass(frozen=True, eq=False)
class _ByClass:
    """What a confusion matrix says of each of k classes; 0 where nothing is divided by nothing."""

    support: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    @classmethod
    def of(cls, confusion: np.ndarray) -> _ByClass:
        support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
        right = confusion.diagonal()
        return cls(
            support,
            quotient(right, predicted),
            quotient(right, support),
            quotient(2 * right, support + predicted),
        )

    def weighted(self, values: np.ndarray) -> float:
        """The mean over the classes, weighted by their images."""
        return float((self.support * values).sum() / self.support.sum())


def quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide, and give 0 where nothing is divided by nothing: float64."""
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)


def _metrics(
    truth: np.ndarray, scores: np.ndarray, confusion: np.ndarray, gives: ScoreKind
) -> dict[str, float]:
    found = _ByClass.of(confusion)
    metrics = {
        "accuracy": float(confusion.trace() / len(truth)),
        "f1": found.weighted(found.f1),
        "weightedPrecision": found.weighted(found.precision),
        "weightedRecall": found.weighted(found.recall),
    }
    if gives == "probability":
        of_truth = np.clip(scores[np.arange(len(truth)), truth], EPSILON, 1 - EPSILON)
        metrics["logLoss"] = float(-np.log(of_truth).mean())
    auc = _roc_auc(truth, scores)
    return metrics if auc is None else metrics | {"roc_auc": auc}


def _report(confusion: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    found, total = _ByClass.of(confusion), int(confusion.sum())
    values = {"precision": found.precision, "recall": found.recall, "f1-score": found.f1}
    report: dict[str, Any] = {
        label: {name: float(column[i]) for name, column in values.items()}
        | {"support": int(found.support[i])}
        for i, label in enumerate(labels)
    }
    averages: dict[str, Any] = {
        "accuracy": float(confusion.trace() / total),
        "macro avg": {name: float(column.mean()) for name, column in values.items()} | {"support": total},
        "weighted avg": {name: found.weighted(column) for name, column in values.items()}
        | {"support": total},
    }
    for name, value in averages.items():
        while name in report:  # a class is called so
            name += " (all classes)"
        report[name] = value
    return report


def positive_classes(truth: np.ndarray, classes: int) -> np.ndarray:
    """The classes whose one-vs-rest areas `roc_auc` averages: those that are present.

    Of two classes the second is the positive one, as for MLlib's `BinaryClassificationEvaluator`.
    """
    return np.array([1]) if classes == 2 else np.unique(truth)


def _roc_auc(truth: np.ndarray, values: np.ndarray) -> float | None:
    """One-vs-rest areas, averaged; None if no class has a rest.

    An area is the share of pairs, one image of the class and one of another, that the score puts in the
    right order (Mann and Whitney, Annals of Mathematical Statistics 18, 1947); ties count half.
    """
    if len(np.unique(truth)) < 2:
        return None
    areas = []
    for index in positive_classes(truth, values.shape[1]):
        scores, own = values[:, index], truth == index
        rest = np.sort(scores[~own])
        lower = [np.searchsorted(rest, scores[own], side).mean() for side in ("left", "right")]
        areas.append(sum(lower) / 2 / len(rest))
    return float(np.mean(areas))
