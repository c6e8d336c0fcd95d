"""What every learner does, whatever its library."""

from pathlib import Path

import numpy as np
import pytest

from tests.learning.samples import CLASSES, sample, setting
from tuner.classifiers.heads.files import read_head
from tuner.classifiers.table import INCREMENTAL
from tuner.learning.state import make_learner, read_learner

# Each, and River's one image at a time.
ALL = [*((name, "batch") for name in INCREMENTAL), ("river.LogisticRegression", "row")]


@pytest.mark.parametrize(("name", "step"), ALL)
def test_what_was_kept_goes_on_as_if_it_had_not_stopped(name: str, step: str, tmp_path: Path) -> None:
    features, label = sample(counts=INCREMENTAL[name].of_counts)
    whole = make_learner(setting(name, step))
    for start in range(0, 200, 32):
        whole.learn(features[start : start + 32], label[start : start + 32])
    whole.write(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} <= {".npz", ".skops"}
    again = read_learner(tmp_path, setting(name, step))
    np.testing.assert_array_equal(again.head().score(features), whole.head().score(features))
    before = whole.head().score(features)
    for learner in (whole, again):
        for start in range(200, 400, 32):
            learner.learn(features[start : start + 32], label[start : start + 32])
    np.testing.assert_allclose(again.head().score(features), whole.head().score(features), atol=1e-9)
    assert np.abs(whole.head().score(features) - before).max() > 1e-3


@pytest.mark.parametrize(("name", "step"), ALL)
def test_what_it_computes_is_a_head_that_is_kept_and_read_back(
    name: str, step: str, tmp_path: Path
) -> None:
    row = INCREMENTAL[name]
    features, label = sample(counts=row.of_counts)
    learner = make_learner(setting(name, step))
    two = np.flatnonzero(label == 2)[:5]
    learner.learn(features[two], label[two])  # of one class: the others are not the answer
    with np.errstate(divide="ignore"):
        first = learner.head().score(features[two])
    assert first.shape == (5, CLASSES)
    if name not in ("sklearn.MLP", "sklearn.PassiveAggressive"):  # one step of theirs is not enough
        assert (first.argmax(axis=1) == 2).all()
    for _ in range(3 if step == "row" else 15):
        for start in range(0, 400, 20):
            learner.learn(features[start : start + 20], label[start : start + 20])
    head = learner.head()
    assert head.gives == row.gives
    head.write(tmp_path)
    scores = read_head(tmp_path, head.kind).score(features)
    np.testing.assert_array_equal(scores, head.score(features))
    assert (scores.argmax(axis=1) == label).mean() > 0.9
    if row.gives == "probability":
        np.testing.assert_allclose(scores.sum(axis=1), 1)
