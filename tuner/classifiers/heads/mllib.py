"""What MLlib's classifiers compute, but for trees and logistic regression, from their numbers; no Spark.

References
----------
In `org.apache.spark.ml.classification`: `LinearSVCModel.predictRaw`, `NaiveBayesModel`,
`MultilayerPerceptronClassificationModel` (`org.apache.spark.ml.ann.Layer`), `FMClassificationModel`
(`FactorizationMachines.getRawPrediction`), `OneVsRestModel.transform`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tuner.base.choices import ScoreKind
from tuner.classifiers.heads.files import ArraysHead, softmax_rows


@dataclass(frozen=True, eq=False)
class MarginsHead(ArraysHead):
    """One linear classifier for each class against the rest.

    `coefficients` is float64 of shape (k, width), `intercepts` of shape (k,).
    """

    coefficients: np.ndarray
    intercepts: np.ndarray

    kind: ClassVar[str] = "margins"
    gives: ClassVar[ScoreKind] = "decision"

    def score(self, features: np.ndarray) -> np.ndarray:
        """Features of shape (n, width) → margins, float64 of shape (n, k)."""
        margins: np.ndarray = features.astype(np.float64) @ self.coefficients.T + self.intercepts
        return margins


@dataclass(frozen=True, eq=False)
class NaiveBayesHead(ArraysHead):
    """Naive Bayes: `pi` of shape (k,), `theta` and `sigma` of shape (k, width), as MLlib has them.

    `sigma` holds variances, and `theta` means; without variances (`sigma` is empty) `theta` holds
    logarithms of shares, for features that are counts. `prior` says whether `pi` counts.
    """

    pi: np.ndarray
    theta: np.ndarray
    sigma: np.ndarray
    prior: np.ndarray

    kind: ClassVar[str] = "naive_bayes"
    gives: ClassVar[ScoreKind] = "probability"

    @property
    def of_counts(self) -> bool:
        """Whether features are counts: MLlib's model fails on one that is negative, or no number."""
        return not self.sigma.size

    def score(self, features: np.ndarray) -> np.ndarray:
        """Features of shape (n, width) → probabilities, float64 of shape (n, k)."""
        rows = features.astype(np.float64)
        if self.of_counts:
            return softmax_rows(rows @ self.theta.T + (self.pi if self.prior else 0.0))
        raw = np.empty((len(rows), len(self.pi)))
        for index, (mean, variance) in enumerate(zip(self.theta, self.sigma, strict=True)):
            squares = ((rows - mean) ** 2 / variance).sum(axis=1)
            raw[:, index] = self.pi[index] - (squares + np.log(variance).sum()) / 2
        return softmax_rows(raw)


@dataclass(frozen=True, eq=False)
class PerceptronHead(ArraysHead):
    """A perceptron of sigmoid layers and a softmax: of these sizes, with all `weights` in a row."""

    layers: np.ndarray
    weights: np.ndarray

    kind: ClassVar[str] = "perceptron"
    gives: ClassVar[ScoreKind] = "probability"

    def score(self, features: np.ndarray) -> np.ndarray:
        """Features of shape (n, width) → probabilities, float64 of shape (n, k)."""
        values = features.astype(np.float64)
        for place, (matrix, bias) in enumerate(self.affine()):
            values = values @ matrix + bias
            if place < len(self.layers) - 2:
                with np.errstate(over="ignore"):
                    values = 1 / (1 + np.exp(-values))
        return softmax_rows(values)

    def affine(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each step a matrix of shape (inputs, outputs) and a bias of shape (outputs,)."""
        steps, start = [], 0
        for inputs, outputs in zip(self.layers[:-1].tolist(), self.layers[1:].tolist(), strict=True):
            middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
            steps.append((self.weights[start:middle].reshape(inputs, outputs), self.weights[middle:end]))
            start = end
        return steps


@dataclass(frozen=True, eq=False)
class FactorizationHead(ArraysHead):
    """One factorization machine for each class against the rest.

    `intercepts` has the shape (k,), `linear` (k, width), `factors` (k, width, factorSize).

    References
    ----------
    S. Rendle, "Factorization Machines", ICDM 2010, equation 5.
    """

    intercepts: np.ndarray
    linear: np.ndarray
    factors: np.ndarray

    kind: ClassVar[str] = "factorization"
    gives: ClassVar[ScoreKind] = "decision"

    def score(self, features: np.ndarray) -> np.ndarray:
        """Features of shape (n, width) → what is above 0 for the class, float64 of shape (n, k)."""
        rows = features.astype(np.float64)
        raw: np.ndarray = rows @ self.linear.T + self.intercepts
        squares = rows**2
        for index, factors in enumerate(self.factors):
            raw[:, index] += ((rows @ factors) ** 2 - squares @ factors**2).sum(axis=1) / 2
        return raw
