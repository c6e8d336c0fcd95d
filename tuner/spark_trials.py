"""hyperopt's SparkTrials as a search runs it: reused workers, short polls, rounds where asked for."""

from __future__ import annotations

import contextlib
import importlib
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from hyperopt import STATUS_OK, SparkTrials, fmin
from hyperopt.base import JOB_STATE_DONE
from hyperopt.exceptions import AllTrialsFailed
from pyspark.sql import SparkSession

from tuner.experiment import Search
from tuner.search_space import hyperopt_space, without_repeats

Objective = Callable[[dict[str, Any]], dict[str, Any]]
_POLL_SECONDS = 0.1


class _ReusingSession:
    """A session for SparkTrials whose tasks leave their Python worker fit for the next trial.

    SparkTrials never reads the one row of its task, and PySpark ends a worker whose input was not read
    to its end: each trial would start a process and import everything again. Only what SparkTrials calls
    is covered; the rest is the session's own.
    """

    def __init__(self, covered: Any) -> None:
        self._covered = covered

    def __getattr__(self, name: str) -> Any:
        return getattr(self._covered, name)

    @property
    def sparkContext(self) -> _ReusingSession:
        return _ReusingSession(self._covered.sparkContext)

    def parallelize(self, *arguments: Any) -> _ReusingSession:
        return _ReusingSession(self._covered.parallelize(*arguments))

    def mapPartitions(self, function: Callable[[Iterable[Any]], Iterable[Any]]) -> Any:
        def read_to_the_end(rows: Iterable[Any]) -> Iterable[Any]:
            return function(list(rows))

        return self._covered.mapPartitions(read_to_the_end)


class _ShortSleep:
    """The `time` module, but for sleeps of at most `_POLL_SECONDS`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(min(seconds, _POLL_SECONDS))


@contextlib.contextmanager
def short_polls() -> Iterator[None]:
    """Let hyperopt look for finished trials ten times a second, not once.

    Both of its loops sleep for a second, a constant: at two to three seconds a trial, slots stand idle up
    to half of the time. There is no setting for it, so its modules' `time` is replaced meanwhile.
    """
    modules = [importlib.import_module(name) for name in ("hyperopt.fmin", "hyperopt.spark")]
    for module in modules:
        module.time = _ShortSleep()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in modules:
            module.time = time  # type: ignore[attr-defined]


class NoGain:
    """Stop after `patience` trials in a row that did not better the best loss; None: never.

    hyperopt's own stopper raises on a trial that has no loss yet, which ends SparkTrials' dispatcher and
    leaves `fmin` waiting for ever.
    """

    def __init__(self, patience: int | None) -> None:
        self._patience = patience

    def __call__(self, trials: Any, *_: Any) -> tuple[bool, list[Any]]:
        """Tell whether to stop, in the form that `fmin` wants."""
        if self._patience is None:
            return False, []
        done = [doc for doc in list(trials.trials) if doc["state"] == JOB_STATE_DONE]
        done.sort(key=lambda doc: doc["tid"])  # not by when they ended: that is chance
        best, since = float("inf"), 0
        for doc in done:
            loss = doc["result"].get("loss")
            if doc["result"].get("status") == STATUS_OK and loss is not None and loss < best:
                best, since = loss, 0
            else:
                since += 1
        return since >= self._patience, []


def make_trials(spark: SparkSession, search: Search) -> SparkTrials:
    """SparkTrials with the search's parallelism, on the driver's classic session."""
    # Its log repeats each failure with a traceback; a failed trial tells its reason in MLflow.
    logging.getLogger("hyperopt-spark").setLevel(logging.CRITICAL)
    return SparkTrials(parallelism=search.parallelism, spark_session=_ReusingSession(spark))


def run_trials(trials: SparkTrials, objective: Objective, search: Search) -> None:
    """Run the trials of a search; `trials` holds them, for others to watch meanwhile.

    With `search.deterministic`, trials are proposed in rounds of `parallelism`, each from the results
    of all rounds before it, so that which trial ends first changes nothing.
    """
    deadline = None if search.timeout is None else time.monotonic() + search.timeout
    stop = NoGain(search.early_stop)
    rstate = np.random.default_rng(search.seed)
    step = search.parallelism if search.deterministic else search.max_evals
    with short_polls(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Spark session is not provided")
        for wanted in _totals(step, search.max_evals):
            if deadline is not None:
                trials.timeout = max(deadline - time.monotonic(), 0.1)
            with contextlib.suppress(AllTrialsFailed):  # what they were is in `trials`
                fmin(
                    objective,
                    hyperopt_space(search),
                    algo=without_repeats(search),
                    max_evals=wanted,
                    trials=trials,
                    rstate=rstate,
                    max_queue_len=step if search.deterministic else 1,
                    early_stop_fn=None if search.deterministic else stop,
                    show_progressbar=False,
                    verbose=False,
                    return_argmin=False,
                )
            ended = deadline is not None and time.monotonic() >= deadline
            if ended or len(trials) < wanted or stop(trials)[0]:
                return


def _totals(step: int, last: int) -> Iterator[int]:
    yield from range(step, last, step)
    yield last
