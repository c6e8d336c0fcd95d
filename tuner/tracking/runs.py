"""The life of runs: a search's and its trials', from their start to whatever ends them."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from pyspark import TaskContext

from tuner.base.errors import StoreError
from tuner.base.interrupts import (
    Interrupted,
    at_last,
    freed_by,
    stop_counts,
    stop_requests,
    uninterrupted,
)
from tuner.tracking.answering import REFUSALS, check_answers, reason, without_credentials
from tuner.tracking.names import ERROR_FILE, KIND, OWN_RUN, RESUMED, STOPPED, TRIAL
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import RunLog
from tuner.tracking.store import Tracking, be_patient, forget_active_run


@contextmanager
def parent_run(tracking: Tracking, name: str, kind: str, resumed: str | None = None) -> Iterator[RunLog]:
    """Start the run of a search, or go on with the one that `mlflow run` started or with `resumed`.

    Where `mlflow run` started one in `Default`, and `tracking` is of another experiment, that one points to
    the run that is started here. Where the program has a run that is active, it is a child of that one. It
    is the active run meanwhile, for MLflow's fluent calls on the driver. An exception ends it as FAILED,
    with the message as an artifact; Ctrl-C and what else stops the process as KILLED.

    Raises
    ------
    StoreError
        The store refuses something, or stopped answering.
    """
    tracking.make_current()
    with stop_requests(), ExitStack() as stack:
        with uninterrupted():  # a run that is begun must be one that ends
            client = tracking.client()
            outer = os.environ.get("MLFLOW_RUN_ID")
            if resumed and outer:
                client.set_tag(outer, RESUMED, resumed, synchronous=True)
            moved = None
            if outer and not resumed and _is_elsewhere(client, outer, tracking):
                moved, outer = outer, None
                for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
                    os.environ.pop(variable, None)
            run = mlflow.start_run(
                resumed,
                experiment_id=tracking.experiment_id,
                run_name=None if outer or resumed else name,
                nested=mlflow.active_run() is not None,
            )
            log = RunLog(client, run.info.run_id, run.info.experiment_id, run if resumed else None)
            stack.enter_context(_ended(tracking, log))
            log.batch(tags={KIND: kind})
            if moved:
                _point(client, moved, run, name)
        yield log


def _is_elsewhere(client: MlflowClient, run_id: str, tracking: Tracking) -> bool:
    return bool(client.get_run(run_id).info.experiment_id != tracking.experiment_id)


def _point(client: MlflowClient, outer: str, run: Run, name: str) -> None:
    """Let the run of `mlflow run` say which run to look at."""
    client.set_tag(outer, OWN_RUN, run.info.run_id, synchronous=True)
    place = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    note = f"`mlflow run` began this run in MLflow's experiment Default. Look at [{name}]({place})."
    client.set_tag(outer, MLFLOW_RUN_NOTE, note, synchronous=True)


def _quiet_databases() -> None:
    """Let SQLAlchemy say nothing of a query that a stop cuts off in its midst: it would be a traceback."""
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


@contextmanager
def _ended(tracking: Tracking, log: RunLog) -> Iterator[None]:
    """End the active run, as what happens meanwhile demands; a store that is gone hides no failure."""
    status = "FINISHED"
    try:
        with freed_by(_quiet_databases), at_last(partial(_kill, log)), stop_counts():
            yield
    except (KeyboardInterrupt, Interrupted):
        status = "KILLED"
        raise
    except Exception as error:
        status = "FAILED"
        with suppress(*REFUSALS):
            if answers(tracking):
                log.text(f"{error}\n", ERROR_FILE)
        if isinstance(error, MlflowException):
            shown = without_credentials(tracking.uri)
            raise StoreError(
                f"The MLflow store {shown} refuses, or stopped answering: {reason(error)}."
            ) from error
        raise
    finally:
        with nullcontext() if status == "FINISHED" else suppress(*REFUSALS):
            if status == "FINISHED" or answers(tracking):
                mlflow.end_run(status)
                if status == "KILLED":
                    _say_stopped(log)
            else:
                forget_active_run()


def _kill(log: RunLog) -> None:
    log.finish("KILLED")
    _say_stopped(log)


def _say_stopped(log: RunLog) -> None:
    """Tag a run that was asked to stop: the tag stays when `mlflow run` writes FAILED over KILLED."""
    log.batch(tags={STOPPED: datetime.now(UTC).isoformat(timespec="seconds")})


def answers(tracking: Tracking) -> bool:
    """Whether the store's server or database answers, within seconds; one without always does."""
    try:
        check_answers(tracking.uri)
    except ConnectionError:
        return False
    return True


def trial_name(number: int, backbone: str) -> str:
    """The name of a trial's run: ``003-resnet50``."""
    return f"{number:03d}-{backbone.lower()}"


@contextmanager
def trial_run(
    tracking: Tracking,
    parent_id: str,
    number: int,
    params: Mapping[str, Any],
    *,
    goes_on: bool = False,
) -> Iterator[RunLog]:
    """Make a trial's child run, on the worker; an exception ends it as FAILED with `error.txt`.

    A trial that `goes_on` has the run that it had before, if it had one.
    """
    be_patient()
    # MLflow puts a logged model into this process's experiment, whatever its run is.
    os.environ["MLFLOW_EXPERIMENT_ID"] = tracking.experiment_id
    tracking.make_current()
    earlier = _latest(tracking, parent_id, number) if goes_on else None
    if earlier is None:
        _close_earlier_attempts(tracking, parent_id, number)
        log = _new_trial_run(tracking, parent_id, number, params["backbone"])
    else:
        client = tracking.client()
        client.update_run(earlier.info.run_id, status="RUNNING")
        log = RunLog(client, earlier.info.run_id, tracking.experiment_id, earlier)
    try:
        log.batch(params=params)
        yield log
    except BaseException as error:
        with suppress(*REFUSALS):
            if answers(tracking):
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


def _latest(tracking: Tracking, parent_id: str, number: int) -> Run | None:
    runs = [run for run in trial_runs(tracking, parent_id) if run.data.tags[TRIAL] == str(number)]
    return runs[-1] if runs else None


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
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_id}' and tags.`{KIND}` = 'trial'"
    return list(found_runs(tracking, [tracking.experiment_id], query, "start_time ASC"))


def found_runs(tracking: Tracking, experiment_ids: list[str], query: str, order: str) -> Iterator[Run]:
    """Search runs, page by page as they are asked for."""
    client, token = tracking.client(), None
    while True:
        page = client.search_runs(experiment_ids, query, order_by=[order], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def finished_trial(tracking: Tracking, parent_id: str, number: int, metric: str) -> TrialResult | None:
    """The result of a trial that finished in MLflow, though nobody heard of it; None if it did not."""
    for run in trial_runs(tracking, parent_id):
        result = TrialResult.of_run(run, metric)
        if result is not None and result.trial == number and result.finished:
            return result
    return None


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


class CutOffTrials:
    """The trials that a search leaves behind when it ends, cut off in the midst: they end as KILLED.

    A cancelled trial's worker lives on for up to two seconds. It may yet make its run, or take its lost
    connection for a failure of its own and write FAILED, which a resumed search would count: only when
    Spark has stopped is there an end of it.
    """

    def __init__(self, tracking: Tracking, parent_id: str) -> None:
        self._tracking = tracking
        self._parent_id = parent_id
        self._returned: set[str] | None = None

    def know(self, run_ids: Iterable[str | None]) -> None:
        """Take the runs of trials that gave a result to the search: they say what is true."""
        self._returned = {run_id for run_id in run_ids if run_id is not None}

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
