from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.base.choices import Metric
from tuner.base.errors import ModelError
from tuner.evaluation.comparison import Comparison, compare, decide, mcnemar
from tuner.experiment.schema import Gate

LABELS = ("cat", "<b>|dog", "owl")


def one_hot(classes: list[int], certainty: float = 0.8) -> np.ndarray:
    rest = (1 - certainty) / 2
    return np.where(np.eye(3)[classes] == 1, certainty, rest)


def compared(truth: list[int], champion: list[int], challenger: list[int], **options) -> Comparison:
    paths = [f"{number}.png" for number in range(len(truth))]
    return compare(paths, np.array(truth), one_hot(champion), one_hot(challenger), LABELS, **options)


TRUTH = [0] * 10 + [1] * 10
CHAMPION = [0] * 8 + [1] * 2 + [1] * 6 + [0] * 4  # 14 of 20
CHALLENGER = [0] * 7 + [1] * 3 + [1] * 10  # 17 of 20: one cat more wrong, four dogs more right


@pytest.mark.parametrize(
    ("champion_only", "challenger_only", "expected"),
    [(0, 0, 1.0), (1, 4, 12 / 32), (0, 6, 2 / 64), (6, 0, 2 / 64), (5, 5, 1.0), (2, 8, 112 / 1024)],
)
def test_mcnemar_is_the_exact_binomial_test(champion_only, challenger_only, expected):
    """By hand: twice the tail of the fair coin, at most 1."""
    assert mcnemar(champion_only, challenger_only) == pytest.approx(expected)


def test_a_comparison_counts_what_the_models_differ_in():
    found = compared(TRUTH, CHAMPION, CHALLENGER)
    assert found.images == 20
    assert found.champion.metrics["accuracy"] == pytest.approx(14 / 20)
    assert found.challenger.metrics["accuracy"] == pytest.approx(17 / 20)
    assert found.gain == pytest.approx(3 / 20)
    assert (found.champion_only, found.challenger_only) == (1, 4)
    assert found.p_value == pytest.approx(12 / 32)
    assert found.recall_change == pytest.approx({"cat": -0.1, "<b>|dog": 0.4})  # no owls, no recall
    assert found.disagreements.to_dict("records") == [
        {"path": "7.png", "label": "cat", "champion": "cat", "challenger": "<b>|dog"},
        *(
            {"path": f"{n}.png", "label": "<b>|dog", "champion": "cat", "challenger": "<b>|dog"}
            for n in range(16, 20)
        ),
    ]


def test_the_interval_is_that_of_paired_draws():
    """Of a mean over images it is close to the normal one; the same seed gives the same draws."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 400)
    champion = np.where(rng.random(400) < 0.7, truth, (truth + 1) % 3)
    challenger = np.where(rng.random(400) < 0.8, truth, (truth + 1) % 3)
    found = compared(list(truth), list(champion), list(challenger))
    difference = (challenger == truth).astype(float) - (champion == truth)
    half = 1.96 * difference.std() / 20
    assert found.interval == pytest.approx((found.gain - half, found.gain + half), abs=0.006)
    assert compared(list(truth), list(champion), list(challenger)).interval == found.interval


def test_equal_models_have_no_gain_and_no_interval():
    found = compared(TRUTH, CHAMPION, CHAMPION)
    assert (found.gain, found.interval, found.p_value) == (0, (0, 0), 1)
    assert found.disagreements.empty


@pytest.mark.parametrize("metric", get_args(Metric))
def test_every_metric_has_its_gain_within_its_interval(metric: str):
    found = compared(TRUTH, CHAMPION, CHALLENGER, metric=metric)
    change = found.challenger.metrics[metric] - found.champion.metrics[metric]
    assert found.gain == pytest.approx(-change if metric == "logLoss" else change)
    assert found.gain > 0
    low, high = found.interval
    assert low <= found.gain <= high
    assert low < high


def test_a_metric_that_the_images_do_not_define_is_refused():
    with pytest.raises(
        ModelError, match=r"The metric roc_auc is not defined on the 2 images.*gate\.metric"
    ):
        compared([0, 0], [0, 1], [0, 0], metric="roc_auc")


@pytest.mark.parametrize(
    ("gate", "passed", "reason"),
    [
        (Gate(), True, "better: accuracy 0.8500 instead of 0.7000 on 20 images"),
        (Gate(min_gain=0.15), True, "better"),
        (Gate(min_gain=0.16), False, "the gain of 0.1500 is below min_gain 0.16"),
        (Gate(max_regression_per_class=0.1), True, "better"),
        (Gate(max_regression_per_class=0.05), False, "the recall of cat falls by 0.1000, more than 0.05"),
        (Gate(min_images=21), False, "only 20 images to compare on, fewer than min_images 21: accuracy"),
        (Gate(max_p_value=0.375), True, "better"),
        (
            Gate(max_p_value=0.374),
            False,
            "chance may have made it (p = 0.375, max_p_value 0.374): accuracy",
        ),
    ],
)
def test_the_gate_decides(gate: Gate, passed: bool, reason: str):
    decision = decide(gate, compared(TRUTH, CHAMPION, CHALLENGER))
    assert decision.passed is passed
    assert reason in str(decision)


def test_one_more_right_image_of_a_few_does_not_move_the_alias():
    decision = decide(Gate(), compared(TRUTH[:19], CHAMPION[:19], CHALLENGER[:19]))
    assert not decision.passed
    assert str(decision).startswith("only 19 images to compare on, fewer than min_images 20: accuracy")


def test_a_difference_within_noise_is_called_so():
    """Three of twenty, p = 0.375 by hand; forty times as many images with the same shares are no noise."""
    few, many = (compared(TRUTH * times, CHAMPION * times, CHALLENGER * times) for times in (1, 40))
    assert (few.within_noise, many.within_noise) == (True, False)
    assert str(decide(Gate(), few)) == (
        "better: accuracy 0.8500 instead of 0.7000 on 20 images, a difference within noise (p = 0.375)"
    )
    assert str(decide(Gate(), many)) == "better: accuracy 0.8500 instead of 0.7000 on 800 images"
    same = compared(TRUTH, CHAMPION, CHAMPION)
    assert str(decide(Gate(), same)) == "no better: accuracy 0.7000 instead of 0.7000 on 20 images"


@pytest.mark.parametrize("metric", ["f1", "logLoss", "roc_auc"])
def test_the_p_value_of_other_metrics_is_that_of_the_draws(metric: str):
    """Small where the interval lies on one side of 0, and 1 between models that do not differ."""
    better = compared(TRUTH * 40, CHAMPION * 40, CHALLENGER * 40, metric=metric)
    assert better.interval[0] > 0
    assert 0 < better.gain_p_value < 0.01
    assert compared(TRUTH, CHAMPION, CHAMPION, metric=metric).gain_p_value == 1
    back = compared(TRUTH, CHALLENGER, CHAMPION, metric=metric)
    there = compared(TRUTH, CHAMPION, CHALLENGER, metric=metric)
    assert back.gain_p_value == pytest.approx(there.gain_p_value)


def test_one_image_has_no_interval():
    found = compared([0], [1], [0])
    assert (found.gain, found.interval, found.gain_p_value) == (1, (1, 1), 1)


def test_as_good_or_worse_does_not_pass():
    assert not decide(Gate(), compared(TRUTH, CHAMPION, CHAMPION)).passed
    worse = decide(Gate(max_regression_per_class=0.2), compared(TRUTH, CHALLENGER, CHAMPION))
    assert not worse.passed
    assert len(worse.reasons) == 2  # no gain, and the dogs


def test_lower_is_better_where_it_is():
    surer = compare(
        ["a", "b"], np.array([0, 1]), one_hot([0, 1], 0.6), one_hot([0, 1], 0.9), LABELS, metric="logLoss"
    )
    assert decide(Gate(metric="logLoss", min_gain=0.3, min_images=2), surer).passed
    assert surer.gain == pytest.approx(np.log(0.9 / 0.6))


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=30))
def test_any_two_models_compare_and_turn_about(rows: list[tuple[int, int, int]]):
    truth, champion, challenger = (list(column) for column in zip(*rows, strict=True))
    there, back = compared(truth, champion, challenger), compared(truth, challenger, champion)
    assert there.gain == pytest.approx(-back.gain)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert there.gain * len(rows) == pytest.approx(there.challenger_only - there.champion_only)
    assert len(there.disagreements) >= there.champion_only + there.challenger_only
    assert not (decide(Gate(), there).passed and decide(Gate(), back).passed)


def test_models_without_probabilities_are_compared_by_what_they_have() -> None:
    truth, margins = np.array([0, 1, 2, 0]), np.array([[5.0, -3, 0], [0, 9, -1], [1, 0, 3], [-2, 1, 0]])
    paths, proper = list("abcd"), one_hot([0, 1, 2, 0])
    found = compare(paths, truth, margins, proper, LABELS, gives=("decision", "probability"))
    assert "logLoss" not in found.champion.metrics
    assert "logLoss" in found.challenger.metrics
    assert found.challenger_only == 1
    for gives, who in (
        (("decision", "probability"), "champion"),
        (("probability", "decision"), "challenger"),
    ):
        with pytest.raises(
            ModelError, match=f"logLoss needs probabilities, and the {who}'s classifier gives"
        ):
            compare(paths, truth, proper, proper, LABELS, metric="logLoss", gives=gives)
