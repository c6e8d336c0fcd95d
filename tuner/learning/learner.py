"""What learns a batch at a time, whichever library it is of, made of a row of the table of classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from tuner.base.choices import LearnStep
from tuner.classifiers.rows.row import Classifier
from tuner.classifiers.scikit import SklearnHead
from tuner.classifiers.space import Value


@dataclass(frozen=True)
class LearnerSetting:
    """What a learner is made of.

    Attributes
    ----------
    row
        Its row of the table; it is `incremental`.
    values
        Its parameters by name; what is not there is left to the library.
    width, classes
        How many features an image has, and how many classes there are.
    step
        Of River: one step of the gradient a batch, or one an image.
    seed
        For what has a part of chance.
    """

    row: Classifier
    values: Mapping[str, Value]
    width: int
    classes: int
    step: LearnStep = "batch"
    seed: int = 0


class Learner(Protocol):
    """A classifier in the making, behind what scales its features by those that were seen so far."""

    def learn(self, features: np.ndarray, label_index: np.ndarray) -> None:
        """Learn a batch: finite floats of shape (n, width), whole numbers in [0, classes) of shape (n,)."""

    def head(self) -> SklearnHead:
        """What it computes now; it may change with what is learned later."""

    def write(self, folder: Path) -> None:
        """Write what it takes to go on, to a folder that is there; no pickle."""

    def read(self, folder: Path) -> None:
        """Take up what `write` wrote, in place of what it has; it was made of the same setting."""
