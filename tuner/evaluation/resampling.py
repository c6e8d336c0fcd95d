"""How sure a gain is: a metric's change from one model to another, on images drawn again.

A draw is told by how often it has each image, and every metric is a function of these counts; so many draws
are evaluated at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import DegenerateDataWarning, bootstrap

from tuner.base.choices import LOWER_IS_BETTER, Metric
from tuner.evaluation.metrics import EPSILON, positive_classes, quotient

MEANS: frozenset[str] = frozenset({"accuracy", "weightedRecall", "logLoss"})  # means over images

_MOST_DRAWS, _FEWEST_DRAWS = 10_000, 200
_WORK = 5e7  # of an interval, in images that are drawn and counted, 30 ns each: a second or two
_COUNTS = 2**22  # held at once, images times draws
_FEW = 64  # images of a class: up to here a product with each of them is cheaper than a sum in order
_ROWS = 256

Measure = Callable[
    [np.ndarray], np.ndarray
]  # counts, float32 of shape (n, draws) → values of shape (draws,)


def gains_on_draws(
    metric: Metric, truth: np.ndarray, champion: np.ndarray, challenger: np.ndarray, seed: int
) -> np.ndarray:
    """By how much the challenger is better on images drawn with replacement, the same for both models.

    Parameters
    ----------
    truth
        The classes of the n images, int of shape (n,); n of 2 or more.
    champion, challenger
        Probabilities, float64 of shape (n, k).
    seed
        Decides the draws.

    Returns
    -------
    The gain in each draw, float64; NaN where the metric is not defined on it.

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    images = len(truth)
    before, after = (_measure(metric, truth, scores) for scores in (champion, challenger))
    sign = -1 if metric in LOWER_IS_BETTER else 1

    def gains(drawn: np.ndarray, axis: int) -> np.ndarray:  # noqa: ARG001  # SciPy gives the last one
        counts = _counts(np.atleast_2d(drawn), images)
        return sign * (after(counts) - before(counts))

    with warnings.catch_warnings():
        # Of draws on which the metric is not defined: they are no part of what is made of the others.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            (np.arange(images),),
            gains,
            n_resamples=_draws(metric, truth, champion.shape[1]),
            batch=max(1, _COUNTS // images),
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return np.asarray(found.bootstrap_distribution)


def _draws(metric: Metric, truth: np.ndarray, classes: int) -> int:
    """How many draws there is time for."""
    work = float(len(truth))  # of one draw
    if metric == "roc_auc":
        sizes = np.bincount(truth, minlength=classes)[positive_classes(truth, classes)]
        work += len(truth) * float(np.minimum(sizes, _FEW).sum()) / 150  # comparing costs as much less
    elif metric not in MEANS:
        work *= 4
    return int(np.clip(_WORK / work, _FEWEST_DRAWS, _MOST_DRAWS))


def _counts(drawn: np.ndarray, images: int) -> np.ndarray:
    """The numbers of drawn images, of shape (draws, n) → how often each was drawn, of shape (n, draws)."""
    draws = len(drawn)
    places = drawn * draws + np.arange(draws)[:, None]
    counts = np.bincount(places.ravel(), minlength=images * draws)
    return counts.reshape(images, draws).astype(np.float32)


def _measure(metric: Metric, truth: np.ndarray, probability: np.ndarray) -> Measure:
    prediction = probability.argmax(axis=1)
    if metric == "logLoss":
        of_truth = probability[np.arange(len(truth)), truth]
        return _mean(-np.log(np.clip(of_truth, EPSILON, 1 - EPSILON)))
    if metric in MEANS:
        return _mean((prediction == truth).astype(np.float64))
    if metric == "roc_auc":
        return _areas(truth, probability)
    return _weighted(metric, truth, prediction, probability.shape[1])


def _mean(values: np.ndarray) -> Measure:
    return lambda counts: values @ counts / len(values)


def _members(classes: np.ndarray, number: int) -> csr_array:
    """Sums over the images of each class, as a matrix of shape (number, n); a class of -1 is none."""
    images = np.flatnonzero(classes >= 0)
    ones = np.ones(len(images))
    return csr_array((ones, (classes[images], images)), shape=(number, len(classes)))


def _weighted(metric: Metric, truth: np.ndarray, prediction: np.ndarray, classes: int) -> Measure:
    """`f1` or `weightedPrecision`: of each class, averaged with its images as weights."""
    support_of = _members(truth, classes)
    predicted_of = _members(prediction, classes)
    right_of = _members(np.where(prediction == truth, truth, -1), classes)

    def value(counts: np.ndarray) -> np.ndarray:
        support, predicted, right = support_of @ counts, predicted_of @ counts, right_of @ counts
        f1 = metric == "f1"
        scores = quotient(2 * right, support + predicted) if f1 else quotient(right, predicted)
        return (support * scores).sum(axis=0) / len(truth)

    return value


def _areas(truth: np.ndarray, probability: np.ndarray) -> Measure:
    """`roc_auc`: a class's area is the share of its pairs with other images that are in the right order.

    Images are compared with each other once, not ranked in each draw: of an image of a class, its counted
    pairs are those with images of a lower score; of a large class, sums in the order of the scores.
    """
    classes, scores = probability.shape[1], np.ascontiguousarray(probability.T)
    positive = positive_classes(truth, classes)
    members = _members(truth, classes)
    sizes = np.bincount(truth, minlength=classes)
    large = [index for index in positive if sizes[index] > _FEW]
    small = np.flatnonzero(np.isin(truth, positive) & (sizes[truth] <= _FEW))

    def value(counts: np.ndarray) -> np.ndarray:
        won = np.zeros((classes, counts.shape[1]))
        for start in range(0, len(small), _ROWS):
            rows = small[start : start + _ROWS]
            won += members[:, rows] @ (counts[rows] * (_lower(truth, scores, rows) @ counts))
        for index in large:
            won[index] = _won_in_order(truth == index, scores[index], counts)
        own = members @ counts
        pairs = own * (len(truth) - own)
        defined = (pairs > 0)[positive].sum(axis=0)
        areas = quotient(won, pairs)[positive].sum(axis=0)
        return np.divide(areas, defined, out=np.full(len(defined), np.nan), where=defined > 0)

    return value


def _lower(truth: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of each row's image and class, the images of other classes with a lower score: 1, equal: 1/2."""
    classes = truth[rows]
    others, own = scores[classes], scores[classes, rows][:, None]
    lower = (others < own).astype(np.float32) + np.float32(0.5) * (others == own)
    lower[classes[:, None] == truth] = 0
    return lower


def _won_in_order(own: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The pairs of one class's images with others of a lower score, in each draw."""
    rest = np.flatnonzero(~own)
    rest = rest[np.argsort(scores[rest])]
    below = np.zeros((len(rest) + 1, counts.shape[1]))
    np.cumsum(counts[rest], axis=0, out=below[1:])
    low, high = (np.searchsorted(scores[rest], scores[own], side) for side in ("left", "right"))
    return np.asarray((counts[own] * (below[low] + below[high])).sum(axis=0) / 2)
