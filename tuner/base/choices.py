"""The words that an experiment chooses from, as far as several folders know them."""

from __future__ import annotations

from typing import Literal

Preprocessing = Literal["tf", "caffe", "torch", "unit", "none"]
Precision = Literal["float32", "bfloat16"]
Metric = Literal["accuracy", "f1", "weightedPrecision", "weightedRecall", "logLoss", "roc_auc"]
ClassWeight = Literal["none", "balanced"]
WhereToFit = Literal["auto", "worker", "spark"]

LOWER_IS_BETTER: frozenset[str] = frozenset({"logLoss"})


def loss_of(metric: str, value: float) -> float:
    """What hyperopt minimises for a metric's value: the lower, the better."""
    return value if metric in LOWER_IS_BETTER else -value


def gain_of(metric: str, before: float, after: float) -> float:
    """By how much `after` is better than `before`, whichever way is better; negative if worse."""
    return loss_of(metric, before) - loss_of(metric, after)
