import numpy as np
import pytest

from tuner.classifiers.heads.steps import Step, SteppedHead
from tuner.classifiers.linear import LinearHead
from tuner.classifiers.parameters import TrialParams
from tuner.experiment.schema import Experiment, Split
from tuner.experiment.search import SearchSettings
from tuner.searches.winner import choose, solver_difference
from tuner.tracking.results import TrialResult


def result(trial: int, accuracy: float, error: float = 0.02, **params) -> TrialResult:
    values = {"backbone": "VGG16", "regParam": 0.01, "elasticNetParam": 0.5, "maxIter": 10} | params
    metrics = {"accuracy": accuracy, "accuracy_std_error": error}
    return TrialResult(trial, TrialParams.of(**values), f"{trial:03d}-vgg16", metrics=metrics)


def experiment(select: str) -> Experiment:
    search = SearchSettings(backbone="VGG16", select=select)
    return Experiment(name="e", images="i", search=search, split=Split(validation="cv:5"))


RESULTS = [
    result(1, 0.90, regParam=5.0),
    result(2, 0.96, regParam=0.1),
    result(3, 0.97),
    result(4, 0.97, regParam=0.2),
    result(5, 0.951, regParam=0.3, elasticNetParam=0.9),
]


def test_best_trial_wins_and_of_equals_the_earlier():
    assert choose(RESULTS, experiment("best")).trial == 3


def test_simplest_within_one_standard_error_of_the_best_wins():
    assert choose(RESULTS, experiment("one-standard-error")).trial == 5


@pytest.mark.parametrize(
    ("other", "expected"),
    [({"elasticNetParam": 0.7}, 2), ({"maxIter": 5}, 2), ({"maxIter": 20}, 1), ({}, 1)],
)
def test_ties_of_regparam_go_to_the_sparser_then_the_shorter_then_the_earlier(other: dict, expected: int):
    results = [result(1, 0.9), result(2, 0.9, **other)]
    assert choose(results, experiment("one-standard-error")).trial == expected


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ([[1, -4], [0, 2]], [[1, -4], [0, 2]], 0),
        ([[1, -4], [0, 2]], [[1, -4], [0.5, 2]], 0.125),
        ([[1, -4], [0, 2]], [[1, -5], [0.5, 2]], 0.25),
        ([[0, 0]], [[0, 0]], 0),
        ([[0, 0]], [[0, 0.5]], 0.5),  # nothing to be a share of
    ],
)
def test_two_fits_differ_by_a_share_of_the_largest_coefficient(one, other, difference: float):
    heads = [LinearHead(np.array(values, float), np.zeros(len(values))) for values in (one, other)]
    assert solver_difference(*heads) == difference


def test_fits_on_components_of_other_signs_are_the_same_fit() -> None:
    components, coefficients = np.random.default_rng(0).normal(size=(5, 2)), np.array([[1.0, -4], [0, 2]])
    heads = []
    for signs in ([1, 1], [1, -1]):
        step = Step("PCA", {"pc": components * signs, "explainedVariance": np.ones(2)})
        heads.append(SteppedHead(step, LinearHead(coefficients * signs, np.zeros(2))))
    assert solver_difference(*heads) == 0
    scaler = Step("StandardScaler", {"mean": np.zeros(2), "std": np.array([1e-9, 1])})
    scaled = [SteppedHead(scaler, LinearHead(coefficients + more, np.zeros(2))) for more in (0, 0.5)]
    assert solver_difference(*scaled) == 0.125
