"""scikit-learn's classifiers with `partial_fit`, behind a running `StandardScaler` or, of counts, none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tuner.classifiers.scikit import SklearnHead, joined, make_classifier
from tuner.learning.learner import LearnerSetting

_NONE = "passthrough"


class SklearnLearner:
    """A `Learner`, as `tuner.learning.learner.Learner` says."""

    def __init__(self, setting: LearnerSetting) -> None:
        from sklearn.preprocessing import StandardScaler

        self._classes = setting.classes
        self._scaler: Any = _NONE if setting.row.of_counts else StandardScaler()
        self._classifier = make_classifier(setting.row, setting.values, setting.seed)

    def learn(self, features: np.ndarray, label_index: np.ndarray) -> None:
        """Learn a batch."""
        rows = np.asarray(features, np.float64)
        if self._scaler != _NONE:
            rows = self._scaler.partial_fit(rows).transform(rows)
        with np.errstate(divide="ignore"):  # naive Bayes, of the share of a class that was not there yet
            self._classifier.partial_fit(rows, label_index, classes=np.arange(self._classes))

    def head(self) -> SklearnHead:
        """What it computes now."""
        return SklearnHead(joined(self._scaler, self._classifier), self._classes)

    def write(self, folder: Path) -> None:
        """Write scaler and classifier by skops."""
        self.head().write(folder)

    def read(self, folder: Path) -> None:
        """Take up what `write` wrote."""
        (_, self._scaler), (_, self._classifier) = SklearnHead.read(folder).pipeline.steps
