"""MLlib's `LogisticRegression` in one process: the same optimizer on the same objective, step for step.

What it knows is in MLlib's documentation (the guide's "Classification and regression" and "Linear methods",
and `org.apache.spark.ml.classification.LogisticRegression`: losses, elastic net, standardization, first
intercepts); the optimizers are Breeze's (`optimizers`). Sums are taken in another order than MLlib's, whose
rows are in other blocks: that is the whole difference, about 1e-13 of the objective. Where a fit is so
badly posed that MLlib's depends on how many partitions its rows are in, this one differs from it as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuner.classifiers.linear import LinearHead, softmax
from tuner.classifiers.optimizers import Stop, minimize
from tuner.classifiers.standardized import Blocks, Standardized


@dataclass(frozen=True, eq=False)
class LogisticRegressionFit(LinearHead):
    """What MLlib's `LogisticRegressionModel` and its summary hold.

    Attributes
    ----------
    objectiveHistory
        The objective at the start and after each iteration.
    stop
        Why the fit ended.
    """

    objectiveHistory: list[float]
    stop: Stop | Literal["one class only"]

    @property
    def iterations(self) -> int:
        """MLlib's `totalIterations`, which counts line searches that failed."""
        return len(self.objectiveHistory) - 1


def fit(
    table: Standardized,
    label_index: np.ndarray,
    *,
    classes: int,
    regParam: float,
    elasticNetParam: float,
    maxIter: int,
    tol: float = 1e-6,
) -> LogisticRegressionFit:
    """Fit as `pyspark.ml.classification.LogisticRegression` does with these parameters and its defaults.

    Parameters
    ----------
    table
        The rows, with their weights.
    label_index
        Whole numbers in [0, classes) of shape (n,).
    classes
        As many as the label column declares to MLlib, which without that counts up to the greatest label.
        Not every class need be in the rows. If one alone is, it is certain, and nothing is fitted. (If two
        are declared it is always the second that is certain: MLlib has it so.)
    regParam, elasticNetParam, maxIter, tol
        MLlib's.

    Raises
    ------
    ValueError
        Labels do not fit the rows or the classes.
    """
    label = np.asarray(label_index).astype(np.int64)
    if label.shape != (len(table.features),) or label.min() < 0 or label.max() >= classes:
        raise ValueError(f"Labels are whole numbers from 0 to {classes - 1}, one a row of the features.")
    histogram = np.bincount(label, weights=table.weights)
    vectors, width = classes if classes > 2 else 1, table.features.shape[1]
    if np.count_nonzero(histogram) == 1:
        intercepts = np.zeros(vectors)
        intercepts[label[0] if vectors > 1 else 0] = np.inf if classes > 1 else -np.inf
        return LogisticRegressionFit(np.zeros((vectors, width)), intercepts, [0.0], "one class only")

    objective = _Objective(table, label, vectors, l2=regParam * (1 - elasticNetParam))
    start = np.zeros(vectors * (width + 1))
    objective.split(start)[1][:] = _first_intercepts(histogram, vectors)
    l1 = None
    if regParam != 0 and elasticNetParam != 0:
        l1 = np.zeros_like(start)
        objective.split(l1)[0][:] = regParam * elasticNetParam
    found = minimize(objective, start, maxIter=maxIter, tol=tol, l1=l1)

    scaled, centred = objective.split(found.x)
    coefficients, intercepts = scaled * objective.inverse_std, centred - scaled @ objective.scaled_mean
    if vectors > 1:
        # What is added to all classes changes no probability: MLlib centres it. (Without regularisation
        # coefficients too, but they are centred then: over the classes, gradients add up to 0.)
        intercepts -= intercepts.mean()
    return LogisticRegressionFit(coefficients, intercepts, found.objectiveHistory, found.stop)


def _first_intercepts(histogram: np.ndarray, vectors: int) -> np.ndarray:
    """Intercepts that give the classes' shares in the rows; 0 for those after the greatest label."""
    if vectors == 1:
        return np.log(histogram[1:] / histogram[0])
    logs = np.log1p(histogram)  # 1 more of each class, as in MLlib
    return np.pad(logs - logs.mean(), (0, vectors - len(logs)))


class _Objective:
    """Mean log loss and `l2` / 2 times the squared norm, of coefficients for standardised features.

    A point holds the coefficients, one vector after the other, then the intercepts.
    """

    def __init__(self, table: Standardized, label: np.ndarray, vectors: int, l2: float) -> None:
        self.table, self.label, self.vectors, self.l2 = table, label, vectors, l2
        self.inverse_std = np.divide(1.0, table.std, out=np.zeros_like(table.std), where=table.std != 0)
        self.scaled_mean = table.mean * self.inverse_std
        self._blocks = Blocks(table.features, beside=vectors)

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients, of shape (vectors, width), and intercepts: views of a point."""
        return x[: -self.vectors].reshape(self.vectors, -1), x[-self.vectors :]

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients, intercepts = self.split(x)
        # Rows are not standardised: what they are multiplied by is, and so is the gradient, as in MLlib.
        slopes, offsets = coefficients * self.inverse_std, intercepts - coefficients @ self.scaled_mean
        if self.vectors > 1:
            # Softmax knows differences only. Measuring from the last class saves one product in `vectors`.
            slopes, offsets = slopes[:-1] - slopes[-1], offsets[:-1] - offsets[-1]
        free = len(slopes)
        gradient, loss = np.zeros_like(x), 0.0
        of_coefficients, of_intercepts = self.split(gradient)
        for rows, block in self._blocks:
            margins = np.zeros((self.vectors, len(block)))
            np.matmul(slopes, block.T, out=margins[:free])
            margins[:free] += offsets[:, None]
            loss += self._lose(margins, rows)
            of_intercepts += margins.sum(axis=1)
            of_coefficients[:free] += margins[:free] @ block
        of_coefficients[:free] *= self.inverse_std
        of_coefficients[:free] -= np.outer(of_intercepts[:free], self.scaled_mean)
        of_coefficients[free:] = -of_coefficients[:free].sum(axis=0)  # a row's multipliers add up to 0
        gradient /= self.table.total
        of_coefficients += self.l2 * coefficients
        return loss / self.table.total + self.l2 / 2 * np.vdot(coefficients, coefficients), gradient

    def _lose(self, margins: np.ndarray, rows: slice) -> float:
        """Turn margins of some rows into the gradient's multipliers, in place; return the rows' loss."""
        label, weights = self.label[rows], self.table.weights
        if self.vectors == 1:
            margin = margins[0]
            losses = np.logaddexp(0, -margin) + np.where(label == 0, margin, 0)
            margin[:] = 1 / (1 + np.exp(-margin)) - label
        else:
            of_label = label, np.arange(len(label))
            losses = -np.log(softmax(margins)[of_label])
            margins[of_label] -= 1
        if weights is None:
            return losses.sum()
        margins *= weights[rows]
        return weights[rows] @ losses
