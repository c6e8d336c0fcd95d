"""What every fitted classifier is to whoever scores with it, and how one is kept on disk: no pickle."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np

from tuner.base.choices import ScoreKind
from tuner.base.errors import ModelError

# By the kind that a model's description names. Imported when one is read: scikit-learn takes a second.
_KINDS = {
    "linear": ("tuner.classifiers.linear", "LinearHead"),
    "margins": ("tuner.classifiers.heads.mllib", "MarginsHead"),
    "naive_bayes": ("tuner.classifiers.heads.mllib", "NaiveBayesHead"),
    "perceptron": ("tuner.classifiers.heads.mllib", "PerceptronHead"),
    "factorization": ("tuner.classifiers.heads.mllib", "FactorizationHead"),
    "trees": ("tuner.classifiers.heads.trees", "TreesHead"),
    "stepped": ("tuner.classifiers.heads.steps", "SteppedHead"),
    "sklearn": ("tuner.classifiers.scikit", "SklearnHead"),
}


class Head(Protocol):
    """A fitted classifier: features → a score for each class, the greatest of which decides.

    Attributes
    ----------
    kind
        As a model's description names it.
    gives
        Whether scores are probabilities or decision values of any size.
    """

    kind: ClassVar[str]

    @property
    def gives(self) -> ScoreKind:
        """What the scores are."""

    def score(self, features: np.ndarray) -> np.ndarray:
        """Features of shape (n, width), all of them finite → float64 of shape (n, k)."""

    def write(self, folder: Path) -> None:
        """Write it to a folder that is there."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote."""


class ArraysHead:
    """A head that is a dataclass of arrays, kept as one `.npz` file."""

    _FILE: ClassVar[str] = "head.npz"

    def write(self, folder: Path) -> None:
        """Write the arrays to a folder that is there."""
        arrays: dict[str, Any] = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(cast(Any, self))
        }
        np.savez(folder / self._FILE, **arrays)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote; what is no array of numbers is refused by NumPy."""
        with np.load(folder / cls._FILE, allow_pickle=False) as arrays:
            return cls(**{field.name: arrays[field.name] for field in dataclasses.fields(cast(Any, cls))})


def read_head(folder: Path, kind: str) -> Head:
    """Read a fitted classifier of this kind.

    Raises
    ------
    ModelError
        There is no such kind, or what is there must not be read.
    OSError, ValueError, KeyError
        The folder holds none.
    """
    if kind not in _KINDS:
        raise ModelError(
            f"The model in {folder} has a classifier of the kind {kind}, which this version of tuner does "
            "not know: use the version that made it."
        )
    module, name = _KINDS[kind]
    head: Head = getattr(importlib.import_module(module), name).read(folder)
    return head


def softmax_rows(raw: np.ndarray) -> np.ndarray:
    """Logarithms of shape (n, k), up to a constant a row, as probabilities; in place."""
    raw -= raw.max(axis=1, keepdims=True)
    np.exp(raw, out=raw)
    raw /= raw.sum(axis=1, keepdims=True)
    return raw
