"""Trials that the MLflow server did not take: kept in a store on disk, and pushed to it later."""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Param, Run
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tuner.base.errors import StoreError, TrackingError
from tuner.base.uris import expanded, file_uri
from tuner.tracking.answering import REFUSALS, check_answers, reason, without_credentials
from tuner.tracking.names import MODEL, TRIAL
from tuner.tracking.run_log import RunLog
from tuner.tracking.runs import answers, found_runs, trial_runs
from tuner.tracking.store import Tracking, open_registry

UNSENT = "unsent"  # in a trial's result: it waits on disk
_STORE, _ARTIFACTS, _LOCK = "mlflow.db", "artifacts", "making.lock"


def open_unsent(folder: Path) -> Tracking:
    """Open the store of a search's unsent trials, on the worker or the driver; made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{(folder / _STORE).absolute()}?timeout=60"
    with FileLock(folder / _LOCK):  # two workers that make its tables at once would fail
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(UNSENT)
        place = file_uri(folder / _ARTIFACTS)
        return Tracking(uri, found.experiment_id if found else client.create_experiment(UNSENT, place))


def push(folder: Path) -> tuple[int, list[str]]:
    """Send unsent trials to the MLflow server; what was sent is removed from the disk.

    Parameters
    ----------
    folder
        The folder that a search named when it lost its server.

    Returns
    -------
    The number of trials sent, and the ids of their searches' runs, with which these can be resumed.

    Raises
    ------
    TrackingError
        The folder holds no unsent trials, or the store does not answer.
    StoreError
        The store refuses a trial, or stopped answering; what is not sent is kept.
    """
    try:
        folder = expanded(folder)
    except ValueError as error:
        raise TrackingError(f"There are no unsent trials in {folder}: {error}.") from None
    if not (folder / _STORE).is_file():
        raise TrackingError(f"There are no unsent trials in {folder}: check the path.")
    target, source = open_registry(), open_unsent(folder)
    shown = without_credentials(target.uri)
    try:
        check_answers(target.uri)
    except ConnectionError as error:
        raise TrackingError(
            f"The MLflow store {shown} does not answer: {error}. The trials stay in {folder}; check "
            "MLFLOW_TRACKING_URI, and send them when it is back."
        ) from error
    try:
        done = _send_all(source, target, folder)
    except REFUSALS as error:
        raise StoreError(
            f"The MLflow store {shown} refuses a trial, or stopped answering: {reason(error)}. What was "
            f"not sent stays in {folder}: send it with tuner push {folder}"
        ) from error
    shutil.rmtree(folder)
    return done


def _send_all(source: Tracking, target: Tracking, folder: Path) -> tuple[int, list[str]]:
    finished = "attributes.status = 'FINISHED'"
    runs = list(found_runs(source, [source.experiment_id], finished, "start_time ASC"))
    parents = sorted({run.data.tags[MLFLOW_PARENT_RUN_ID] for run in runs})
    sent = 0
    for parent_id in parents:
        parent = target.client().get_run(parent_id)
        there = Tracking(target.uri, parent.info.experiment_id)
        finished_there = (run for run in trial_runs(there, parent_id) if run.info.status == "FINISHED")
        known = {run.data.tags[TRIAL] for run in finished_there}
        for run in runs:
            number = run.data.tags[TRIAL]
            if run.data.tags[MLFLOW_PARENT_RUN_ID] == parent_id and number not in known:
                _send(run, source, there, folder)
                known.add(number)
                sent += 1
    return sent, parents


def _send(run: Run, source: Tracking, target: Tracking, folder: Path) -> None:
    """Copy one run with its metrics, artifacts and model."""
    here = source.client()
    names = run.data.metrics
    metrics = [metric for name in names for metric in here.get_metric_history(run.info.run_id, name)]
    artifacts = Path(here.download_artifacts(run.info.run_id, "", dst_path=str(folder)))
    models = here.search_logged_models([source.experiment_id], f"source_run_id = '{run.info.run_id}'")
    source.make_current()
    saved = [Path(mlflow.artifacts.download_artifacts(model.model_uri)) for model in models]
    target.make_current()
    there = target.client()
    copy = there.create_run(
        target.experiment_id, run.info.start_time, dict(run.data.tags), run.info.run_name
    )
    try:
        params = [Param(name, value) for name, value in run.data.params.items()]
        there.log_batch(copy.info.run_id, metrics, params, synchronous=True)
        there.log_artifacts(copy.info.run_id, str(artifacts))
        for model in saved:
            Model.log(
                artifact_path=None,
                name=MODEL,
                flavor=sys.modules[__name__],
                run_id=copy.info.run_id,
                saved=model,
                validate_serving_input=False,
            )
    except BaseException:  # it is sent anew
        with suppress(*REFUSALS):
            if answers(target):
                there.set_terminated(copy.info.run_id, "KILLED")
        raise
    RunLog(there, copy.info.run_id, target.experiment_id).finish()


def save_model(path: str, mlflow_model: Model, *, saved: Path, **_: Any) -> None:
    """Write a model folder that is there already; MLflow's `Model.log` calls this."""
    shutil.copytree(saved, path)
    there = Model.load(str(saved))
    mlflow_model.flavors = there.flavors
    mlflow_model.signature = there.signature
    mlflow_model.saved_input_example_info = there.saved_input_example_info or {}
    mlflow_model.save(str(Path(path) / MLMODEL_FILE_NAME))
