"""The steps before MLlib's classifiers: fitted and applied as MLlib does, and heads that begin with one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from tuner.base.choices import ScoreKind
from tuner.classifiers.heads.files import Head, read_head
from tuner.classifiers.rows.row import NORMALIZER, PCA, STANDARD_SCALER
from tuner.classifiers.standardized import Blocks, Standardized


@dataclass(frozen=True, eq=False)
class Step:
    """What MLlib's `StandardScalerModel`, `Normalizer` or `PCAModel` computes.

    The scaler centres (`withMean`) and divides by the sample deviation, of n - 1; a feature without any
    becomes 0. PCA finds its directions in centred features, as scikit-learn's does, but does not centre
    what it projects: each component is scikit-learn's plus a constant.

    Attributes
    ----------
    name
        `StandardScaler`, `Normalizer` or `PCA`.
    numbers
        float64, by MLlib's names: `mean` and `std` of a scaler, of shape (width,); of PCA `pc`, of shape
        (width, k), and `explainedVariance`, (k,).

    References
    ----------
    In `org.apache.spark.ml.feature`: `StandardScalerModel`, `Normalizer`, `PCAModel`;
    `org.apache.spark.mllib.linalg.distributed.RowMatrix.computePrincipalComponentsAndExplainedVariance`.
    """

    name: str
    numbers: Mapping[str, np.ndarray]

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Features of shape (n, width) → float64 of shape (n, width) or, of PCA, (n, k)."""
        rows = np.asarray(features, np.float64)
        if self.name == NORMALIZER:
            length = np.linalg.norm(rows, axis=1, keepdims=True)
            return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
        if self.name == STANDARD_SCALER:
            scaled: np.ndarray = (rows - self.numbers["mean"]) * self._scale
            return scaled
        components: np.ndarray = rows @ self.numbers["pc"]
        return components

    def folded(self, matrix: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `apply(features) @ matrix + bias` is of the features themselves; not of a `Normalizer`."""
        if self.name == STANDARD_SCALER:
            matrix = self._scale[:, None] * matrix
            return matrix, bias - self.numbers["mean"] @ matrix
        return self.numbers["pc"] @ matrix, bias

    @property
    def _scale(self) -> np.ndarray:
        std = self.numbers["std"]
        return np.divide(1.0, std, out=np.zeros_like(std), where=std != 0)


def fit_step(name: str, features: np.ndarray, components: int = 0) -> Step:
    """Fit a step as MLlib does; a component's sign, which nothing decides, may be the other.

    Parameters
    ----------
    name
        `StandardScaler`, `Normalizer` or `PCA`.
    features
        Floats of shape (n, width), all of them finite.
    components
        PCA's `k`, at most the width.
    """
    if name == NORMALIZER:
        return Step(name, {})
    table = Standardized(features)
    if name == STANDARD_SCALER:
        return Step(name, {"mean": table.mean, "std": table.std})
    from scipy.linalg import eigh  # not needed where models are served

    width = features.shape[1]
    scatter = np.zeros((width, width))
    for _, block in Blocks(features):
        centred = block - table.mean
        scatter += centred.T @ centred
    values, vectors = eigh(scatter, subset_by_index=[width - components, width - 1])
    total = np.trace(scatter)
    shares = values[::-1] / total if total else np.zeros(components)
    return Step(PCA, {"pc": vectors[:, ::-1].copy(), "explainedVariance": shares})


@dataclass(frozen=True, eq=False)
class SteppedHead:
    """A step, and a classifier of MLlib's that takes what the step gives."""

    step: Step
    head: Head

    kind: ClassVar[str] = "stepped"
    _DESCRIPTION: ClassVar[str] = "step.json"
    _NUMBERS: ClassVar[str] = "step.npz"
    _FOLDER: ClassVar[str] = "classifier"

    @property
    def gives(self) -> ScoreKind:
        """What the scores are."""
        return self.head.gives

    def score(self, features: np.ndarray) -> np.ndarray:
        """Features of shape (n, width) → float64 of shape (n, k)."""
        return self.head.score(self.step.apply(features))

    def write(self, folder: Path) -> None:
        """Write the step to a folder that is there, and the classifier to one in it."""
        described = {"step": self.step.name, "classifier": self.head.kind}
        (folder / self._DESCRIPTION).write_text(json.dumps(described), encoding="utf-8")
        numbers: dict[str, np.ndarray] = dict(self.step.numbers)
        np.savez(folder / self._NUMBERS, **numbers)  # type: ignore[arg-type]  # numpy's own flag is none of them
        (folder / self._FOLDER).mkdir()
        self.head.write(folder / self._FOLDER)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote; what is no array of numbers is refused by NumPy."""
        described = json.loads((folder / cls._DESCRIPTION).read_text(encoding="utf-8"))
        with np.load(folder / cls._NUMBERS, allow_pickle=False) as arrays:
            step = Step(described["step"], dict(arrays))
        return cls(step, read_head(folder / cls._FOLDER, described["classifier"]))


def step_and_head(head: Head) -> tuple[Step | None, Head]:
    """The step before a classifier of MLlib's, or None, and the classifier itself."""
    return (head.step, head.head) if isinstance(head, SteppedHead) else (None, head)
