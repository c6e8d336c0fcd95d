"""River's logistic regression, one class against the rest, behind a running `StandardScaler`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tuner.classifiers.scikit import LEAST_SCORE, SklearnHead, joined
from tuner.learning.learner import LearnerSetting

_FILE = "river.npz"
_SCALER = ("mean_", "var_", "scale_", "n_samples_seen_")


class RiverLearner:
    """A `Learner`, as `tuner.learning.learner.Learner` says.

    The scaler is scikit-learn's, which has the mean and the variance that River's has, and is steady: of a
    batch River takes the mean of squares less the square of the mean, which of a feature that hardly varies
    is rounding, and may be below 0. What was learned is a linear map and a sigmoid for each class: so it is
    kept as arrays, and scores as scikit-learn's `SGDClassifier` of the same loss does, without River.

    References
    ----------
    `river.multiclass.OneVsRestClassifier`, `river.linear_model.LogisticRegression`,
    `sklearn.linear_model.SGDClassifier.predict_proba`.
    """

    def __init__(self, setting: LearnerSetting) -> None:
        from river.multiclass import OneVsRestClassifier
        from sklearn.preprocessing import StandardScaler

        self._setting = setting
        self._names = [str(place) for place in range(setting.width)]
        self._scaler = StandardScaler()
        self._model: Any = OneVsRestClassifier(self._one())

    def _one(self) -> Any:
        from river import linear_model, optim

        values: dict[str, Any] = dict(self._setting.values)
        optimizer = optim.SGD(values.pop("lr")) if "lr" in values else optim.SGD()
        return linear_model.LogisticRegression(optimizer=optimizer, **values)

    def learn(self, features: np.ndarray, label_index: np.ndarray) -> None:
        """Learn a batch, by one step of the gradient or by one an image."""
        rows = np.asarray(features, np.float64)
        with np.errstate(over="ignore"):  # exp of a margin that is large: the gradient is 0
            if self._setting.step == "batch":
                scaled = self._scaler.partial_fit(rows).transform(rows)
                self._model.learn_many(pd.DataFrame(scaled, columns=self._names), pd.Series(label_index))
                return
            for row, label in zip(rows, label_index.tolist(), strict=True):
                (scaled,) = self._scaler.partial_fit(row[None]).transform(row[None]).tolist()
                self._model.learn_one(dict(zip(self._names, scaled, strict=True)), label)

    def head(self) -> SklearnHead:
        """What it computes now."""
        from sklearn.linear_model import SGDClassifier

        classes = self._setting.classes
        classifier = SGDClassifier(loss="log_loss")
        classifier.coef_ = np.zeros((classes, self._setting.width))
        classifier.intercept_ = np.full(classes, LEAST_SCORE)  # of a class that was not there yet
        for label, one in self._model.classifiers.items():
            classifier.coef_[label], classifier.intercept_[label] = self._weights(one), one.intercept
        classifier.classes_, classifier.n_features_in_ = np.arange(classes), self._setting.width
        return SklearnHead(joined(self._scaler, classifier), classes)

    def write(self, folder: Path) -> None:
        """Write the numbers of scaler and classifiers."""
        known = self._model.classifiers
        scaler: dict[str, Any] = {name: np.asarray(getattr(self._scaler, name)) for name in _SCALER}
        np.savez(
            folder / _FILE,
            labels=np.array(list(known), np.int64),
            weights=np.array([self._weights(one) for one in known.values()]),
            intercepts=np.array([one.intercept for one in known.values()], np.float64),
            iterations=np.array([one.optimizer.n_iterations for one in known.values()], np.int64),
            **scaler,
        )

    def read(self, folder: Path) -> None:
        """Take up what `write` wrote."""
        from river.utils import VectorDict

        with np.load(folder / _FILE, allow_pickle=False) as kept:
            for name in _SCALER:
                setattr(self._scaler, name, kept[name][()])
            self._scaler.n_features_in_ = self._setting.width
            columns = (kept[name].tolist() for name in ("labels", "weights", "intercepts", "iterations"))
            for label, weights, intercept, iterations in zip(*columns, strict=True):
                one = self._one()
                # River shows a model's weights, and takes none: there is no public way to set them.
                one._weights = VectorDict(dict(zip(self._names, weights, strict=True)))
                one.intercept, one.optimizer.n_iterations = intercept, iterations
                self._model.classifiers[label] = one

    def _weights(self, one: Any) -> np.ndarray:
        weights = one.weights
        return np.array([weights.get(name, 0.0) for name in self._names], np.float64)
