"""Labelled rows of features, made from a seed."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Rows:
    features: np.ndarray
    label_index: np.ndarray
    classes: int
    weights: np.ndarray | None = None

    def __repr__(self) -> str:  # thousands of numbers would hide what else a failing example has
        found = np.bincount(self.label_index, minlength=self.classes)
        weighted = "" if self.weights is None else ", weighted"
        return f"Rows({self.features.shape}, labels {found}{weighted})"


def sample(
    seed: int,
    rows: int,
    width: int,
    classes: int,
    *,
    kind: str = "dense",
    weighted: bool = False,
    signal: float = 1.0,
) -> Rows:
    """Rows of classes that overlap, less so with more signal; features are off 0 and of several scales."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, width)) * np.exp(rng.normal(size=width)) + rng.normal(size=width)
    if kind == "half zero":
        features = np.maximum(features, 0)
    elif kind == "constant column":
        # Another constant than 0 deviates in MLlib if rows are weighted: that has a test of its own.
        features[:, rng.integers(width)] = 0 if weighted else rng.normal()
    features = features.astype(np.float32)
    scores = features @ rng.normal(size=(width, classes)) * signal + rng.gumbel(size=(rows, classes))
    weights = np.exp(rng.normal(size=rows)) if weighted else None
    return Rows(features, scores.argmax(axis=1), classes, weights)
