"""The words that an experiment chooses from, as far as several folders know them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Preprocessing = Literal["tf", "caffe", "torch", "unit", "none"]
Precision = Literal["float32", "bfloat16"]
Pooling = Literal["avg", "max", "none"]  # what becomes of a network's last map; none: it is flattened
GivenSplit = Literal["folders"]  # where images say which part of a split they are
Transparent = Literal["white", "black"]  # what transparent pictures are laid on
Metric = Literal["accuracy", "f1", "weightedPrecision", "weightedRecall", "logLoss", "roc_auc"]
ClassWeight = Literal["none", "balanced"]
WhereToFit = Literal["auto", "worker", "spark"]
LearnStep = Literal["batch", "row"]  # what a step of the gradient is made for
ScoreKind = Literal["probability", "decision"]  # what a classifier gives each class of an image


@dataclass(frozen=True)
class Decoding:
    """What an experiment says of pixels.

    Attributes
    ----------
    transparent
        The ground on which transparent pictures are laid.
    max_value
        What stands for white where an image's values could go beyond it; None: the most that its format
        holds (255, 65535), 65535 for integers of 32 bits, 1 for floats.
    """

    transparent: Transparent = "white"
    max_value: float | None = None


DEFAULT_DECODING = Decoding()
"""What is done where an experiment says nothing."""

LOWER_IS_BETTER: frozenset[str] = frozenset({"logLoss"})

NEEDS_PROBABILITY: frozenset[str] = frozenset({"logLoss"})
"""Metrics that decision values do not give."""


def loss_of(metric: str, value: float) -> float:
    """What hyperopt minimises for a metric's value: the lower, the better."""
    return value if metric in LOWER_IS_BETTER else -value


def gain_of(metric: str, before: float, after: float) -> float:
    """By how much `after` is better than `before`, whichever way is better; negative if worse."""
    return loss_of(metric, before) - loss_of(metric, after)
