"""What was learned, kept in the run's artifacts while it is learned, so that it can be gone on with."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tuner.learning.learner import Learner
from tuner.learning.state import LearnedState
from tuner.learning.stream import Passed
from tuner.tracking import names
from tuner.tracking.run_log import RunLog

_SECONDS = 30.0  # of work that a kill may cost


class Keeper:
    """Keeps what was learned in the run's artifacts, every half minute and at the end."""

    def __init__(self, run: RunLog, learner: Learner, state: LearnedState, before: int) -> None:
        self._run, self._learner, self._state, self._before = run, learner, state, before
        self._images: int = int(state.images["run"].sum())
        self._next = time.monotonic() + _SECONDS
        with tempfile.TemporaryDirectory() as folder:
            state.write_images(Path(folder))
            run.files(Path(folder), names.LEARNER_FOLDER)

    def after(self, passed: Passed) -> None:
        """Keep it after a batch, if it is time."""
        course = replace(self._state.course, epoch=passed.epoch, learned=passed.learned)
        over = course.is_over(self._images)
        if not over and time.monotonic() < self._next:
            return
        with tempfile.TemporaryDirectory() as folder:
            replace(self._state, course=course).write(Path(folder), self._learner)
            self._run.files(Path(folder), names.LEARNER_FOLDER)
        learned = self._before + (passed.learned if passed.epoch == 1 else self._images)
        self._run.batch(tags={names.LEARNED: learned})
        self._next = time.monotonic() + _SECONDS
