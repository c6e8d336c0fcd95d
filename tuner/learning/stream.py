"""Images streamed through a learner, batch after batch, in an order that the seed decides; and scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tuner.base.errors import SearchError
from tuner.classifiers.heads.files import Head
from tuner.learning.learner import Learner
from tuner.learning.rows import RowFile
from tuner.learning.state import Course

_SCORED = 1024  # rows at once


@dataclass(frozen=True)
class Passed:
    """How far a learner has come, after a batch.

    Attributes
    ----------
    epoch
        Which pass over the images it is, from 1.
    learned
        The images of this pass that were learned.
    predicted, right
        Of how many images the class was predicted before they were learned for the first time, and how
        often rightly: progressive validation. A learner that knows nothing predicts nothing: its first
        batch is left out.
    ends_epoch
        Whether the pass is over.
    """

    epoch: int
    learned: int
    predicted: int
    right: int
    ends_epoch: bool

    @property
    def accuracy(self) -> float | None:
        """The share that was predicted rightly; None: none was predicted."""
        return self.right / self.predicted if self.predicted else None


def drawn_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of so many rows in a pass: int64 of shape (count,)."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def learn_stream(
    learner: Learner,
    rows: RowFile,
    places: np.ndarray,
    label_index: np.ndarray,
    *,
    course: Course,
    knows: bool = False,
) -> Iterator[Passed]:
    """Learn rows of a file batch after batch, and tell after each how far that is.

    Parameters
    ----------
    places, label_index
        Which rows, in an order that is always the same, and their classes; of shape (n,).
    course
        Where to begin, and how to go on.
    knows
        Whether it has learned before: its first batch is predicted, too.

    Raises
    ------
    SearchError
        The numbers of the classifier grew beyond all bounds.
    """
    predicted = right = 0
    for epoch in range(course.epoch, course.epochs + 1):
        order = drawn_order(len(places), course.seed, epoch)
        begin = course.learned if epoch == course.epoch else 0
        for start in range(begin, len(order), course.batch):
            chosen = order[start : start + course.batch]
            features, labels = rows[places[chosen]], label_index[chosen]
            if epoch == 1 and (start or knows):
                right += int((_scores(learner.head(), features, epoch).argmax(axis=1) == labels).sum())
                predicted += len(chosen)
            learner.learn(features, labels)
            learned = start + len(chosen)
            yield Passed(epoch, learned, predicted, right, learned == len(order))


def score_rows(head: Head, rows: RowFile, places: np.ndarray) -> np.ndarray:
    """Scores of rows of a file: float64 of shape (n, classes)."""
    pieces = [
        _scores(head, rows[places[start : start + _SCORED]]) for start in range(0, len(places), _SCORED)
    ]
    return np.concatenate(pieces)


def _scores(head: Head, features: np.ndarray, epoch: int | None = None) -> np.ndarray:
    with np.errstate(all="ignore"):
        scores = head.score(features)
    if not np.isfinite(scores).all():
        when = "" if epoch is None else f" in epoch {epoch}"
        raise SearchError(
            f"What was learned gives no finite numbers{when}: lower the classifier's rate of learning (lr, "
            "eta0, learning_rate_init), or raise learn.batch."
        )
    return scores
