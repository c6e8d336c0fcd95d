"""What MLlib's decision trees, random forests and boosted trees compute, from their nodes; no Spark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tuner.base.choices import ScoreKind
from tuner.classifiers.heads.files import ArraysHead


@dataclass(frozen=True, eq=False)
class TreesHead(ArraysHead):
    """Trees that add up.

    Attributes
    ----------
    feature, threshold, left, right
        Of shape (nodes,), of all trees in a row: an image goes left where its feature is at most the
        threshold; -1 marks a leaf's feature. `left` and `right` are places in these arrays.
    value
        float64 of shape (nodes, k): what a leaf adds to each class, a tree's weight included.
    roots
        The place of each tree's root.
    shares
        Whether the sums are shares of votes, which are made to add up to 1; else they are decision values.

    References
    ----------
    In `org.apache.spark.ml.classification`: `DecisionTreeClassificationModel`,
    `RandomForestClassificationModel.predictRaw`, `GBTClassificationModel.predictRaw`.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    roots: np.ndarray
    shares: np.ndarray

    kind: ClassVar[str] = "trees"

    @property
    def gives(self) -> ScoreKind:
        """What the scores are."""
        return "probability" if self.shares else "decision"

    def score(self, features: np.ndarray) -> np.ndarray:
        """Features of shape (n, width) → float64 of shape (n, k)."""
        rows = np.arange(len(features))
        sums = np.zeros((len(features), self.value.shape[1]))
        for root in self.roots.tolist():
            place = np.full(len(features), root)
            while (inner := self.feature[place] >= 0).any():
                at = place[inner]
                value = features[rows[inner], self.feature[at]].astype(np.float64)
                place[inner] = np.where(value <= self.threshold[at], self.left[at], self.right[at])
            sums += self.value[place]
        if self.shares:
            sums /= sums.sum(axis=1, keepdims=True)
        return sums
