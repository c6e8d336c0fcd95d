"""By hand; `tests/models/fitted/test_saved.py` compares with MLlib itself."""

import numpy as np
import pytest
from scipy.stats import norm

from tuner.classifiers.heads.mllib import FactorizationHead, MarginsHead, NaiveBayesHead, PerceptronHead

ROWS = np.array([[1.0, -2.0], [0.5, 3.0]])


def test_margins_are_those_of_each_class_alone() -> None:
    head = MarginsHead(np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([0.5, 0.0]))
    np.testing.assert_allclose(head.score(ROWS), [[-2.5, 2.0], [7.0, -3.0]])


def test_gaussian_naive_bayes_is_bayes_rule_with_normal_densities() -> None:
    mean, variance = np.array([[0.0, 1.0], [2.0, -1.0]]), np.array([[1.0, 4.0], [0.25, 2.0]])
    prior = np.array([0.3, 0.7])
    density = np.stack(
        [norm.pdf(ROWS, m, np.sqrt(v)).prod(axis=1) for m, v in zip(mean, variance, strict=True)]
    )
    joint = density.T * prior
    head = NaiveBayesHead(np.log(prior), mean, variance, np.array(True))
    np.testing.assert_allclose(head.score(ROWS), joint / joint.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("counts", [True, False])
def test_naive_bayes_of_counts_adds_logarithms_of_shares(counts: bool) -> None:
    """Complement naive Bayes leaves the prior out."""
    share, prior = np.log([[0.2, 0.8], [0.6, 0.4]]), np.log([0.3, 0.7])
    raw = np.exp(np.abs(ROWS) @ share.T + (prior if counts else 0))
    head = NaiveBayesHead(prior, share, np.empty((0, 0)), np.array(counts))
    np.testing.assert_allclose(head.score(np.abs(ROWS)), raw / raw.sum(axis=1, keepdims=True))


def test_a_perceptron_has_sigmoid_layers_and_a_softmax() -> None:
    """Weights lie by inputs, those of one input for all outputs in a row; then the biases."""
    weights = np.arange(1.0, 1 + 2 * 3 + 3 + 3 * 2 + 2) / 10
    hidden = 1 / (1 + np.exp(-(ROWS @ weights[:6].reshape(2, 3) + weights[6:9])))
    raw = np.exp(hidden @ weights[9:15].reshape(3, 2) + weights[15:])
    head = PerceptronHead(np.array([2, 3, 2]), weights)
    np.testing.assert_allclose(head.score(ROWS), raw / raw.sum(axis=1, keepdims=True))


def test_a_factorization_machine_adds_the_products_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    rows, factors = rng.normal(size=(4, 3)), rng.normal(size=(2, 3, 5))
    intercepts, linear = rng.normal(size=2), rng.normal(size=(2, 3))
    expected = rows @ linear.T + intercepts
    for one, two in ((0, 1), (0, 2), (1, 2)):
        expected += np.outer(rows[:, one] * rows[:, two], (factors[:, one] * factors[:, two]).sum(axis=1))
    np.testing.assert_allclose(FactorizationHead(intercepts, linear, factors).score(rows), expected)
