"""L-BFGS and OWL-QN on functions whose minimum is known, and on ones that have none to find."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.classifiers.optimizers import Objective, minimize


def quadratic(scales: np.ndarray, centre: np.ndarray) -> Objective:
    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        away = x - centre
        return float(scales @ away**2) / 2, scales * away

    return objective


def rosenbrock(x: np.ndarray) -> tuple[float, np.ndarray]:
    a, b = x
    value = (1 - a) ** 2 + 100 * (b - a * a) ** 2
    return value, np.array([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)])


axes = st.lists(st.tuples(st.floats(0.1, 10), st.floats(-5, 5)), min_size=1, max_size=30)


@given(axes)
@settings(deadline=None)
def test_lbfgs_finds_the_minimum(axes):
    scales, centre = np.array(axes).T
    found = minimize(quadratic(scales, centre), np.zeros(len(axes)), maxIter=500, tol=1e-12)
    np.testing.assert_allclose(found.x, centre, atol=1e-5)


@given(axes, st.floats(0, 5))
@settings(deadline=None)
def test_owlqn_finds_the_minimum_with_exact_zeros(axes, weight):
    """Each coordinate by itself: the centre, moved by l1 / scale towards 0 and no further."""
    scales, centre = np.array(axes).T
    l1 = np.full(len(axes), weight)
    l1[0] = 0  # as an intercept's is
    found = minimize(quadratic(scales, centre), np.zeros(len(axes)), maxIter=500, tol=1e-12, l1=l1)
    expected = np.sign(centre) * np.maximum(np.abs(centre) - l1 / scales, 0)
    np.testing.assert_allclose(found.x, expected, atol=1e-4)
    assert (found.x[np.abs(centre) < l1 / scales * (1 - 1e-6)] == 0).all()


def test_lbfgs_follows_a_curved_valley():
    found = minimize(rosenbrock, np.array([-1.2, 1.0]), maxIter=100, tol=1e-9)
    np.testing.assert_allclose(found.x, [1, 1], atol=1e-4)
    assert np.diff(found.objectiveHistory).max() < 0


def test_lbfgs_steps_back_from_where_the_value_is_infinite():
    def barrier(x):
        if x[0] >= 1:
            return math.inf, np.array([math.nan])
        return float(-np.log(1 - x[0]) - 3 * x[0]), 1 / (1 - x) - 3

    found = minimize(barrier, np.array([-2.0]), maxIter=100, tol=1e-9)
    np.testing.assert_allclose(found.x, [2 / 3], atol=1e-5)


def test_after_a_failure_lbfgs_starts_anew_from_the_gradient():
    scales, centre = np.array([1.0, 5.0, 25.0]), np.array([3.0, -2.0, 1.0])
    smooth = quadratic(scales, centre)
    tried: list[np.ndarray] = []

    def objective(x):
        tried.append(x)
        value, gradient = smooth(x)
        return (math.nan if 5 <= len(tried) < 15 else value), gradient  # a whole line search finds nothing

    found = minimize(objective, np.zeros(3), maxIter=100, tol=1e-9)
    np.testing.assert_allclose(found.x, centre, atol=1e-4)
    before = tried[3]
    np.testing.assert_allclose(tried[14], before - scales * (before - centre))
    repeated = [
        value
        for value, after in zip(found.objectiveHistory, found.objectiveHistory[1:], strict=False)
        if value == after
    ]
    assert repeated == [smooth(before)[0]]


@pytest.mark.parametrize("penalty", [None, 0.1], ids=["L-BFGS", "OWL-QN"])
class TestStops:
    bowl = staticmethod(quadratic(np.array([1.0, 5.0, 25.0]), np.array([3.0, -2.0, 1.0])))

    @pytest.fixture
    def l1(self, penalty):
        return None if penalty is None else np.full(3, penalty)

    def test_at_maxIter(self, l1):
        found = minimize(self.bowl, np.zeros(3), maxIter=2, tol=1e-6, l1=l1)
        assert (found.stop, len(found.objectiveHistory)) == ("maxIter reached", 3)

    def test_before_the_first_step(self, l1):
        found = minimize(self.bowl, np.ones(3), maxIter=0, tol=1e-6, l1=l1)
        assert (found.stop, len(found.objectiveHistory)) == ("maxIter reached", 1)
        assert found.x.tolist() == [1, 1, 1]

    def test_where_it_is_flat(self, l1):
        found = minimize(self.bowl, np.zeros(3), maxIter=100, tol=1e-6, l1=l1)
        assert found.stop == "gradient converged"

    def test_when_values_hardly_change(self, penalty):
        """After twenty iterations or more: until then the greatest of the values compared is infinite."""
        l1 = None if penalty is None else np.full(2, 1e-3)
        found = minimize(rosenbrock, np.array([-1.2, 1.0]), maxIter=100, tol=0.05, l1=l1)
        assert found.stop == "objective converged"
        assert len(found.objectiveHistory) > 20
        last = found.objectiveHistory[-20:]
        assert max(last) - last[-1] <= 0.05 * found.objectiveHistory[0]

    def test_when_no_step_leads_down(self, l1):
        """The value stands there again for each of the two failures."""

        def lying(x):
            return float(x @ x) + 1, -2 * x

        found = minimize(lying, np.ones(3), maxIter=100, tol=1e-6, l1=l1)
        assert found.stop == "line search failed"
        assert found.objectiveHistory == pytest.approx([4 if l1 is None else 4.3] * 3)

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_when_nothing_is_finite(self, l1, value):
        found = minimize(lambda _: (value, np.full(3, math.nan)), np.zeros(3), maxIter=5, tol=1e-6, l1=l1)
        assert found.stop in ("maxIter reached", "line search failed")
