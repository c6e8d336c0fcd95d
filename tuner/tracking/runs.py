"""The life of runs: a search's and its trials', from their start to whatever ends them."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from pyspark import TaskContext
from sqlalchemy.exc import SQLAlchemyError

from tuner.base.errors import StoreError
from tuner.base.interrupts import Interrupted
from tuner.tracking.names import ERROR_FILE, KIND, RESUMED, TRIAL
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import RunLog
from tuner.tracking.store import Tracking, bounded_requests, reason, without_credentials


@contextmanager
def _the_first_error_counts() -> Iterator[None]:
    """Write what can be written of a failure: a store that is gone must not hide the failure itself."""
    with bounded_requests(), suppress(MlflowException, SQLAlchemyError, OSError):
        yield


@contextmanager
def parent_run(tracking: Tracking, name: str, kind: str, resumed: str | None = None) -> Iterator[RunLog]:
    """Start the run of a search, or go on with the one that `mlflow run` started or with `resumed`.

    It is the active run meanwhile, for MLflow's fluent calls on the driver. An exception ends it as
    FAILED, with the message as an artifact; Ctrl-C as KILLED.

    Raises
    ------
    StoreError
        The store refuses something, or stopped answering.
    """
    tracking.make_current()
    client = tracking.client()
    outer = os.environ.get("MLFLOW_RUN_ID")
    status = "FINISHED"
    if resumed and outer:
        client.set_tag(outer, RESUMED, resumed)
    run = mlflow.start_run(
        resumed, experiment_id=tracking.experiment_id, run_name=None if outer or resumed else name
    )
    log = RunLog(client, run.info.run_id, run.info.experiment_id, run if resumed else None)
    try:
        log.batch(tags={KIND: kind})
        yield log
    except (KeyboardInterrupt, Interrupted):
        status = "KILLED"
        raise
    except Exception as error:
        status = "FAILED"
        with _the_first_error_counts():
            log.text(f"{error}\n", ERROR_FILE)
        if isinstance(error, MlflowException):
            shown = without_credentials(tracking.uri)
            raise StoreError(
                f"The MLflow store {shown} refuses, or stopped answering: {reason(error)}."
            ) from error
        raise
    finally:
        with nullcontext() if status == "FINISHED" else _the_first_error_counts():
            mlflow.end_run(status)


def answers(tracking: Tracking) -> bool:
    """Whether a tracking server answers; a store without a server always does."""
    if not tracking.uri.startswith("http"):
        return True
    try:
        with bounded_requests():
            tracking.client().get_experiment(tracking.experiment_id)
    except (MlflowException, OSError):
        return False
    return True


def trial_name(number: int, backbone: str) -> str:
    """The name of a trial's run: ``003-resnet50``."""
    return f"{number:03d}-{backbone.lower()}"


@contextmanager
def trial_run(
    tracking: Tracking, parent_id: str, number: int, params: Mapping[str, Any]
) -> Iterator[RunLog]:
    """Make a trial's child run, on the worker; an exception ends it as FAILED with `error.txt`."""
    # A server that is started again is waited for, a minute for each request; MLflow's default is four.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    # MLflow puts a logged model into this process's experiment, whatever its run is.
    os.environ["MLFLOW_EXPERIMENT_ID"] = tracking.experiment_id
    tracking.make_current()
    _close_earlier_attempts(tracking, parent_id, number)
    log = _new_trial_run(tracking, parent_id, number, params["backbone"])
    try:
        log.batch(params=params)
        yield log
    except BaseException as error:
        with _the_first_error_counts():
            log.text(f"{error}\n\n{traceback.format_exc()}", ERROR_FILE)
            log.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    log.finish()


def _new_trial_run(tracking: Tracking, parent_id: str, number: int, backbone: str) -> RunLog:
    client = tracking.client()
    tags = {MLFLOW_PARENT_RUN_ID: parent_id, KIND: "trial", TRIAL: str(number)}
    name = trial_name(number, backbone)
    run = client.create_run(tracking.experiment_id, run_name=name, tags=tags)
    return RunLog(client, run.info.run_id, tracking.experiment_id)


def _close_earlier_attempts(tracking: Tracking, parent_id: str, number: int) -> None:
    """End what an executor left that died with a trial: its run, even if it came as far as its end."""
    task = TaskContext.get()
    if task is None or task.attemptNumber() == 0:
        return
    for run_id in _begun(tracking, parent_id, number):
        tracking.client().set_terminated(run_id, "KILLED")


def _begun(tracking: Tracking, parent_id: str, number: int) -> list[str]:
    """The runs of a trial that were not ended for it, oldest first, even those that came to their end."""
    return [
        run.info.run_id
        for run in trial_runs(tracking, parent_id)
        if run.data.tags[TRIAL] == str(number) and run.info.status in ("RUNNING", "FINISHED")
    ]


def trial_runs(tracking: Tracking, parent_id: str) -> list[Run]:
    """The child runs of a search, oldest first."""
    client = tracking.client()
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_id}' and tags.`{KIND}` = 'trial'"
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [tracking.experiment_id], query, order_by=["start_time ASC"], page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs


def fail_trial(tracking: Tracking, parent_id: str, number: int, params: Mapping[str, Any], why: str) -> str:
    """End a trial whose process was ended, as FAILED, with the reason; gives its run's id.

    Its run may have come to its end just now, or, where the process hung before, not be there at all.
    """
    begun = _begun(tracking, parent_id, number)
    if begun:
        log = RunLog(tracking.client(), begun[-1], tracking.experiment_id)
    else:
        log = _new_trial_run(tracking, parent_id, number, params["backbone"])
    log.batch(params=params)
    log.text(f"{why}\n", ERROR_FILE)
    log.finish("FAILED")
    return log.run_id


class LeftTrials:
    """The trials that a search leaves behind when it ends, cut off in the midst: they end as KILLED.

    A cancelled trial's worker lives on for up to two seconds. It may yet make its run, or take its lost
    connection for a failure of its own and write FAILED, which a resumed search would count: only when
    Spark has stopped is there an end of it.
    """

    def __init__(self, tracking: Tracking, parent_id: str) -> None:
        self._tracking = tracking
        self._parent_id = parent_id
        self._returned: set[str] | None = None

    def know(self, results: Iterable[TrialResult]) -> None:
        """Take the results that trials gave to the search: their runs say what is true."""
        self._returned = {result.run_id for result in results if result.run_id is not None}

    def close(self) -> None:
        """End what runs and, once the results are known, what failed without one.

        A server that does not answer is left alone.
        """
        if not answers(self._tracking):
            return
        client = self._tracking.client()
        for run in trial_runs(self._tracking, self._parent_id):
            cut_off = (
                run.info.status == "FAILED"
                and self._returned is not None
                and run.info.run_id not in self._returned
            )
            if cut_off or run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, "KILLED")
