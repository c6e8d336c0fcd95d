import numpy as np
import pytest

from tuner.classifiers.heads.files import Head, softmax_rows
from tuner.classifiers.heads.layers import Layers, layers_of
from tuner.classifiers.heads.mllib import FactorizationHead, MarginsHead, NaiveBayesHead, PerceptronHead
from tuner.classifiers.heads.steps import SteppedHead, fit_step
from tuner.classifiers.heads.trees import TreesHead
from tuner.classifiers.linear import LinearHead
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.rows.row import NONE, PRESTEPS
from tuner.classifiers.scikit import SklearnHead, fit_sklearn
from tuner.classifiers.table import CLASSIFIERS

RNG = np.random.default_rng(0)
WIDTH = 12
ROWS = RNG.normal(3, 2, (90, WIDTH)) * np.exp(RNG.normal(size=WIDTH))
LINEAR = ["LogisticRegression", "SGD", "PassiveAggressive", "Perceptron", "LinearSVC", "Ridge"]


def scores_of(layers: Layers, features: np.ndarray) -> np.ndarray:
    """By the definition of each layer."""
    values = features / np.linalg.norm(features, axis=1, keepdims=True) if layers.unit else features
    for layer in layers.dense:
        values = values @ layer.matrix + layer.bias
        if layer.activation == "softmax":
            values = softmax_rows(values)
        elif layer.activation == "sigmoid":
            values = 1 / (1 + np.exp(-values))
    return values


def assert_same(head: Head, rows: np.ndarray = ROWS) -> None:
    layers = layers_of(head)
    assert layers is not None
    expected = head.score(rows)
    known = expected[expected > -1e300]  # not what stands for a class that is never the answer
    assert known.std() > 1e-3
    near = 1e-9 * np.abs(known).max()
    np.testing.assert_allclose(scores_of(layers, rows), expected, rtol=1e-9, atol=near)


def fitted(name: str, known: list[int], classes: int, **values) -> SklearnHead:
    label = RNG.choice(known, len(ROWS))
    params = TrialParams.of("any", f"sklearn.{name}", **values)
    features = ROWS + 3 * np.eye(classes, WIDTH)[label]
    return fit_sklearn(params, features, label, None, classes=classes, seed=1).head


@pytest.mark.parametrize("prestep", PRESTEPS)
@pytest.mark.parametrize(
    ("known", "classes"),
    [([0, 1], 2), ([0, 1, 2], 3), ([1, 3], 5), ([0, 2, 3], 4)],
    ids=["two", "three", "two of five", "three of four"],
)
@pytest.mark.parametrize("name", LINEAR)
def test_linear_ones_of_scikit_learn(name: str, known: list[int], classes: int, prestep: str) -> None:
    components = {"k": 5} if prestep == "PCA" else {}
    head = fitted(name, known, classes, prestep=prestep, **components)
    assert_same(head)
    layers = layers_of(head)
    assert layers is not None
    assert (layers.unit, len(layers.dense)) == (prestep == "Normalizer", 1)
    assert (layers.dense[0].activation == "softmax") == (head.gives == "probability")


@pytest.mark.parametrize(
    "row", [row for row in CLASSIFIERS.values() if row.library == "sklearn" and not row.of_counts]
)
def test_every_other_of_scikit_learn_is_none(row) -> None:
    name = row.name.removeprefix("sklearn.")
    few = {key: 3 for key in ("n_estimators", "max_iter") if key in row.by_name}
    assert (layers_of(fitted(name, [0, 1, 2], 3, **few)) is not None) == (name in LINEAR)


@pytest.mark.parametrize("vectors", [1, 4])
def test_logistic_regression_of_mllib(vectors: int) -> None:
    assert_same(LinearHead(RNG.normal(size=(vectors, WIDTH)) / 10, RNG.normal(size=vectors)))


@pytest.mark.parametrize("intercepts", [[np.inf], [0, np.inf, 0]], ids=["two", "three"])
def test_one_class_only_is_certain(intercepts: list[float]) -> None:
    head = LinearHead(np.zeros((len(intercepts), WIDTH)), np.array(intercepts))
    assert_same(head)


def test_other_linear_ones_of_mllib() -> None:
    matrix, bias = RNG.normal(size=(3, WIDTH)), RNG.normal(size=3)
    assert_same(MarginsHead(matrix, bias))
    assert_same(FactorizationHead(bias, matrix, np.zeros((3, WIDTH, 0))))
    assert_same(FactorizationHead(bias, matrix, np.zeros((3, WIDTH, 4))))
    for prior in (True, False):
        counts = NaiveBayesHead(bias, -np.abs(matrix), np.empty((0, 0)), np.array(prior))
        assert_same(counts, np.abs(ROWS))


def test_a_perceptron() -> None:
    sizes = np.array([WIDTH, 4, 5, 3])
    assert_same(PerceptronHead(sizes, RNG.normal(size=13 * 4 + 5 * 5 + 6 * 3)))


@pytest.mark.parametrize("name", [name for name in PRESTEPS if name != NONE])
def test_what_mllib_fitted_after_a_step(name: str) -> None:
    step = fit_step(name, ROWS, 5)
    width = step.apply(ROWS).shape[1]
    matrix, bias = RNG.normal(size=(3, width)), RNG.normal(size=3)
    sizes = np.array([width, 4, 3])
    for head in (
        LinearHead(matrix[:1], bias[:1]),
        MarginsHead(matrix, bias),
        PerceptronHead(sizes, RNG.normal(size=(width + 1) * 4 + 5 * 3)),
    ):
        stepped = SteppedHead(step, head)
        assert_same(stepped)
        layers, own = layers_of(stepped), layers_of(head)
        assert layers is not None
        assert own is not None
        assert (layers.unit, len(layers.dense)) == (name == "Normalizer", len(own.dense))
    factors = FactorizationHead(bias, matrix, RNG.normal(size=(3, width, 2)))
    assert layers_of(SteppedHead(step, factors)) is None


def test_what_is_no_network_is_none() -> None:
    matrix, bias = RNG.normal(size=(3, WIDTH)), RNG.normal(size=3)
    assert layers_of(FactorizationHead(bias, matrix, RNG.normal(size=(3, WIDTH, 2)))) is None
    assert layers_of(NaiveBayesHead(bias, matrix, np.ones((3, WIDTH)), np.array(True))) is None
    leaf = np.zeros(1, int)
    trees = TreesHead(leaf - 1, leaf * 1.0, leaf, leaf, np.ones((1, 4)), leaf, np.array(True))
    assert layers_of(trees) is None
