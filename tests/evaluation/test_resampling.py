from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.base.choices import LOWER_IS_BETTER, Metric
from tuner.evaluation import resampling
from tuner.evaluation.metrics import evaluate
from tuner.evaluation.resampling import _counts, _measure, gains_on_draws


def scores_of(rows: int, classes: int, seed: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities of few levels, so that many are equal."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, rows)
    raw = generator.integers(1, levels + 1, (rows, classes)) + np.eye(classes)[truth]
    return truth, raw / raw.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("metric", get_args(Metric))
@pytest.mark.parametrize("few", [0, 3, 64], ids=["by order", "both ways", "by pairs"])
@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(2, 40),
    classes=st.integers(2, 6),
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([1, 3, 1000]),
)
def test_a_metric_by_counts_is_the_metric_of_the_drawn_images(metric, few, rows, classes, seed, levels):
    truth, probability = scores_of(rows, classes, seed, levels)
    drawn = np.random.default_rng(seed).integers(0, rows, (7, rows))
    labels = [str(index) for index in range(classes)]
    direct = [evaluate(truth[d], probability[d], labels).metrics.get(metric, np.nan) for d in drawn]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "_FEW", few)
        patch.setattr(resampling, "_ROWS", 5)
        found = _measure(metric, truth, probability)(_counts(drawn, rows))
    assert found == pytest.approx(direct, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("metric", get_args(Metric))
def test_gains_are_those_of_both_models_on_the_same_draws(metric: str):
    """Against a loop that draws images and evaluates both models on them, in mean and spread."""
    truth, champion = scores_of(60, 3, 1, 9)
    challenger = champion + 0.1 * np.eye(3)[truth]
    challenger /= challenger.sum(axis=1, keepdims=True)
    rng = np.random.default_rng(5)
    gains = []
    for _ in range(400):
        drawn = rng.integers(0, 60, 60)
        before, after = (
            evaluate(truth[drawn], p[drawn], "abc").metrics[metric] for p in (champion, challenger)
        )
        gains.append(before - after if metric in LOWER_IS_BETTER else after - before)
    found = gains_on_draws(metric, truth, champion, challenger, seed=0)
    assert len(found) >= 1000
    assert found.mean() == pytest.approx(np.mean(gains), abs=5 * np.std(gains) / 20)
    assert found.std() == pytest.approx(np.std(gains), rel=0.2)
    assert (gains_on_draws(metric, truth, champion, challenger, seed=0) == found).all()
    assert (gains_on_draws(metric, truth, champion, champion, seed=0) == 0).all()


def test_the_work_of_an_interval_is_bounded():
    """Draws times the pairs that are compared in one of them, or the images that are counted."""
    truth = np.arange(5000) % 1000
    assert resampling._draws("roc_auc", truth, 1000) * 5000**2 < 1e10
    assert resampling._draws("f1", truth, 1000) * 5000 < 5e7
    assert resampling._draws("accuracy", np.arange(100) % 10, 10) == 10_000


def test_draws_without_a_class_have_no_area():
    truth, scores = np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])
    found = gains_on_draws("roc_auc", truth, scores, scores[::-1], seed=0)
    assert set(found[~np.isnan(found)]) == {-1.0}
    assert np.isnan(found).mean() == pytest.approx(0.5, abs=0.05)
