"""A fitted classifier as the layers of a neural network, if it is one: affine maps with activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tuner.classifiers.heads.files import Head
from tuner.classifiers.heads.mllib import FactorizationHead, MarginsHead, NaiveBayesHead, PerceptronHead
from tuner.classifiers.heads.steps import Step, SteppedHead
from tuner.classifiers.linear import LinearHead
from tuner.classifiers.rows.row import NORMALIZER
from tuner.classifiers.scikit import LEAST_SCORE, SklearnHead

Activation = Literal["linear", "sigmoid", "softmax"]


@dataclass(frozen=True, eq=False)
class Dense:
    """`values @ matrix + bias`, of float64 shapes (inputs, outputs) and (outputs,), then an activation."""

    matrix: np.ndarray
    bias: np.ndarray
    activation: Activation


@dataclass(frozen=True, eq=False)
class Layers:
    """What makes the scores of features, one layer after the other.

    Attributes
    ----------
    unit
        Whether each image's features are divided by their L2 norm first.
    dense
        One layer, or those of a perceptron.
    """

    unit: bool
    dense: tuple[Dense, ...]


def layers_of(head: Head) -> Layers | None:
    """The layers that give a head's scores; None if it is neither linear nor a perceptron.

    Affine steps before a classifier are one map with it: a scaler or PCA costs no layer.
    """
    if isinstance(head, SklearnHead):
        return _of_sklearn(head)
    if isinstance(head, SteppedHead):
        inner = layers_of(head.head)
        return None if inner is None else _stepped(head.step, inner)
    if isinstance(head, PerceptronHead):
        *hidden, (matrix, bias) = head.affine()
        last = Dense(matrix, bias, "softmax")
        return Layers(unit=False, dense=(*(Dense(*step, "sigmoid") for step in hidden), last))
    if isinstance(head, LinearHead):
        # Infinity less infinity is no number; the largest one less itself is 0.
        bias = np.clip(head.intercepts, LEAST_SCORE, -LEAST_SCORE)
        matrix, bias = _two_columns(head.coefficients.T, bias, "softmax")
        return _one(matrix, bias, "softmax")
    if isinstance(head, MarginsHead):
        return _one(head.coefficients.T, head.intercepts, "linear")
    if isinstance(head, FactorizationHead) and not head.factors.any():
        return _one(head.linear.T, head.intercepts, "linear")
    if isinstance(head, NaiveBayesHead) and head.of_counts:
        return _one(head.theta.T, head.pi if head.prior else np.zeros_like(head.pi), "softmax")
    return None


def _one(matrix: np.ndarray, bias: np.ndarray, activation: Activation, unit: bool = False) -> Layers:
    return Layers(unit, (Dense(matrix, bias, activation),))


def _stepped(step: Step, inner: Layers) -> Layers:
    """The layers of a classifier of MLlib's with the step before it."""
    if step.name == NORMALIZER:
        return Layers(unit=True, dense=inner.dense)
    first, *rest = inner.dense
    return Layers(False, (Dense(*step.folded(first.matrix, first.bias), first.activation), *rest))


def _two_columns(
    matrix: np.ndarray, bias: np.ndarray, activation: Activation
) -> tuple[np.ndarray, np.ndarray]:
    """Of two classes, the second's column alone is given: the first's is 0, or the other way round."""
    if matrix.shape[1] > 1:
        return matrix, bias
    first = 0.0 if activation == "softmax" else -1.0
    return np.hstack([first * matrix, matrix]), np.concatenate([first * bias, bias])


def _of_sklearn(head: SklearnHead) -> Layers | None:
    from sklearn.linear_model import LogisticRegression

    before, classifier = (step for _, step in head.pipeline.steps)
    if not hasattr(classifier, "coef_"):
        return None
    activation: Activation = "linear"
    if head.gives == "probability":
        if not isinstance(classifier, LogisticRegression):
            return None  # others make probabilities of decision values in ways of their own
        activation = "softmax"
    # Of two classes, RidgeClassifier has a vector and a number.
    coefficients, intercepts = np.atleast_2d(classifier.coef_), np.atleast_1d(classifier.intercept_)
    known = _two_columns(coefficients.T, intercepts, activation)
    matrix, bias = np.zeros((len(known[0]), head.classes)), np.full(head.classes, LEAST_SCORE)
    matrix[:, classifier.classes_], bias[classifier.classes_] = known
    return _after(before, matrix, bias, activation)


def _after(before: Any, matrix: np.ndarray, bias: np.ndarray, activation: Activation) -> Layers | None:
    """A step of scikit-learn and the layer after it, as one."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import Normalizer, StandardScaler

    if before == "passthrough":
        return _one(matrix, bias, activation)
    if isinstance(before, Normalizer) and before.norm == "l2":
        return _one(matrix, bias, activation, unit=True)
    if isinstance(before, StandardScaler):
        matrix = matrix / before.scale_[:, None]
    elif isinstance(before, PCA) and not before.whiten:
        matrix = before.components_.T @ matrix
    else:
        return None
    return _one(matrix, bias - before.mean_ @ matrix, activation)
