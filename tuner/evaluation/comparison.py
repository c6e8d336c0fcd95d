"""Two models on the same images: how far they differ, what of it is chance, and what the gate says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from tuner.base.choices import NEEDS_PROBABILITY, Metric, ScoreKind, gain_of
from tuner.base.errors import ModelError, TrialError
from tuner.evaluation.metrics import Evaluation, evaluate
from tuner.evaluation.resampling import gains_on_draws
from tuner.experiment.schema import Gate

NOISE = 0.05  # a difference that chance makes more often than this is said to be within noise
_RIGHT_OR_WRONG = ("accuracy", "weightedRecall")  # metrics that only ask whether an image is right
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Comparison:
    """A champion and a challenger on the same n labelled images.

    Attributes
    ----------
    champion, challenger
        What each is worth on them.
    metric
        What they are compared by.
    gain
        By how much the challenger is better in it, whichever way is better; negative if worse.
    interval
        The 95 % bootstrap interval of `gain`: images drawn again, the same ones for both models.
    champion_only, challenger_only
        How many images one of them gets right and the other does not.
    p_value
        McNemar's exact test, two-sided: how likely such counts, or less even ones, are between models
        that are right equally often.
    gain_p_value
        How likely a gain or loss of this size is by chance: of accuracy and weightedRecall `p_value`, of
        other metrics twice the share of the bootstrap's draws that lie on the other side of 0.
    recall_change
        By class, the challenger's recall less the champion's; classes without images are left out.
    disagreements
        The images that the models call differently: `path`, `label`, `champion`, `challenger`.
    """

    champion: Evaluation
    challenger: Evaluation
    metric: Metric
    gain: float
    interval: tuple[float, float]
    champion_only: int
    challenger_only: int
    p_value: float
    gain_p_value: float
    recall_change: dict[str, float]
    disagreements: pd.DataFrame

    @property
    def images(self) -> int:
        """How many images were compared."""
        return int(self.champion.confusion.sum())

    @property
    def within_noise(self) -> bool:
        """Whether chance alone may well make such a difference."""
        return self.gain_p_value > NOISE

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        return {
            "images": self.images,
            "metric": self.metric,
            "champion": self.champion.metrics,
            "challenger": self.challenger.metrics,
            "gain": self.gain,
            "interval_95": list(self.interval),
            "disagreements": len(self.disagreements),
            "champion_only_correct": self.champion_only,
            "challenger_only_correct": self.challenger_only,
            "mcnemar_p": self.p_value,
            "gain_p": self.gain_p_value,
            "within_noise": self.within_noise,
            "recall_change": self.recall_change,
        }


@dataclass(frozen=True)
class Decision:
    """What the gate says; `reasons` are the sentences that explain it."""

    passed: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.reasons)


def compare(
    path: Sequence[str],
    label_index: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    labels: Sequence[str],
    *,
    metric: Metric = "accuracy",
    gives: tuple[ScoreKind, ScoreKind] = ("probability", "probability"),
    seed: int = 0,
) -> Comparison:
    """Compare two models' scores on the same images.

    Parameters
    ----------
    path
        The n images.
    label_index
        Their true classes as whole numbers in [0, k), of shape (n,).
    champion, challenger
        Floats of shape (n, k).
    labels
        The k class names.
    metric
        What to compare them by.
    gives
        What the scores of each are.
    seed
        Decides the bootstrap's draws.

    Raises
    ------
    ModelError
        The metric is not defined on these images or for one of the models, or a score is not a number.

    References
    ----------
    McNemar, Psychometrika 12 (1947), in its exact form; Efron and Tibshirani, An Introduction to the
    Bootstrap (1993), chapter 13 (percentile interval).
    """
    truth = np.asarray(label_index).astype(np.int64)
    try:
        before, after = (
            evaluate(truth, scores, labels, kind)
            for scores, kind in zip((champion, challenger), gives, strict=True)
        )
    except TrialError as error:
        raise ModelError(f"The models cannot be compared: {error}") from error
    if metric in NEEDS_PROBABILITY and "decision" in gives:
        which = "champion" if gives[0] == "decision" else "challenger"
        raise ModelError(
            f"The metric {metric} needs probabilities, and the {which}'s classifier gives none: set "
            "gate.metric to another one."
        )
    if metric not in before.metrics:
        raise ModelError(
            f"The metric {metric} is not defined on the {len(truth)} images that the models are compared "
            "on: set gate.metric to another one."
        )
    said = champion.argmax(axis=1), challenger.argmax(axis=1)
    right = said[0] == truth, said[1] == truth
    champion_only, challenger_only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    gain = gain_of(metric, before.metrics[metric], after.metrics[metric])
    draws = np.full(1, gain)  # one image drawn again is the same image
    if len(truth) > 1:
        draws = gains_on_draws(metric, truth, champion, challenger, seed)
    low, high = np.nanquantile(draws, [0.025, 0.975])
    p_value = mcnemar(champion_only, challenger_only)
    return Comparison(
        champion=before,
        challenger=after,
        metric=metric,
        gain=gain,
        interval=(float(low), float(high)),
        champion_only=champion_only,
        challenger_only=challenger_only,
        p_value=p_value,
        gain_p_value=p_value if metric in _RIGHT_OR_WRONG else _by_chance(draws),
        recall_change=_recall_change(before, after),
        disagreements=_disagreements(path, truth, *said, labels),
    )


def mcnemar(champion_only: int, challenger_only: int) -> float:
    """McNemar's exact test, two-sided, of the counts of images that one model alone gets right."""
    total = champion_only + challenger_only
    return float(binomtest(challenger_only, total, 0.5).pvalue) if total else 1.0


def _by_chance(draws: np.ndarray) -> float:
    """Twice the share of draws on the other side of 0; the difference itself counts as one of them."""
    known = draws[~np.isnan(draws)]
    share = min((known <= _ROUNDING).sum(), (known >= -_ROUNDING).sum()) + 1
    return float(min(1, 2 * share / (len(known) + 1)))


def _recall_change(before: Evaluation, after: Evaluation) -> dict[str, float]:
    totals = before.confusion.sum(axis=1)
    return {
        label: float((after.confusion[i, i] - before.confusion[i, i]) / totals[i])
        for i, label in enumerate(before.labels)
        if totals[i]
    }


def _disagreements(
    path: Sequence[str],
    truth: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    labels: Sequence[str],
) -> pd.DataFrame:
    names = np.array(labels, dtype=object)
    named = {"label": names[truth], "champion": names[champion], "challenger": names[challenger]}
    table = pd.DataFrame({"path": list(path), **named})
    return table[champion != challenger].reset_index(drop=True)


def decide(gate: Gate, comparison: Comparison) -> Decision:
    """Say whether the challenger takes the champion's place.

    It does if it is better in the metric, by `min_gain` at least, on `min_images` at least and with a
    p-value of at most `max_p_value`, and no class's recall falls by more than `max_regression_per_class`.
    A model that is only as good is not worth a move. A difference within noise is called so.
    """
    found = _found(comparison)
    failures = _too_little(gate, comparison)
    if failures:
        failures[-1] += f": {found}"
    limit = gate.max_regression_per_class
    if limit is not None:
        failures += [
            f"the recall of {label} falls by {-change:.4f}, more than {limit:g}"
            for label, change in comparison.recall_change.items()
            if -change > limit + _ROUNDING
        ]
    return Decision(not failures, tuple(failures) or (f"better: {found}",))


def _found(comparison: Comparison) -> str:
    """The metric of both, and whether they differ by more than chance makes them differ."""
    models, metric = (comparison.challenger, comparison.champion), comparison.metric
    values = " instead of ".join(f"{evaluation.metrics[metric]:.4f}" for evaluation in models)
    found = f"{metric} {values} on {comparison.images} images"
    if comparison.within_noise and abs(comparison.gain) > _ROUNDING:
        found += f", a difference within noise (p = {comparison.gain_p_value:.3g})"
    return found


def _too_little(gate: Gate, comparison: Comparison) -> list[str]:
    """What is wanting of the gain, the images that show it, and their number."""
    gain, p_value = comparison.gain, comparison.gain_p_value
    wanting = []
    if comparison.images < gate.min_images:
        wanting.append(
            f"only {comparison.images} images to compare on, fewer than min_images {gate.min_images}"
        )
    if gain <= _ROUNDING:
        return [*wanting, "no better"]
    if gain < gate.min_gain - _ROUNDING:
        wanting.append(f"the gain of {gain:.4f} is below min_gain {gate.min_gain:g}")
    if gate.max_p_value is not None and p_value > gate.max_p_value:
        wanting.append(f"chance may have made it (p = {p_value:.3g}, max_p_value {gate.max_p_value:g})")
    return wanting
