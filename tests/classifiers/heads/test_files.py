from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tuner.base.errors import ModelError
from tuner.classifiers.heads.files import Head, read_head, softmax_rows
from tuner.classifiers.heads.mllib import FactorizationHead, MarginsHead, NaiveBayesHead, PerceptronHead
from tuner.classifiers.heads.trees import TreesHead
from tuner.classifiers.linear import LinearHead

RNG = np.random.default_rng(0)
HEADS: list[Head] = [
    LinearHead(RNG.normal(size=(3, 2)), RNG.normal(size=3)),
    MarginsHead(RNG.normal(size=(3, 2)), RNG.normal(size=3)),
    NaiveBayesHead(RNG.normal(size=3), RNG.normal(size=(3, 2)), RNG.random((3, 2)) + 1, np.array(True)),
    NaiveBayesHead(RNG.normal(size=3), RNG.normal(size=(3, 2)), np.empty((0, 0)), np.array(False)),
    PerceptronHead(np.array([2, 4, 3]), RNG.normal(size=4 * 3 + 3 * 5)),
    FactorizationHead(RNG.normal(size=3), RNG.normal(size=(3, 2)), RNG.normal(size=(3, 2, 5))),
    TreesHead(
        np.array([1, -1, -1]),
        np.array([0.5, 0, 0]),
        np.array([1, -1, -1]),
        np.array([2, -1, -1]),
        RNG.random((3, 3)),
        np.array([0]),
        np.array(True),
    ),
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
def test_a_head_is_kept_without_pickle_and_read_back(head: Head, tmp_path: Path) -> None:
    features = RNG.normal(size=(7, 2)).astype(np.float32)
    scores = head.score(features)
    assert scores.shape == (7, 3)
    assert scores.dtype == np.float64
    if head.gives == "probability":
        np.testing.assert_allclose(scores.sum(axis=1), 1)
    head.write(tmp_path)
    again = read_head(tmp_path, head.kind)
    assert type(again) is type(head)
    assert again.gives == head.gives
    np.testing.assert_array_equal(again.score(features), scores)


def test_what_is_no_array_of_numbers_is_not_read(tmp_path: Path) -> None:
    empty = {field.name: np.array([{}], dtype=object) for field in fields(MarginsHead)}
    np.savez(tmp_path / "head.npz", **empty)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_head(tmp_path, "margins")
    with pytest.raises(ModelError, match="a classifier of the kind unheard"):
        read_head(tmp_path, "unheard")


def test_the_softmax_of_large_logarithms_is_no_overflow() -> None:
    found = softmax_rows(np.array([[1000.0, 1000.0], [-1000.0, 0.0]]))
    np.testing.assert_allclose(found, [[0.5, 0.5], [0, 1]])
