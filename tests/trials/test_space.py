import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hyperopt import STATUS_OK, Trials, fmin, rand
from hyperopt.base import JOB_STATE_DONE, Domain
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.experiment.search import SearchSettings
from tuner.trials.space import (
    NUMBER,
    TrialParams,
    WithoutRepeats,
    algorithm_of,
    document_of,
    hyperopt_space,
    point_of,
)


def by_two_parameters(point: dict) -> float:
    """A loss that is arbitrary, and depends on parameters of logistic regression."""
    return math.sin(point["regParam"] * 9) + point["maxIter"] / 7


def by_anything(point: dict) -> float:
    """A loss that is there whatever the classifier."""
    return len(str(sorted(point.items(), key=str))) % 17


def propose(
    search: SearchSettings, evaluations: int, loss: Callable[[dict], float] = by_two_parameters
) -> tuple[list[dict], Trials]:
    """Run hyperopt itself on the space."""
    points: list[dict] = []

    def objective(point: dict) -> dict:
        points.append(point)
        return {"loss": loss(point), "status": STATUS_OK}

    trials = Trials()
    fmin(
        objective,
        hyperopt_space(search),
        algo=WithoutRepeats(search),
        max_evals=evaluations,
        trials=trials,
        rstate=np.random.default_rng(0),
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
    search = SearchSettings(
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
    search = SearchSettings(backbone="VGG16", regParam="0.05", elasticNetParam="0.3", maxIter="15")
    points, _ = propose(search, 1)
    assert TrialParams.from_point(points[0]) == TrialParams.of(
        "VGG16", regParam=0.05, elasticNetParam=0.3, maxIter=15
    )


@pytest.mark.parametrize("algorithm", ["tpe", "random", "anneal"])
def test_no_set_is_proposed_twice_and_an_exhausted_space_ends_the_search(algorithm):
    search = SearchSettings(
        backbone="VGG16,VGG19",
        regParam="0.1,0.2",
        elasticNetParam="0",
        maxIter="1:3",
        algorithm=algorithm,
    )
    points, _ = propose(search, 40)
    assert len({TrialParams.from_point(point) for point in points}) == len(points) == 2 * 2 * 3


def test_a_grid_is_searched_to_its_last_point():
    """90 points: the algorithm finds the last of them by chance, and chance gives up before."""
    search = SearchSettings(
        backbone="VGG16,VGG19", regParam="0.1,0.2,0.3", elasticNetParam="0", maxIter="1:15"
    )
    points, _ = propose(search, 120)
    assert len({TrialParams.from_point(point) for point in points}) == len(points) == 2 * 3 * 15


def test_whole_numbers_are_searched_on_a_log_scale_where_that_is_asked_for():
    """Half of the range's logarithms lie below 50, a tenth of its numbers do."""
    below = {}
    for space in ("5:500:log", "5:500"):
        search = SearchSettings(backbone="VGG16", maxIter=space, algorithm="random")
        points, _ = propose(search, 200)
        numbers = [point["maxIter"] for point in points]
        assert all(float(number).is_integer() and 5 <= number <= 500 for number in numbers)
        below[space] = sum(number < 50 for number in numbers) / len(numbers)
    assert below["5:500:log"] == pytest.approx(0.5, abs=0.12)
    assert below["5:500"] == pytest.approx(0.09, abs=0.07)


@pytest.mark.parametrize(
    ("max_evals", "at_random"), [(1, 5), (16, 5), (20, 5), (40, 10), (41, 11), (400, 100)]
)
def test_tpe_learns_once_a_quarter_of_the_trials_is_there(max_evals: int, at_random: int):
    search = SearchSettings(backbone="VGG16,VGG19", max_evals=max_evals)
    domain = Domain(lambda _: 0.0, hyperopt_space(search))
    _, trials = propose(SearchSettings(backbone="VGG16,VGG19", algorithm="random"), at_random)
    for known in (at_random - 1, at_random):
        some = Trials()
        some.insert_trial_docs(trials.trials[:known])
        some.refresh()
        (proposed,) = algorithm_of(search)([known], domain, some, 7)
        (drawn,) = rand.suggest([known], domain, some, 7)
        assert (proposed["misc"]["vals"] == drawn["misc"]["vals"]) == (known < at_random)


@pytest.mark.parametrize("algorithm", ["tpe", "random", "anneal"])
def test_a_trial_that_was_lost_is_made_up_for_with_other_parameters(algorithm):
    """They may be why its worker died; a trial that is lost again and again is another each time."""
    search = SearchSettings(backbone="VGG16,VGG19", algorithm=algorithm)
    domain, trials, proposing = (
        Domain(lambda _: 0.0, hyperopt_space(search)),
        Trials(),
        WithoutRepeats(search),
    )
    points = [point_of(proposing([new_id], domain, trials, 0)[0], search) for new_id in range(4)]
    assert [point[NUMBER] for point in points] == [1] * 4
    assert len({TrialParams.from_point(point) for point in points}) == 4
    assert points[0] == point_of(WithoutRepeats(search)([0], domain, trials, 0)[0], search)


@pytest.mark.parametrize("algorithm", ["tpe", "random", "anneal"])
def test_same_seed_gives_the_same_points(algorithm):
    first, same, other = (
        propose(SearchSettings(backbone="VGG16,VGG19", algorithm=algorithm, seed=seed), 25)[0]
        for seed in (3, 3, 4)
    )
    assert first == same
    assert first != other


@pytest.mark.parametrize("space", ["1e-3:1:log", "0.05,0.1", "0.05"])
def test_a_document_gives_back_the_parameters_that_it_was_made_of(space):
    search = SearchSettings(backbone="VGG16,VGG19", regParam=space, maxIter="5,15")
    params = TrialParams.of("VGG19", regParam=0.05, elasticNetParam=0.25, maxIter=15)
    document = document_of(7, 3, params, search)
    assert document["tid"] == 7
    assert point_of(document, search)[NUMBER] == 3
    assert TrialParams.from_point(point_of(document, search)) == params


def test_points_come_first_and_once():
    point = {"backbone": "VGG19", "regParam": 0.05, "elasticNetParam": 0.3, "maxIter": 15}
    search = SearchSettings(backbone="VGG16,VGG19", points=[point, point | {"maxIter": 5}, point])
    points, _ = propose(search, 6)
    assert [TrialParams.from_point(point).values["maxIter"] for point in points[:2]] == [15, 5]
    assert len({TrialParams.from_point(point) for point in points}) == 6


def test_numbers_close_the_gaps_that_lost_trials_left():
    search = SearchSettings(backbone="VGG16,VGG19")
    trials = Trials()
    finished = [
        document_of(0, 1, TrialParams.of("VGG16", regParam=0.1, elasticNetParam=0, maxIter=5), search)
    ]
    finished.append(
        document_of(1, 3, TrialParams.of("VGG16", regParam=0.2, elasticNetParam=0, maxIter=5), search)
    )
    for document in finished:
        document |= {"state": JOB_STATE_DONE, "result": {"status": STATUS_OK, "loss": 1.0}}
    trials.insert_trial_docs(finished)
    trials.refresh()
    domain = Domain(lambda _: 0.0, hyperopt_space(search))
    proposed = WithoutRepeats(search)([2, 3], domain, trials, 0)
    assert [point_of(document, search)[NUMBER] for document in proposed] == [2, 4]


def test_a_resumed_search_proposes_what_it_would_have_proposed():
    search = SearchSettings(backbone="VGG16,VGG19", algorithm="random")
    points, trials = propose(search, 9)
    resumed = Trials()
    resumed.insert_trial_docs(trials.trials[:4])
    resumed.refresh()
    domain = Domain(lambda _: 0.0, hyperopt_space(search))
    (next_one,) = WithoutRepeats(search)([4], domain, resumed, 0)
    assert TrialParams.from_point(point_of(next_one, search)) == TrialParams.from_point(points[4])


# An experiment that names no classifier proposes what it proposed before there were any to name. Of a grid,
# TPE takes one of several that are as good, which the last bits of a sum decide: it is recorded at random.


RECORDED = json.loads((Path(__file__).parent / "proposals.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", RECORDED)
def test_proposals_and_run_parameters_are_those_that_were_recorded(name: str) -> None:
    search, proposed = SearchSettings(**RECORDED[name]["search"]), []

    def objective(point: dict) -> dict:
        params = TrialParams.from_point(point).to_dict()
        proposed.append(params)
        return {"loss": math.sin(params["regParam"] * 9) + params["maxIter"] / 7, "status": STATUS_OK}

    fmin(
        objective,
        hyperopt_space(search),
        algo=WithoutRepeats(search),
        max_evals=16,
        trials=Trials(),
        rstate=np.random.default_rng(0),
        show_progressbar=False,
        verbose=False,
        return_argmin=False,
    )
    assert proposed == RECORDED[name]["proposed"]
    assert [list(params) for params in proposed] == [list(params) for params in RECORDED[name]["proposed"]]


# Conditional spaces


SEVERAL = {
    "backbone": "VGG16,VGG19",
    "classifier": [
        "LogisticRegression",
        {
            "name": "RandomForest",
            "numTrees": "20:50",
            "maxDepth": "3,5",
            "prestep": "none,PCA",
            "k": "16:64",
        },
        {"name": "sklearn.KNeighbors", "prestep": ["none", "Normalizer", "PCA"], "k": "2:9"},
        "NaiveBayes",
    ],
    "class_weight": "none",
    "fit": "auto",
}


def told(points: list[dict]) -> list[TrialParams]:
    return [TrialParams.from_point(point) for point in points]


@pytest.mark.parametrize("algorithm", ["tpe", "random", "anneal"])
def test_each_classifier_has_its_own_parameters_and_no_others(algorithm: str) -> None:
    search = SearchSettings(**SEVERAL, algorithm=algorithm)
    points, trials = propose(search, 40, by_anything)
    proposed = told(points)
    assert {params.classifier for params in proposed} == {spec.name for spec in search.classifier}
    for params, document in zip(proposed, trials.trials, strict=True):
        names = set(params.values)
        if params.classifier == "NaiveBayes":
            assert params.values == {"modelType": "gaussian", "prestep": "none"}
        else:
            assert names - {"k"} == set(params.row.by_name) - {"k"}
            assert ("k" in names) == (params.values["prestep"] == "PCA")
        for choice in search.choices:
            if choice.name == params.classifier:
                choice.check_point(params.values)
        assert TrialParams.from_point(point_of(document, search)) == params
    # NaiveBayes has one point for each network: it is exhausted, and the search is not.
    assert len(set(proposed)) == len(proposed) == 40


@pytest.mark.parametrize("algorithm", ["tpe", "random", "anneal"])
def test_a_resumed_search_over_several_classifiers_proposes_what_it_would_have(algorithm: str) -> None:
    """Its documents are made of what runs say: parameters that a trial does not have are not there."""
    search = SearchSettings(**SEVERAL, algorithm=algorithm)
    points, _ = propose(search, 12, by_anything)
    resumed = Trials()
    documents = [
        document_of(place, place + 1, TrialParams.from_point(params.to_dict()), search)
        | {"state": JOB_STATE_DONE, "result": {"status": STATUS_OK, "loss": loss_of_point(point)}}
        for place, (params, point) in enumerate(zip(told(points[:11]), points[:11], strict=True))
    ]
    resumed.insert_trial_docs(documents)
    resumed.refresh()
    domain = Domain(lambda _: 0.0, hyperopt_space(search))
    (next_one,) = WithoutRepeats(search)([11], domain, resumed, 0)
    assert TrialParams.from_point(point_of(next_one, search)) == told(points)[11]


def loss_of_point(point: dict) -> float:
    return len(str(sorted(point.items(), key=str))) % 17


def test_points_of_several_classifiers_come_first() -> None:
    """What the space fixes may be left out of them."""
    forest = {"backbone": "VGG19", "classifier": "RandomForest", "numTrees": 30, "maxDepth": 5}
    forest |= {"prestep": "none"}
    neighbours = {"backbone": "VGG16", "classifier": "sklearn.KNeighbors", "n_neighbors": 4}
    neighbours |= {"prestep": "PCA", "k": 3}
    points, _ = propose(SearchSettings(**SEVERAL, points=[forest, neighbours]), 3, by_anything)
    expected = [forest, neighbours | {"weights": "uniform"}]
    assert [params.to_dict() for params in told(points)[:2]] == expected


def test_a_finite_space_of_several_classifiers_is_searched_to_its_last_point() -> None:
    search = SearchSettings(
        backbone="VGG16,VGG19",
        classifier=[
            {"name": "RandomForest", "numTrees": "20:22", "maxDepth": "3,5"},
            {"name": "sklearn.KNeighbors", "n_neighbors": 3, "prestep": "none,PCA", "k": "2:5"},
        ],
        class_weight="none",
    )
    points, _ = propose(search, 60, by_anything)
    assert len(set(told(points))) == len(points) == 2 * (3 * 2 + (1 + 4))


def test_class_weight_is_searched_where_several_are_given() -> None:
    search = SearchSettings(
        backbone="VGG16", classifier="RandomForest,sklearn.Ridge", class_weight="none,balanced"
    )
    proposed = told(propose(search, 20, by_anything)[0])
    assert {params.class_weight for params in proposed} == {"none", "balanced"}
    assert all(list(params.to_dict())[-1] == "class_weight" for params in proposed)
    fixed = SearchSettings(backbone="VGG16", class_weight="balanced")
    assert all("class_weight" not in params.to_dict() for params in told(propose(fixed, 3, by_anything)[0]))


def test_one_classifier_alone_is_named_and_its_labels_are_its_parameters() -> None:
    search = SearchSettings(backbone="VGG16", classifier="LogisticRegression", regParam="0.1")
    (params,) = told(propose(search, 1, by_anything)[0])
    assert params.classifier == "LogisticRegression"
    assert params.values["regParam"] == 0.1
    assert set(search.spaces) == {"regParam", "elasticNetParam", "maxIter", "prestep"}
