"""Predictions → metrics, confusion matrix, report; metrics as MLlib's evaluators mean them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    classification_report,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

from tuner.base.errors import TrialError

EPSILON = 1e-15  # MLlib's `eps`: a probability of 0 for the true class costs 34.5, not infinity


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model's probabilities are worth on labelled images.

    Attributes
    ----------
    labels
        The k class names; their positions are the label indices.
    metrics
        `accuracy`, `f1`, `weightedPrecision`, `weightedRecall` (the last three averaged over the classes,
        weighted by their images), `logLoss`, and `roc_auc` where it is defined. Over folds, also
        `<metric>_std_error` of each.
    confusion
        int64 of shape (k, k): rows are true classes, columns predicted ones.
    report
        scikit-learn's classification report as plain data: per class `precision`, `recall`, `f1-score`,
        `support`.
    """

    labels: tuple[str, ...]
    metrics: dict[str, float]
    confusion: np.ndarray
    report: dict[str, Any]


def evaluate(label_index: np.ndarray, probability: np.ndarray, labels: Sequence[str]) -> Evaluation:
    """Evaluate probabilities; the prediction is the most probable class, the first one of equals.

    Parameters
    ----------
    label_index
        True classes as whole numbers in [0, k), of shape (n,). Not every class need be among them.
    probability
        Floats of shape (n, k).
    labels
        The k class names.

    Raises
    ------
    TrialError
        There is nothing to evaluate, or a probability is not a number.

    References
    ----------
    `pyspark.ml.evaluation.MulticlassClassificationEvaluator` and `BinaryClassificationEvaluator`.
    """
    if len(label_index) == 0:
        raise TrialError("There are no images to evaluate the model on: hold back more images.")
    probability = np.asarray(probability, dtype=np.float64)
    if not np.isfinite(probability).all():
        raise TrialError("The model gives probabilities that are not numbers: raise regParam.")
    truth = np.asarray(label_index).astype(np.int64)
    prediction = probability.argmax(axis=1)
    classes = np.arange(len(labels))
    return Evaluation(
        labels=tuple(labels),
        metrics=_metrics(truth, prediction, probability),
        confusion=confusion_matrix(truth, prediction, labels=classes),
        report=classification_report(
            truth, prediction, labels=classes, target_names=list(labels), output_dict=True, zero_division=0
        ),
    )


def summarize_folds(
    folds: Sequence[Evaluation], label_index: np.ndarray, probability: np.ndarray
) -> Evaluation:
    """Summarize a cross-validation.

    Metrics are means over the folds, each with its standard error, the standard deviation over the folds
    (n - 1) / √n; a metric undefined in one fold is left out. Confusion matrix and report are those of all
    folds' predictions together.

    Parameters
    ----------
    folds
        The evaluation of each fold, two or more.
    label_index, probability
        The folds' predictions one after the other, as `evaluate` takes them.
    """
    metrics = {}
    for name in folds[0].metrics:
        if all(name in fold.metrics for fold in folds):
            values = np.array([fold.metrics[name] for fold in folds])
            metrics[name] = float(values.mean())
            metrics[f"{name}_std_error"] = float(values.std(ddof=1) / math.sqrt(len(values)))
    return replace(evaluate(label_index, probability, folds[0].labels), metrics=metrics)


def _metrics(truth: np.ndarray, prediction: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, prediction, average="weighted", zero_division=0
    )
    of_truth = np.clip(probability[np.arange(len(truth)), truth], EPSILON, 1 - EPSILON)
    metrics = {
        "accuracy": float(accuracy_score(truth, prediction)),
        "f1": float(f1),
        "weightedPrecision": float(precision),
        "weightedRecall": float(recall),
        "logLoss": float(-np.log(of_truth).mean()),
    }
    auc = _roc_auc(truth, probability)
    return metrics if auc is None else metrics | {"roc_auc": auc}


def _roc_auc(truth: np.ndarray, probability: np.ndarray) -> float | None:
    """One-vs-rest areas, averaged over the classes that are present; None if no class has a rest.

    Of two classes the second is the positive one, as for MLlib's `BinaryClassificationEvaluator`.
    """
    present = np.unique(truth)
    if len(present) < 2:
        return None
    positives = [1] if probability.shape[1] == 2 else present
    return float(np.mean([roc_auc_score(truth == index, probability[:, index]) for index in positives]))
