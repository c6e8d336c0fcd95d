import math

import numpy as np
import pytest
from hyperopt import STATUS_OK, Trials, fmin
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.experiment import Search
from tuner.search_space import NUMBER, TrialParams, hyperopt_space, point_of, without_repeats


def propose(search: Search, evaluations: int, seed: int = 0) -> tuple[list[dict], Trials]:
    """Run hyperopt itself on the space; the loss is arbitrary and depends on every parameter."""
    points: list[dict] = []

    def objective(point: dict) -> dict:
        points.append(point)
        return {"loss": math.sin(point["regParam"] * 9) + point["maxIter"] / 7, "status": STATUS_OK}

    trials = Trials()
    fmin(
        objective,
        hyperopt_space(search),
        algo=without_repeats(search),
        max_evals=evaluations,
        trials=trials,
        rstate=np.random.default_rng(seed),
        show_progressbar=False,
        verbose=False,
        return_argmin=False,
    )
    return points, trials


def within(value: float, low: float, high: float) -> bool:
    return low <= value <= high or math.isclose(value, low) or math.isclose(value, high)


@settings(max_examples=15, deadline=None)
@given(
    low=st.floats(1e-6, 1),
    width=st.floats(0.01, 10),
    iterations=st.tuples(st.integers(0, 20), st.integers(1, 30)),
    algorithm=st.sampled_from(["tpe", "random", "anneal"]),
)
def test_points_are_values_within_their_ranges(low, width, iterations, algorithm):
    search = Search(
        backbone="GlyphNet,GaborNet",
        regParam=f"{low!r}:{low + width!r}",
        elasticNetParam="0,0.5,1",
        maxIter=f"{iterations[0]}:{sum(iterations)}",
        algorithm=algorithm,
    )
    points, trials = propose(search, 6)
    for number, (point, document) in enumerate(zip(points, trials.trials, strict=True), start=1):
        assert point[NUMBER] == number
        assert point["backbone"] in {"GlyphNet", "GaborNet"}
        assert within(point["regParam"], low, low + width)
        assert point["elasticNetParam"] in {0, 0.5, 1}
        assert isinstance(point["maxIter"], int)
        assert iterations[0] <= point["maxIter"] <= sum(iterations)
        assert TrialParams.from_point(point_of(document, search)) == TrialParams.from_point(point)


def test_fixed_values_are_not_searched():
    search = Search(backbone="VGG16", regParam="0.05", elasticNetParam="0.3", maxIter="15")
    points, _ = propose(search, 1)
    assert TrialParams.from_point(points[0]) == TrialParams("VGG16", 0.05, 0.3, 15)


@pytest.mark.parametrize("algorithm", ["tpe", "random", "anneal"])
def test_no_set_is_proposed_twice_and_an_exhausted_space_ends_the_search(algorithm):
    search = Search(
        backbone="VGG16,VGG19",
        regParam="0.1,0.2",
        elasticNetParam="0",
        maxIter="1:3",
        algorithm=algorithm,
    )
    points, _ = propose(search, 40)
    assert len({TrialParams.from_point(point) for point in points}) == len(points) == 2 * 2 * 3


@pytest.mark.parametrize("algorithm", ["tpe", "random", "anneal"])
def test_same_seed_gives_the_same_points(algorithm):
    search = Search(backbone="VGG16,VGG19", algorithm=algorithm)
    assert propose(search, 25, seed=3)[0] == propose(search, 25, seed=3)[0]
    assert propose(search, 25, seed=3)[0] != propose(search, 25, seed=4)[0]
