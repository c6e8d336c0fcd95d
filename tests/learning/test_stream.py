from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tests.learning.samples import in_file, sample, setting
from tuner.base.errors import SearchError
from tuner.classifiers.scikit import SklearnHead, joined
from tuner.learning.learner import Learner
from tuner.learning.state import Course, make_learner
from tuner.learning.stream import Passed, drawn_order, learn_stream, score_rows

COURSE = Course(seed=3, batch=32, epochs=2)


class Noting:
    """A learner that notes what it is given, in place of learning it: what it says is class 1."""

    def __init__(self) -> None:
        self.given: list[np.ndarray] = []

    def learn(self, features: np.ndarray, label_index: np.ndarray) -> None:
        assert len(features) == len(label_index)
        self.given.append(features[:, 0])

    def head(self) -> SklearnHead:
        always = LogisticRegression()
        always.coef_, always.intercept_ = np.zeros((4, 30)), np.array([0, 1, 0, 0.0])
        always.classes_, always.n_features_in_ = np.arange(4), 30
        return SklearnHead(joined("passthrough", always), 4)


def passed(learner: Learner, folder: Path, count: int = 100, **more) -> list[Passed]:
    features, label = sample(count)
    features[:, 0] = np.arange(count)
    with in_file(folder, features) as file:
        return list(learn_stream(learner, file, np.arange(count), label, **{"course": COURSE} | more))


def test_each_pass_has_every_image_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    noting, again, other = Noting(), Noting(), Noting()
    steps = passed(noting, tmp_path)
    assert [len(batch) for batch in noting.given] == [32, 32, 32, 4] * 2
    assert [step.learned for step in steps] == [32, 64, 96, 100] * 2
    assert [step.ends_epoch for step in steps] == [False, False, False, True] * 2
    first, second = (np.concatenate(noting.given[part : part + 4]) for part in (0, 4))
    assert sorted(first) == sorted(second) == list(range(100))
    assert list(first) != list(second)
    assert list(first) == list(drawn_order(100, 3, 1))
    passed(again, tmp_path)
    passed(other, tmp_path, course=Course(seed=4, batch=32, epochs=2))
    np.testing.assert_array_equal(np.concatenate(again.given), np.concatenate(noting.given))
    assert list(np.concatenate(other.given)[:100]) != list(first)


def test_images_are_predicted_before_they_are_learned_and_once(tmp_path: Path) -> None:
    """Of the first batch nothing is known, unless something was learned before."""
    _, label = sample(100)
    ones = label[drawn_order(100, 3, 1)] == 1
    steps = passed(Noting(), tmp_path)
    assert [step.predicted for step in steps] == [0, 32, 64, 68, 68, 68, 68, 68]
    assert [step.right for step in steps[:4]] == [0, ones[32:64].sum(), ones[32:96].sum(), ones[32:].sum()]
    assert steps[0].accuracy is None
    assert steps[-1].accuracy == pytest.approx(ones[32:].mean())
    (*_, last) = passed(Noting(), tmp_path, knows=True)
    assert (last.predicted, last.right) == (100, ones.sum())


@pytest.mark.parametrize(
    ("epoch", "learned", "left"), [(1, 64, 136), (2, 0, 100), (2, 96, 4), (1, 100, 100)]
)
def test_it_goes_on_where_it_stopped(epoch: int, learned: int, left: int, tmp_path: Path) -> None:
    whole, rest = Noting(), Noting()
    passed(whole, tmp_path)
    passed(rest, tmp_path, course=Course(3, 32, 2, epoch, learned))
    np.testing.assert_array_equal(np.concatenate(rest.given), np.concatenate(whole.given)[-left:])


class Growing(Noting):
    """What it says is no number any more."""

    def head(self) -> SklearnHead:
        head = super().head()
        head.pipeline.named_steps["classifier"].intercept_[0] = np.nan
        return head


def test_what_grows_beyond_all_bounds_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"gives no finite numbers in epoch 1: lower the classifier's"):
        passed(Growing(), tmp_path)


def test_rows_are_scored_as_if_they_were_in_memory(tmp_path: Path) -> None:
    features, label = sample(3000)
    learner = make_learner(setting("sklearn.SGD"))
    learner.learn(features[:100], label[:100])
    places = np.arange(2999, 0, -1)
    with in_file(tmp_path, features) as file:
        found = score_rows(learner.head(), file, places)
    np.testing.assert_allclose(found, learner.head().score(features[places]))
