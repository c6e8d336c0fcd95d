import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.classifiers.rows import sample
from tuner.classifiers.standardized import Blocks, Standardized

BLOCK_BYTES = "tuner.classifiers.standardized._BLOCK_BYTES"


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.booleans())
@settings(deadline=None)
def test_moments(seed, count, weighted):
    rows = sample(seed, rows=count, width=5, classes=2, weighted=weighted)
    rows.features[:, 2] = rows.features[0, 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BLOCK_BYTES, 8 * 5 * 7)
        table = Standardized(rows.features, rows.weights)
    wide = rows.features.astype(np.float64)
    weights = np.ones(count) if rows.weights is None else rows.weights
    mean = np.average(wide, axis=0, weights=weights)
    np.testing.assert_allclose(table.mean, mean, rtol=1e-12, atol=1e-12)
    freedom = weights.sum() - (weights**2).sum() / weights.sum()
    expected = np.sqrt(weights @ (wide - mean) ** 2 / freedom) if count > 1 else np.zeros(5)
    np.testing.assert_allclose(table.std, expected, rtol=1e-9, atol=1e-12)
    assert table.std[2] == 0


@given(st.integers(0, 30), st.integers(1, 9), st.integers(0, 5))
def test_blocks_are_all_rows_in_order(count, width, beside):
    features = np.arange(count * width, dtype=np.float32).reshape(count, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BLOCK_BYTES, 8 * 40)
        blocks = Blocks(features, beside)
        found = [(rows, block.copy()) for rows, block in blocks]
        again = [rows for rows, block in blocks if (block == features[rows]).all()]
    assert again == [rows for rows, _ in found]
    for rows, block in found:
        assert block.dtype == np.float64
        assert block.size + beside * len(block) <= 40
        np.testing.assert_array_equal(block, features[rows])
    assert [row for rows, _ in found for row in range(rows.start, rows.stop)] == list(range(count))


def test_what_is_given_stays_as_it_is():
    rows = sample(seed=6, rows=50, width=6, classes=3, weighted=True)
    features, weights = rows.features.copy(), rows.weights.copy()
    table = Standardized(rows.features, rows.weights)
    np.testing.assert_array_equal(rows.features, features)
    np.testing.assert_array_equal(rows.weights, weights)
    assert table.features is rows.features
    assert table.nbytes == 50 * 6 * 4 + 50 * 8 + 2 * 6 * 8


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("features", "weights", "reason"),
    [
        (np.empty((0, 3)), None, "give one at least"),
        (np.ones(3), None, "no rows of one width"),
        (np.array([[1.0, np.nan], [1.0, 2.0]]), None, "not a finite number"),
        (np.array([[1.0, 2.0], [1.0, np.inf]]), None, "not a finite number"),
        (np.ones((2, 2)), np.array([1.0]), "one a row"),
        (np.ones((2, 2)), np.array([1.0, 0.0]), "above 0"),
        (np.ones((2, 2)), np.array([1.0, np.nan]), "finite numbers"),
    ],
)
def test_rows_that_nothing_can_be_fitted_on(features, weights, reason):
    with pytest.raises(ValueError, match=reason):
        Standardized(features, weights)
