"""Both line searches on functions of one variable."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.classifiers.line_searches import Probe, StepFailed, backtrack, strong_wolfe


class Along:
    """A function of the step, which remembers the steps that were tried."""

    def __init__(self, value: Callable[[float], float], slope: Callable[[float], float]) -> None:
        self.value, self.slope = value, slope
        self.steps: list[float] = []

    def __call__(self, step: float) -> Probe[float]:
        self.steps.append(step)
        return Probe(step, self.value(step), self.slope(step), step)

    @property
    def here(self) -> Probe[float]:
        return Probe(0.0, self.value(0.0), self.slope(0.0), 0.0)


def quartic(minimum: float) -> Along:
    return Along(lambda t: (t - minimum) ** 4, lambda t: 4 * (t - minimum) ** 3)


def wolfe(along: Along, step: float) -> Probe[float]:
    return strong_wolfe(along, along.here, step)


def back(along: Along, step: float, first_value: float = -math.inf) -> Probe[float]:
    return backtrack(along, along.here, step, shrink=0.5, first_value=first_value)


@pytest.mark.parametrize("search", [wolfe, back])
@given(minimum=st.floats(0.2, 20), step=st.floats(0.5, 1.5))
@settings(deadline=None)
def test_steps_satisfy_the_strong_wolfe_conditions(search, minimum, step):
    along = quartic(minimum)
    first = along.value(step) if search is back else None
    found = search(along, step) if first is None else back(along, step, first)
    assert found.value <= along.here.value + 1e-4 * found.step * along.here.slope
    assert abs(found.slope) <= 0.9 * abs(along.here.slope)
    assert found.step == found.point == along.steps[-1]


def test_strong_wolfe_does_not_go_up():
    along = Along(lambda t: t, lambda _: 1.0)
    with pytest.raises(StepFailed):
        wolfe(along, 1.0)
    assert along.steps == []


def test_strong_wolfe_gives_up_after_ten_brackets():
    endless = Along(lambda t: -t, lambda _: -1.0)
    with pytest.raises(StepFailed):
        wolfe(endless, 1.0)
    np.testing.assert_allclose(endless.steps, 1.5 ** np.arange(10))


def test_strong_wolfe_gives_up_after_ten_zooms():
    lying = Along(lambda t: t, lambda _: -1.0)
    with pytest.raises(StepFailed):
        wolfe(lying, 1.0)
    assert len(lying.steps) == 11


def test_strong_wolfe_halves_a_step_to_where_nothing_is_finite():
    along = Along(lambda t: -t if t < 0.3 else math.nan, lambda t: -1.0 if t < 0.25 else 0.0)
    assert wolfe(along, 1.0).step == 0.25
    assert along.steps == [1.0, 0.5, 0.25]


def test_backtracking_may_shrink_the_first_step_untried():
    along = quartic(0.6)
    assert back(along, 1.0, first_value=along.here.value).step == 0.5
    assert along.steps == [0.5]


def test_backtracking_takes_the_value_given_for_that_of_the_first_step():
    """At 3 the value is above that at 0, and the slope flat enough."""
    along = Along(lambda t: abs(t - 1), lambda t: -1.0 if t < 1 else 0.5)
    assert back(along, 3.0).step == 3.0
    assert back(along, 3.0, first_value=2.0).step == 1.5


def test_backtracking_takes_the_step_before_the_twentieth():
    falling = Along(lambda t: -t, lambda t: -0.95 if t > 0 else -1.0)
    assert back(falling, 1e-5).step == pytest.approx(1e-5 * 2.1**19)
    assert len(falling.steps) == 21


@pytest.mark.parametrize("step", [1e-9, 1e9], ids=["short", "long"])
def test_backtracking_fails_beyond_its_limits(step):
    along = Along(lambda t: t if step < 1 else -t, lambda _: -1.0)
    with pytest.raises(StepFailed):
        back(along, step)
    assert all(1e-10 <= tried <= 1e10 for tried in along.steps)
