"""What fits of a trial come to, wherever they are made, and how classes weigh in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from tuner.base.choices import ClassWeight
from tuner.classifiers.heads.files import Head
from tuner.evaluation.predictions import Scored


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier.

    Attributes
    ----------
    head
        What it computes.
    saved
        The folder to which MLlib saved its own model, where arrays do not tell all of it.
    """

    head: Head
    saved: Path | None = None


@dataclass(frozen=True)
class Fit:
    """One fit: the model, how it came about, and its scores on the rows it did not see.

    Attributes
    ----------
    fitted
        Gives the classifier, while the fits are open: to fetch MLlib's takes jobs, and not every fold's is
        wanted.
    seconds
        How long the fit took, without scoring.
    train_accuracy
        The share of the rows it was fitted on that it calls right.
    history
        MLlib's `objectiveHistory`; empty of classifiers that have none.
    scored
        The rows it did not see.
    warnings
        What the library warned of meanwhile.
    """

    fitted: Callable[[], Fitted]
    seconds: float
    train_accuracy: float
    history: list[float]
    scored: Scored
    warnings: tuple[str, ...] = ()


class Fits(Protocol):
    """The fits of one trial's parameters."""

    def fit_and_score(self, held_back: str) -> Fit:
        """Fit on all rows but those of a part, and score on that part."""

    def fit_all(self) -> Fitted:
        """Fit on all rows."""


def class_weights(label_index: np.ndarray, class_weight: ClassWeight) -> np.ndarray | None:
    """Each row's weight: None where all weigh the same.

    `balanced` weighs a class by n / (classes × its rows), as scikit-learn's `class_weight` does, so that
    every class has as much to say in sum.
    """
    if class_weight == "none":
        return None
    counts = np.bincount(label_index)
    present = np.count_nonzero(counts)
    weights: np.ndarray = (len(label_index) / (present * np.maximum(counts, 1)))[label_index]
    return weights
