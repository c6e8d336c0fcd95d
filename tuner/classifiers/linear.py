"""A fitted logistic regression as arrays, and the probabilities that MLlib's model gives; no Spark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from tuner.base.choices import ScoreKind
from tuner.classifiers.standardized import Blocks


@dataclass(frozen=True, eq=False)
class LinearHead:
    """What MLlib's `LogisticRegressionModel` computes with.

    Attributes
    ----------
    coefficients
        float64 of shape (k, width) for k classes; (1, width) for two, those of the second.
    intercepts
        float64 of shape (k,), or (1,). One is infinite if there were rows of one class only.
    """

    coefficients: np.ndarray
    intercepts: np.ndarray

    kind: ClassVar[str] = "linear"
    gives: ClassVar[ScoreKind] = "probability"
    _FILE: ClassVar[str] = "head.npz"

    def score(self, features: np.ndarray) -> np.ndarray:
        """As every head has it: the probabilities."""
        return self.probability(features)

    def write(self, folder: Path) -> None:
        """Write the arrays to a folder that is there."""
        np.savez(folder / self._FILE, coefficients=self.coefficients, intercepts=self.intercepts)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote."""
        with np.load(folder / cls._FILE, allow_pickle=False) as arrays:
            return cls(arrays["coefficients"], arrays["intercepts"])

    def probability(self, features: np.ndarray) -> np.ndarray:
        """Features of shape (n, width) → probabilities, float64 of shape (n, k).

        References
        ----------
        `org.apache.spark.ml.classification.LogisticRegressionModel.raw2probabilityInPlace`.
        """
        vectors = len(self.coefficients)
        probability = np.empty((len(features), max(2, vectors)))
        # Infinity less infinity is no number; the largest one less itself is 0.
        intercepts = np.minimum(self.intercepts, np.finfo(np.float64).max)
        for rows, block in Blocks(features, beside=vectors):
            margins = self.coefficients @ block.T + intercepts[:, None]
            if vectors == 1:
                with np.errstate(over="ignore"):
                    probability[rows, 0] = 1 / (1 + np.exp(margins[0]))
                probability[rows, 1] = 1 - probability[rows, 0]
            else:
                probability[rows] = softmax(margins).T
        return probability


def softmax(margins: np.ndarray) -> np.ndarray:
    """Margins of shape (classes, n) as probabilities, in place."""
    margins -= margins.max(axis=0)
    np.exp(margins, out=margins)
    margins /= margins.sum(axis=0)
    return margins
