"""Steps as this process fits them, beside scikit-learn's; MLlib's own are in tests/models/fitted."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import Normalizer, StandardScaler

from tests.classifiers.rows import sample
from tuner.classifiers.heads.files import read_head
from tuner.classifiers.heads.mllib import MarginsHead
from tuner.classifiers.heads.steps import Step, SteppedHead, fit_step, step_and_head
from tuner.classifiers.rows.row import NONE, PRESTEPS

ROWS = sample(0, rows=60, width=7, classes=3, kind="constant column").features
UNSEEN = sample(1, rows=9, width=7, classes=3).features
STEPS = {name: fit_step(name, ROWS, 3) for name in PRESTEPS if name != NONE}


def test_a_scaler_is_scikit_learn_s_with_the_deviation_of_a_sample() -> None:
    theirs = StandardScaler().fit(ROWS.astype(np.float64))
    varies = theirs.var_ > 0
    assert not varies.all()
    expected = theirs.transform(UNSEEN.astype(np.float64)) * np.sqrt((len(ROWS) - 1) / len(ROWS)) * varies
    np.testing.assert_allclose(STEPS["StandardScaler"].apply(UNSEEN), expected, rtol=1e-9, atol=1e-9)


def test_a_normalizer_is_scikit_learn_s_and_leaves_zeros() -> None:
    rows = np.vstack([UNSEEN, np.zeros(7, np.float32)])
    expected = Normalizer().transform(rows.astype(np.float64))
    np.testing.assert_allclose(STEPS["Normalizer"].apply(rows), expected, rtol=1e-12)


def test_components_are_scikit_learn_s_and_a_constant_each() -> None:
    theirs, step = PCA(3, svd_solver="full").fit(ROWS.astype(np.float64)), STEPS["PCA"]
    signs = np.sign((theirs.components_ * step.numbers["pc"].T).sum(axis=1))
    constant = theirs.mean_ @ step.numbers["pc"]
    assert np.abs(constant).max() > 0.1
    expected = signs * theirs.transform(UNSEEN.astype(np.float64)) + constant
    np.testing.assert_allclose(step.apply(UNSEEN), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(step.numbers["explainedVariance"], theirs.explained_variance_ratio_)


@pytest.mark.parametrize("name", ["StandardScaler", "PCA"])
def test_what_is_linear_after_a_step_is_linear_before_it(name: str) -> None:
    step, rng = STEPS[name], np.random.default_rng(0)
    matrix, bias = rng.normal(size=(step.apply(UNSEEN).shape[1], 4)), rng.normal(size=4)
    folded, added = step.folded(matrix, bias)
    np.testing.assert_allclose(UNSEEN @ folded + added, step.apply(UNSEEN) @ matrix + bias, atol=1e-9)


@pytest.mark.parametrize("name", STEPS)
def test_a_head_with_a_step_is_kept_without_pickle_and_read_back(name: str, tmp_path: Path) -> None:
    width = STEPS[name].apply(UNSEEN).shape[1]
    inner = MarginsHead(np.random.default_rng(0).normal(size=(3, width)), np.zeros(3))
    head = SteppedHead(STEPS[name], inner)
    assert (step_and_head(head), step_and_head(inner)) == ((head.step, inner), (None, inner))
    head.write(tmp_path)
    again = read_head(tmp_path, head.kind)
    assert isinstance(again, SteppedHead)
    assert (again.step.name, again.gives, type(again.head)) == (name, "decision", MarginsHead)
    np.testing.assert_array_equal(again.score(UNSEEN), inner.score(STEPS[name].apply(UNSEEN)))


def test_what_is_no_array_of_numbers_is_not_read(tmp_path: Path) -> None:
    inner = MarginsHead(np.zeros((3, 1)), np.zeros(3))
    SteppedHead(Step("PCA", {"pc": np.array([[{}]], dtype=object)}), inner).write(tmp_path)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_head(tmp_path, "stepped")
