"""Trials that train networks: points drawn, rungs of successive halving, and what runs on a worker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from hyperopt import STATUS_FAIL, STATUS_OK

from tuner.base.choices import Metric
from tuner.base.wording import first_line
from tuner.experiment.training.fine_tuning import FineTune
from tuner.extraction.udf import see_assigned_gpus
from tuner.tracking.run_log import RunLog
from tuner.tracking.runs import trial_run
from tuner.tracking.store import Tracking
from tuner.training.bases import Base
from tuner.training.checkpoints import Epoch
from tuner.training.images import TrainingImages
from tuner.training.loop import Training
from tuner.training.plan import plan_of
from tuner.trials.space import NUMBER

_RESULT = "training"  # where hyperopt keeps what a trial came to
_ATTEMPTS = 50  # at a point that was not drawn before

Values = Mapping[str, float | int | str]


def drawn_points(settings: FineTune, seed: int) -> list[Values]:
    """Draw what each trial trains with: no point twice, and fewer where there are no more."""
    rng = np.random.default_rng(seed)
    points: list[Values] = []
    for _ in range(settings.max_evals):
        for _ in range(_ATTEMPTS):
            point = _drawn(settings, rng)
            if point not in points:
                points.append(point)
                break
    return points


def _drawn(settings: FineTune, rng: np.random.Generator) -> Values:
    point: dict[str, float | int | str] = {}
    for name in settings.searched:
        if name == "unfreeze":
            point[name] = settings.unfreeze[int(rng.integers(len(settings.unfreeze)))]
            continue
        space = settings.spaces[name]
        if space.values:
            point[name] = float(space.values[int(rng.integers(len(space.values)))])
            continue
        low, high = space.bounds
        drawn = (
            math.exp(rng.uniform(math.log(low), math.log(high))) if space.log else rng.uniform(low, high)
        )
        point[name] = float(f"{drawn:.4g}")  # as it is logged, so that a trial is what its run says
    return point


@dataclass(frozen=True)
class Rung:
    """So many trials are trained until after this epoch."""

    epoch: int
    trials: int


def rungs(trials: int, epochs: int, reduction: int) -> list[Rung]:
    """Plan successive halving: fewer trials, each for more epochs, until one is trained to the end.

    References
    ----------
    Jamieson, Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS
    2016.
    """
    counts = [trials]
    while counts[-1] > 1:
        counts.append(math.ceil(counts[-1] / reduction))
    planned: list[Rung] = []
    for left, count in zip(reversed(range(len(counts))), counts, strict=True):
        rung = Rung(math.ceil(epochs / reduction**left), count)
        if not planned or rung.epoch > planned[-1].epoch:  # of few epochs, several rungs would be one
            planned.append(rung)
    return planned


@dataclass(frozen=True)
class Trained:
    """What a trial came to so far.

    Attributes
    ----------
    number, run_id
        Of the trial, from 1, and of its run; None where MLflow had none yet.
    epochs
        How many it was trained for.
    best
        The best of them; None where it failed.
    seconds
        All epochs together.
    reason
        Why it failed; None where it did not.
    notes
        Sentences on what happened on the way.
    """

    number: int
    run_id: str | None = None
    epochs: int = 0
    best: Epoch | None = None
    seconds: float = 0.0
    reason: str | None = None
    notes: Sequence[str] = ()

    def rank(self, metric: str) -> tuple[float, float, int]:
        """The lower, the better; of a trial that did not fail."""
        assert self.best is not None
        return (*self.best.rank(metric), self.number)

    def to_document(self, metric: str) -> dict[str, Any]:
        """The result as hyperopt keeps it."""
        ended = (
            {"status": STATUS_OK, "loss": self.rank(metric)[0]} if self.best else {"status": STATUS_FAIL}
        )
        return ended | {_RESULT: asdict(self)}

    @classmethod
    def of_document(cls, result: Mapping[str, Any]) -> Trained | None:
        """Read what `to_document` gave; None of a trial that was lost."""
        data = result.get(_RESULT)
        if data is None:
            return None
        best = Epoch(**data["best"]) if data["best"] else None
        return cls(**{**data, "best": best})


@dataclass(frozen=True)
class TuningTrial:
    """The objective that SparkTrials sends to a worker: it trains one of the points up to a rung's epoch.

    It goes on from the trial's own checkpoint and in its own run, and never raises: a trial that fails
    leaves a FAILED run with its reason.

    Parameters
    ----------
    tracking, parent_id
        Where MLflow is, and the run of the whole.
    base, settings, images, labels
        What is trained, how and on what; `settings` with `points`, by number.
    numbers
        The trials of this rung: SparkTrials gives the place of one, from 1.
    until
        The rung's epoch.
    folder
        Where each trial has a folder for its checkpoints; all workers see it.
    metric, seed
        What epochs and trials are ranked by, and what decides all that is drawn.
    threads
        For TensorFlow: a trial's share of the cores.
    """

    tracking: Tracking
    parent_id: str
    base: Base
    settings: FineTune
    points: Sequence[Values]
    images: TrainingImages
    labels: Sequence[str]
    numbers: Sequence[int]
    until: int
    folder: Path
    metric: Metric
    seed: int
    threads: int

    def __call__(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Train; gives the result as hyperopt keeps it."""
        see_assigned_gpus()
        number = self.numbers[int(point[NUMBER]) - 1]
        return self._trained(number).to_document(self.metric)

    def _trained(self, number: int) -> Trained:
        trained = Trained(number)
        values = self.points[number - 1]
        params = {"backbone": self.base.name, **values}
        try:
            with trial_run(self.tracking, self.parent_id, number, params, goes_on=True) as run:
                trained = replace(trained, run_id=run.run_id)
                training = self.training(number, run)
                progress = training.run(self.until)
                best = progress.best(self.metric)
                run.batch(metrics={**best.validation, "best_epoch": best.number}, step=progress.begins - 1)
        except Exception as error:
            return replace(trained, reason=first_line(error))
        seconds = sum(epoch.seconds for epoch in progress.history)
        epochs, notes = len(progress.history), tuple(progress.notes)
        return replace(trained, epochs=epochs, best=best, seconds=seconds, notes=notes)

    def training(self, number: int, run: RunLog | None = None) -> Training:
        """The training of a trial, which logs its epochs to a run."""
        plan = plan_of(self.settings, self.points[number - 1], self.metric, self.seed)

        def log(epoch: Epoch) -> None:
            if run is not None:
                log_epoch(run, epoch)

        return Training(
            self.base,
            plan,
            self.images,
            self.labels,
            self.folder / f"{number:03d}",
            threads=self.threads,
            on_epoch=log,
        )


def log_epoch(run: RunLog, epoch: Epoch) -> None:
    """Log what an epoch showed, at its number."""
    run.batch(metrics={**epoch.metrics, "epoch_seconds": epoch.seconds}, step=epoch.number)
