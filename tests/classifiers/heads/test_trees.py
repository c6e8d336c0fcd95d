"""By hand; `tests/models/fitted/test_saved.py` compares with MLlib itself."""

import numpy as np

from tuner.classifiers.heads.trees import TreesHead

# A tree: feature 0 at most 0.5 → leaf; else feature 1 at most 2 → leaf or leaf. Another: one leaf.
FEATURE = np.array([0, -1, 1, -1, -1, -1])
THRESHOLD = np.array([0.5, 0, 2, 0, 0, 0])
LEFT, RIGHT = np.array([1, -1, 3, -1, -1, -1]), np.array([2, -1, 4, -1, -1, -1])
VALUE = np.array([[0, 0], [1, 0], [0, 0], [0.25, 0.75], [0, 1], [0.5, 0.5]])
ROWS = np.array([[0.5, 9], [0.6, 2], [0.6, 2.1]])


def trees(shares: bool, roots: tuple[int, ...]) -> TreesHead:
    return TreesHead(FEATURE, THRESHOLD, LEFT, RIGHT, VALUE, np.array(roots), np.array(shares))


def test_an_image_goes_left_where_its_feature_is_at_most_the_threshold() -> None:
    assert trees(True, (0,)).score(ROWS).tolist() == [[1, 0], [0.25, 0.75], [0, 1]]


def test_votes_are_shares_and_boosted_trees_are_sums() -> None:
    sums = np.array([[1.5, 0.5], [0.75, 1.25], [0.5, 1.5]])
    head = trees(True, (0, 5))
    assert head.gives == "probability"
    np.testing.assert_allclose(head.score(ROWS), sums / 2)
    head = trees(False, (0, 5))
    assert head.gives == "decision"
    np.testing.assert_allclose(head.score(ROWS), sums)


def test_features_of_32_bits_are_compared_as_they_are() -> None:
    """0.1 as float32 is a little more than 0.1 as float64."""
    threshold = np.array([0.1, 0, 2, 0, 0, 0])
    head = TreesHead(FEATURE, threshold, LEFT, RIGHT, VALUE, np.array([0]), np.array(True))
    assert head.score(np.array([[0.1, 0]], np.float32)).tolist() == [[0.25, 0.75]]
    assert head.score(np.array([[0.1, 0]])).tolist() == [[1, 0]]
