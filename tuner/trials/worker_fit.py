"""Fits in the worker, on features mapped from a file: as MLlib does, by NumPy, or by scikit-learn."""

from __future__ import annotations

import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tuner.base.choices import ClassWeight
from tuner.base.errors import TrialError
from tuner.base.machine import memory_mib
from tuner.classifiers.heads.files import Head
from tuner.classifiers.heads.steps import Step, SteppedHead, fit_step
from tuner.classifiers.logistic_regression import fit
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.rows.row import NONE
from tuner.classifiers.scikit import fit_sklearn
from tuner.classifiers.standardized import Standardized
from tuner.evaluation.predictions import Scored
from tuner.models.fitted.estimators import weight_of
from tuner.preparation.matrices import FeatureMatrices, FeatureTable
from tuner.spark.endpoint import too_long
from tuner.trials.fits import Fit, Fitted, class_weights

_KEPT_SHARE = 8  # of the machine's memory, an eighth for all workers' copies of rows together


@dataclass(frozen=True)
class WorkerFits:
    """The fits of one trial, made by this process.

    Parameters
    ----------
    matrices
        Where the features are.
    params, classes, class_weight
        What to fit with, how many classes there are, and whether rare classes weigh more.
    threads
        For the products of matrices.
    at_once
        How many workers share this machine's memory.
    seed
        `search.seed`, for what has a part of chance.
    """

    matrices: FeatureMatrices
    params: TrialParams
    classes: int
    class_weight: ClassWeight
    threads: int
    at_once: int
    seed: int = 0

    def fit_and_score(self, held_back: str) -> Fit:
        """Fit on all rows but those of a part, and score on that part."""
        unseen = self.matrices.open(self.params.backbone).only(held_back)
        with threadpool_limits(self.threads):
            made, seen, seconds = self._fit(held_back)
            head = made.head
            right = head.score(seen.features).argmax(axis=1) == seen.label_index
            scores = head.score(unseen.features)
        return Fit(
            fitted=lambda: Fitted(head),
            seconds=seconds,
            train_accuracy=float(right.mean()),
            history=made.history,
            scored=Scored(list(unseen.path), unseen.label_index, scores, head.gives),
            warnings=made.warnings,
        )

    def fit_all(self) -> Fitted:
        """Fit on all rows."""
        with threadpool_limits(self.threads):
            made, _, _ = self._fit(None)
        return Fitted(made.head)

    def _fit(self, held_back: str | None) -> tuple[_Made, FeatureTable, float]:
        """Fit on all rows but those of a part; gives also these rows, and the seconds of the fit."""
        if self.params.row.library == "mllib":
            prepared = self._training(held_back)
            seen, step = prepared.rows, prepared.step
            started = time.monotonic()
            values: Any = self.params.own
            found = fit(prepared.standardized, seen.label_index, classes=self.classes, **values)
            made = _Made(found if step is None else SteppedHead(step, found), found.objectiveHistory)
        else:
            seen = self._rows(held_back)
            weights = class_weights(seen.label_index, self._weight)
            started = time.monotonic()
            fitted = fit_sklearn(
                self.params, seen.features, seen.label_index, weights, classes=self.classes, seed=self.seed
            )
            made = _Made(fitted.head, [], fitted.warnings)
        return made, seen, time.monotonic() - started

    @property
    def _weight(self) -> ClassWeight:
        return weight_of(self.params, self.class_weight)

    def _training(self, held_back: str | None) -> _Training:
        """The rows to fit on, with their moments: kept from trial to trial."""
        budget = memory_mib() * 2**20 // _KEPT_SHARE // self.at_once
        step = self.params.prestep, self.params.components
        key = (self.matrices.folder, self.params.backbone, held_back, self._weight, step)
        return _KEPT.get(key, self._standardize, held_back, budget)

    def _rows(self, held_back: str | None) -> FeatureTable:
        whole = self.matrices.open(self.params.backbone)
        return whole if held_back is None else whole.all_but(held_back)

    def _standardize(self, held_back: str | None) -> _Training:
        rows, params, step = self._rows(held_back), self.params, None
        features = rows.features
        if params.prestep != NONE:
            step = fit_step(params.prestep, features, params.components)
            features = step.apply(features)
        return _Training(rows, step, Standardized(features, class_weights(rows.label_index, self._weight)))


@dataclass(frozen=True)
class _Training:
    """Rows to fit on; the step before the classifier, and what it gives of them, with its moments."""

    rows: FeatureTable
    step: Step | None
    standardized: Standardized

    @property
    def copied_bytes(self) -> int:
        """What they take in this process's own memory; what is mapped from the file takes none."""
        arrays = [self.rows.features] + ([self.standardized.features] if self.step else [])
        return sum(array.nbytes for array in arrays if not isinstance(array, np.memmap))


@dataclass(frozen=True)
class _Made:
    """A fit, whichever library's way it went."""

    head: Head
    history: list[float]
    warnings: tuple[str, ...] = ()


@contextmanager
def given_up_after(seconds: float | None, fits: WorkerFits) -> Iterator[WorkerFits]:
    """Raise `TrialError` in this process's main thread, where tasks run, after `seconds`; None: never.

    A step of NumPy's ends first; what never returns is ended by the driver, with its process.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield fits
        return
    limit = seconds

    def give_up(*_: object) -> None:
        raise TrialError(too_long(limit))

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield fits
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Kept:
    """What trials of this process share: the rows used last, within a budget of memory."""

    def __init__(self) -> None:
        self._tables: OrderedDict[object, _Training] = OrderedDict()

    def get(
        self,
        key: object,
        make: Callable[[str | None], _Training],
        held_back: str | None,
        budget: int,
    ) -> _Training:
        if key not in self._tables:
            self._tables[key] = make(held_back)
        self._tables.move_to_end(key)
        while len(self._tables) > 1 and sum(kept.copied_bytes for kept in self._tables.values()) > budget:
            self._tables.popitem(last=False)
        return self._tables[key]


_KEPT = _Kept()
