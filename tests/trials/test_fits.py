import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from tuner.trials.fits import class_weights

Labels = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(lambda labels: np.array(labels, np.int32))


@given(label_index=Labels)
def test_balanced_weights_are_those_of_scikit_learn(label_index: np.ndarray) -> None:
    """Whichever classes are among the rows: one that is not there weighs nothing, and takes no share."""
    weights = class_weights(label_index, "balanced")
    present = np.unique(label_index)
    theirs = dict(
        zip(present, compute_class_weight("balanced", classes=present, y=label_index), strict=True)
    )
    np.testing.assert_allclose(weights, [theirs[label] for label in label_index], rtol=1e-12)


@given(label_index=Labels)
def test_every_class_has_as_much_to_say_in_sum(label_index: np.ndarray) -> None:
    weights = class_weights(label_index, "balanced")
    sums = [weights[label_index == label].sum() for label in np.unique(label_index)]
    np.testing.assert_allclose(sums, len(label_index) / len(sums), rtol=1e-12)


def test_without_class_weights_no_row_has_one() -> None:
    assert class_weights(np.array([0, 0, 1]), "none") is None
