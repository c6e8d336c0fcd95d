"""hyperopt's SparkTrials as a search runs it: reused workers, short polls, rounds, limits, resumption."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hyperopt import STATUS_OK, SparkTrials, fmin
from hyperopt.base import JOB_STATE_DONE
from hyperopt.exceptions import AllTrialsFailed
from pyspark.sql import SparkSession

from tuner.experiment.schema import SearchSettings
from tuner.spark.jobs import cancelled_after
from tuner.tracking.results import TrialResult
from tuner.trials.space import WithoutRepeats, document_of, hyperopt_space

Objective = Callable[[dict[str, Any]], dict[str, Any]]
_ROUND = 4  # of deterministic trials: proposed at once
_POLL_SECONDS = 0.1
_SETTLING_SECONDS = 0.01  # from a job's end until SparkTrials has put its result down
_trial_ended = threading.Condition()


class _TrialSession:
    """A session for SparkTrials that reuses Python workers and ends a trial that takes too long.

    SparkTrials never reads the one row of its task, and PySpark ends a worker whose input was not read
    to its end: each trial would start a process and import everything again. Only what SparkTrials calls
    is covered; the rest is the session's own.
    """

    def __init__(self, covered: Any, limit: TrialLimit | None) -> None:
        self._covered = covered
        self._limit = limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._covered, name)

    @property
    def sparkContext(self) -> _TrialSession:
        return _TrialSession(self._covered.sparkContext, self._limit)

    def parallelize(self, *arguments: Any) -> _TrialSession:
        return _TrialSession(self._covered.parallelize(*arguments), self._limit)

    def mapPartitions(self, function: Callable[[Iterable[Any]], Iterable[Any]]) -> Any:
        def read_to_the_end(rows: Iterable[Any]) -> Iterable[Any]:
            return function(list(rows))

        # SparkTrials tells the function of a task, and nobody else, what its trial is.
        point = inspect.getclosurevars(function).nonlocals.get("params", {})
        return _TrialJob(self._covered.mapPartitions(read_to_the_end), self._limit, point)


@dataclass(frozen=True)
class TrialLimit:
    """How long a trial may take.

    `seconds` from the start of its job; then the job is cancelled, and its worker's process with it, and
    `late` makes the trial's result of its values by hyperopt's labels; trials are ranked by `metric`.
    """

    seconds: float
    metric: str
    late: Callable[[Mapping[str, Any]], TrialResult]


@dataclass(frozen=True)
class _TrialJob:
    """The job of one trial; SparkTrials collects it in a thread of its own."""

    job: Any
    limit: TrialLimit | None
    point: Mapping[str, Any]

    def collect(self) -> list[Any]:
        try:
            return self._collect()
        finally:
            wake_up = threading.Timer(_SETTLING_SECONDS, _tell_that_a_trial_ended)
            wake_up.daemon = True
            wake_up.start()

    def _collect(self) -> list[Any]:
        if self.limit is None:
            return list(self.job.collect())
        with cancelled_after(self.job.context, self.limit.seconds, "trial") as late:
            try:
                return list(self.job.collect())
            except Exception:
                if not late.is_set():
                    raise
                return [self.limit.late(self.point).to_document(self.limit.metric)]


def _tell_that_a_trial_ended() -> None:
    with _trial_ended:
        _trial_ended.notify_all()


class _ShortSleep:
    """The `time` module, but for sleeps: they end with a trial, or after `_POLL_SECONDS`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    @staticmethod
    def sleep(seconds: float) -> None:
        with _trial_ended:
            _trial_ended.wait(min(seconds, _POLL_SECONDS))


@contextlib.contextmanager
def short_polls() -> Iterator[None]:
    """Let hyperopt look for finished trials when one has ended, and ten times a second, not once.

    Both of its loops sleep for a second, a constant: slots would stand idle most of the time. There is no
    setting for it, so its modules' `time` is replaced meanwhile.
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


def make_trials(
    spark: SparkSession,
    search: SearchSettings,
    *,
    ended: Sequence[TrialResult] = (),
    limit: TrialLimit | None = None,
) -> SparkTrials:
    """SparkTrials with the search's parallelism, on the driver's classic session.

    `ended` are the results of trials that ended before, by number: hyperopt learns from them, and none
    of them is run again.
    """
    # Its log repeats each failure with a traceback; a failed trial tells its reason in MLflow.
    logging.getLogger("hyperopt-spark").setLevel(logging.CRITICAL)
    trials = SparkTrials(parallelism=search.parallelism, spark_session=_TrialSession(spark, limit))
    documents = [
        document_of(place, result.trial, result.params, search)
        | {"state": JOB_STATE_DONE, "result": result.to_document(search.metric)}
        for place, result in enumerate(ended)
    ]
    trials.insert_trial_docs(documents)
    trials.refresh()
    return trials


def results_of(trials: Any) -> list[TrialResult]:
    """The results of the trials that ended so far, in the order in which they were proposed."""
    done = [doc for doc in list(trials.trials) if doc["state"] == JOB_STATE_DONE]
    results = (TrialResult.of_document(doc["result"]) for doc in done)
    return [result for result in results if result is not None]


def run_trials(
    trials: SparkTrials,
    objective: Objective,
    search: SearchSettings,
    *,
    ends: Callable[[TrialResult], bool] = lambda _: False,
) -> None:
    """Run the trials of a search; `trials` holds them, for others to watch meanwhile.

    With `search.deterministic`, trials are proposed in rounds of four, whatever the parallelism, each from
    the results of all rounds before it, so that which trial ends first changes nothing.

    A trial that is lost for good (its worker died again and again) is made up for. A result that `ends` the
    search is the last: the trials beside it are cancelled.
    """
    deadline = None if search.timeout is None else time.monotonic() + search.timeout
    no_gain = NoGain(search.early_stop)

    def ended(trials: Any, *_: Any) -> tuple[bool, list[Any]]:
        return any(ends(result) for result in results_of(trials)), []

    def stop(trials: Any, *_: Any) -> tuple[bool, list[Any]]:
        return ended(trials)[0] or no_gain(trials)[0], []

    step = _ROUND if search.deterministic else search.max_evals
    algorithm = WithoutRepeats(search)
    for wanted in _totals(step, search.max_evals):
        while (before := len(trials)) < wanted:
            if deadline is not None:
                trials.timeout = max(deadline - time.monotonic(), 0.1)
            stopper = ended if search.deterministic else stop
            _propose_and_run(trials, objective, search, algorithm, wanted, stopper)
            # As many as before: the space is exhausted, or every trial's worker died.
            if trials.fmin_cancelled_reason or len(trials) == before:
                return
        if stop(trials)[0]:
            return


def _propose_and_run(
    trials: SparkTrials,
    objective: Objective,
    search: SearchSettings,
    algorithm: WithoutRepeats,
    wanted: int,
    stop: Callable[..., Any],
) -> None:
    with short_polls(), warnings.catch_warnings(), contextlib.suppress(AllTrialsFailed):
        warnings.filterwarnings("ignore", message="Spark session is not provided")
        fmin(
            objective,
            hyperopt_space(search),
            algo=algorithm,
            max_evals=wanted,
            trials=trials,
            rstate=np.random.default_rng(search.seed),
            max_queue_len=_ROUND if search.deterministic else 1,
            early_stop_fn=stop,
            show_progressbar=False,
            verbose=False,
            return_argmin=False,
        )


def _totals(step: int, last: int) -> Iterator[int]:
    yield from range(step, last, step)
    yield last
