from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from tuner.base.choices import LOWER_IS_BETTER, Metric, gain_of, loss_of

METRICS = get_args(Metric)
metrics, values = st.sampled_from(METRICS), st.floats(-1e6, 1e6)


def test_only_metrics_are_lower_when_they_are_better() -> None:
    assert set(METRICS) > LOWER_IS_BETTER


@given(metrics, values, values)
def test_the_better_of_two_values_has_the_lower_loss(metric: str, one: float, other: float) -> None:
    better = one < other if metric in LOWER_IS_BETTER else one > other
    assert (loss_of(metric, one) < loss_of(metric, other)) == better


@given(metrics, values, values)
def test_a_gain_is_positive_exactly_if_the_second_value_is_better(
    metric: str, before: float, after: float
) -> None:
    gain = gain_of(metric, before, after)
    assert (gain > 0) == (loss_of(metric, after) < loss_of(metric, before))
    assert gain == -gain_of(metric, after, before)
    assert abs(gain) == abs(after - before)
