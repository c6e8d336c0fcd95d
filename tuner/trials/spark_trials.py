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
from hyperopt.base import JOB_STATE_CANCEL, JOB_STATE_DONE, JOB_STATE_ERROR, JOB_STATE_NEW
from hyperopt.exceptions import AllTrialsFailed
from pyspark.sql import SparkSession

from tuner.experiment.search import SearchSettings
from tuner.spark.jobs import cancelled_after
from tuner.spark.jvm import worker_reason
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


def since_gain(documents: Iterable[Mapping[str, Any]]) -> int:
    """How many trials have ended since the best loss was found; one that failed or was lost has no loss."""
    ended = [doc for doc in documents if doc["state"] in (JOB_STATE_DONE, JOB_STATE_ERROR)]
    best, since = float("inf"), 0
    for doc in sorted(ended, key=lambda doc: doc["tid"]):  # not by when they ended: that is chance
        loss = doc["result"].get("loss")
        if doc["result"].get("status") == STATUS_OK and loss is not None and loss < best:
            best, since = loss, 0
        else:
            since += 1
    return since


class EndingTrials(SparkTrials):  # type: ignore[misc]  # untyped
    """SparkTrials that begin no more trials once there is a reason; those that run end, and count.

    hyperopt's own timeout and stopper cancel what runs, though a trial may have finished in MLflow by then;
    and they look for a reason only when one more trial has succeeded. Its loops refresh at each poll: here,
    too, there is a look.
    """

    reason: str | None = None  # why no more trials begin, fit for a sentence
    ends: Callable[[], str | None] = staticmethod(lambda: None)

    def refresh(self) -> None:
        """Look at what became of the trials, and let those that wait for a slot go if no more begin."""
        super().refresh()
        self.reason = self.reason or self.ends()
        if self.reason is None:
            return
        self.parallelism = 0  # looked at before a trial begins
        for doc in self.trials:
            if doc["state"] == JOB_STATE_NEW:
                doc["state"] = JOB_STATE_CANCEL

    def documents(self) -> list[dict[str, Any]]:
        """What hyperopt keeps of each trial, also of those that were lost with their workers."""
        return list(self._dynamic_trials)


def make_trials(
    spark: SparkSession,
    search: SearchSettings,
    *,
    ended: Sequence[TrialResult] = (),
    limit: TrialLimit | None = None,
) -> EndingTrials:
    """SparkTrials with the search's parallelism, on the driver's classic session.

    `ended` are the results of trials that ended before, by number: hyperopt learns from them, and none
    of them is run again.
    """
    # Its log repeats each failure with a traceback; a failed trial tells its reason in MLflow.
    logging.getLogger("hyperopt-spark").setLevel(logging.CRITICAL)
    trials = EndingTrials(parallelism=search.parallelism, spark_session=_TrialSession(spark, limit))
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


def lost_reasons(trials: Any) -> list[str]:
    """What Spark said of the trials that never came to a result of their own: each thing once."""
    errors = [doc["misc"].get("error") for doc in list(trials.trials) if doc["state"] == JOB_STATE_ERROR]
    return sorted({worker_reason(error[1]) for error in errors if error})


@dataclass(frozen=True)
class Proposals:
    """What is proposed to hyperopt's loop: a space, and an algorithm that makes documents of it."""

    space: Mapping[str, Any]
    algorithm: Callable[..., list[dict[str, Any]]]


def run_trials(
    trials: EndingTrials,
    objective: Objective,
    search: SearchSettings,
    *,
    ends: Callable[[TrialResult], bool] = lambda _: False,
    proposals: Proposals | None = None,
) -> None:
    """Run the trials of a search; `trials` holds them, for others to watch meanwhile.

    `proposals` says what to try; None: what the search's algorithm proposes of its space.

    With `search.deterministic`, trials are proposed in rounds of four, whatever the parallelism, each from
    the results of all rounds before it, so that which trial ends first changes nothing. A trial that is
    lost for good (its worker died again and again) is made up for.

    After `search.timeout`, after `search.early_stop` trials without a gain and after a result that `ends`
    the search no more trials begin; those that run end, and count. `trials.reason` tells which it was.
    """
    deadline = None if search.timeout is None else time.monotonic() + search.timeout

    def over() -> str | None:
        if any(ends(result) for result in results_of(trials)):
            return "the last one ended the search"
        if deadline is not None and time.monotonic() >= deadline:
            return f"search.timeout, {search.timeout:g} s, has passed"
        return None

    def no_gain() -> str | None:
        patience = search.early_stop
        if patience is None or since_gain(trials.documents()) < patience:
            return None
        return f"{patience} trials in a row brought no gain (search.early_stop)"

    trials.ends = over if search.deterministic else lambda: over() or no_gain()
    step = _ROUND if search.deterministic else search.max_evals
    made = proposals or Proposals(hyperopt_space(search), WithoutRepeats(search))
    for wanted in _totals(step, search.max_evals):
        while (before := len(trials)) < wanted:
            _propose_and_run(trials, objective, search, made, wanted)
            # As many as before: the space is exhausted, or every trial's worker died.
            if trials.reason or trials.fmin_cancelled_reason or len(trials) == before:
                return
        trials.reason = no_gain()
        if trials.reason:
            return


def _propose_and_run(
    trials: EndingTrials,
    objective: Objective,
    search: SearchSettings,
    proposals: Proposals,
    wanted: int,
) -> None:
    def suggest(*arguments: Any) -> list[dict[str, Any]]:
        return [] if trials.reason else proposals.algorithm(*arguments)

    with short_polls(), warnings.catch_warnings(), contextlib.suppress(AllTrialsFailed):
        warnings.filterwarnings("ignore", message="Spark session is not provided")
        fmin(
            objective,
            proposals.space,
            algo=suggest,
            max_evals=wanted,
            trials=trials,
            rstate=np.random.default_rng(search.seed),
            max_queue_len=_ROUND if search.deterministic else 1,
            show_progressbar=False,
            verbose=False,
            return_argmin=False,
        )


def _totals(step: int, last: int) -> Iterator[int]:
    yield from range(step, last, step)
    yield last
