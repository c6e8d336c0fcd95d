"""Fits in the worker: a trial's features are mapped from a file, and fitted as MLlib does, by NumPy."""

from __future__ import annotations

import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from tuner.base.choices import ClassWeight
from tuner.base.errors import TrialError
from tuner.base.machine import memory_mib
from tuner.classifiers.linear import LinearHead
from tuner.classifiers.logistic_regression import fit
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.standardized import Standardized
from tuner.evaluation.predictions import Scored
from tuner.preparation.matrices import FeatureMatrices, FeatureTable
from tuner.spark.endpoint import too_long
from tuner.trials.fits import Fit, class_weights

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
    """

    matrices: FeatureMatrices
    params: TrialParams
    classes: int
    class_weight: ClassWeight
    threads: int
    at_once: int

    def fit_and_score(self, held_back: str) -> Fit:
        """Fit on all rows but those of a part, and score on that part."""
        seen, standardized = self._training(held_back)
        unseen = self.matrices.open(self.params.backbone).only(held_back)
        with threadpool_limits(self.threads):
            started = time.monotonic()
            found = fit(standardized, seen.label_index, classes=self.classes, **self.params.values)
            seconds = time.monotonic() - started
            right = found.probability(seen.features).argmax(axis=1) == seen.label_index
            probability = found.probability(unseen.features)
        return Fit(
            head=found,
            seconds=seconds,
            train_accuracy=float(right.mean()),
            history=found.objectiveHistory,
            scored=Scored(list(unseen.path), unseen.label_index, probability),
        )

    def fit_all(self) -> LinearHead:
        """Fit on all rows."""
        table, standardized = self._training(None)
        with threadpool_limits(self.threads):
            return fit(standardized, table.label_index, classes=self.classes, **self.params.values)

    def _training(self, held_back: str | None) -> tuple[FeatureTable, Standardized]:
        """The rows to fit on, with their moments: kept from trial to trial."""
        budget = memory_mib() * 2**20 // _KEPT_SHARE // self.at_once
        key = (self.matrices.folder, self.params.backbone, held_back, self.class_weight)
        return _KEPT.get(key, self._standardize, held_back, budget)

    def _standardize(self, held_back: str | None) -> tuple[FeatureTable, Standardized]:
        whole = self.matrices.open(self.params.backbone)
        table = whole if held_back is None else whole.all_but(held_back)
        return table, Standardized(table.features, class_weights(table.label_index, self.class_weight))


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
        self._tables: OrderedDict[object, tuple[FeatureTable, Standardized]] = OrderedDict()

    def get(
        self,
        key: object,
        make: Callable[[str | None], tuple[FeatureTable, Standardized]],
        held_back: str | None,
        budget: int,
    ) -> tuple[FeatureTable, Standardized]:
        if key not in self._tables:
            self._tables[key] = make(held_back)
        self._tables.move_to_end(key)
        while len(self._tables) > 1 and sum(map(_copied_bytes, self._tables.values())) > budget:
            self._tables.popitem(last=False)
        return self._tables[key]


def _copied_bytes(kept: tuple[FeatureTable, Standardized]) -> int:
    """What rows take in this process's own memory; those that are mapped from the file take none."""
    features = kept[0].features
    return 0 if isinstance(features, np.memmap) else features.nbytes


_KEPT = _Kept()
