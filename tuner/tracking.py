"""Every MLflow run, tag and artifact name; what is written to a run goes through here."""

from __future__ import annotations

import logging
import os
import re
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError

from tuner.errors import TrackingError

# Tags.
KIND = "tuner.kind"  # search, trial, features or evaluate
TRIAL = "tuner.trial"  # the trial's number within its search, from 1
BEST = "tuner.best_trial"
DATA_DIGEST = "tuner.data_digest"

# Artifacts of a search.
EXPERIMENT_FILE = "experiment.yaml"
LABELS_FILE = "labels.json"
SPACE_FILE = "search_space.json"
QUARANTINE_FILE = "quarantine.csv"
CONFLICTS_FILE = "label_conflicts.csv"
SPLIT_FILE = "split.parquet"  # path, label, digest and part of every image used
LEADERBOARD_FILE = "leaderboard.json"
BACKBONES_FOLDER = "backbones"
CHARTS_FILE = "charts/search.html"
TEST_CHARTS_FILE = "charts/test.html"
MODEL_CARD_FILE = "model_card.md"
COMPARISON_FILE = "comparison/report.md"
COMPARISON_DATA_FILE = "comparison/comparison.json"
DISAGREEMENTS_FILE = "comparison/disagreements.json"
PLOTLY_FILE = "charts/plotly.mjs"  # servers send .js as plain text, which browsers do not run

# Artifacts of a trial, and of the winner on the test part.
ERROR_FILE = "error.txt"
CONFUSION_IMAGE = "confusion_matrix"
CONFUSION_FILE = "confusion_matrix.json"
CONFUSION_FIGURE = "confusion_matrix.html"
REPORT_FILE = "classification_report.json"
PREDICTIONS_FILE = "predictions.json"
MODEL = "model"

_CHECK_SECONDS = 10
_SQLITE_WAIT_SECONDS = 60  # writers of one SQLite file queue up; the default gives up after 5 s


@dataclass(frozen=True)
class Tracking:
    """Where runs are written: known on the driver, carried to the workers."""

    uri: str
    experiment_id: str

    def client(self) -> MlflowClient:
        """Open a client, and make this store MLflow's own in this process."""
        if mlflow.get_tracking_uri() != self.uri:
            mlflow.set_tracking_uri(self.uri)
        return MlflowClient(self.uri)


def without_credentials(uri: str) -> str:
    """Mask the user and password of a URI, for messages and logs."""
    return re.sub(r"//[^@/]+@", "//***@", uri)


def _store_uri() -> str:
    """The tracking URI that MLflow would use, made fit for several writers on SQLite."""
    uri = mlflow.get_tracking_uri()
    if uri.startswith("sqlite:///") and "timeout=" not in uri:
        uri += f"{'&' if '?' in uri else '?'}timeout={_SQLITE_WAIT_SECONDS}"
    return uri


@contextmanager
def _bounded_requests() -> Iterator[None]:
    """Let a server that does not answer fail within seconds; MLflow's own patience is minutes."""
    limits = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_CHECK_SECONDS),
    }
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def open_tracking(experiment_name: str) -> Tracking:
    """Find the store and the MLflow experiment, on the driver, and check that the store answers.

    Inside `mlflow run`, the experiment is the one of the run that it started; else it is the one that
    `MLFLOW_EXPERIMENT_NAME` or `MLFLOW_EXPERIMENT_ID` names; else `experiment_name`, made if need be.

    Raises
    ------
    TrackingError
        The server does not answer, the store cannot be written, or the experiment was deleted.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a new store logs each of its migrations
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    logging.getLogger("mlflow.tracking.fluent").setLevel(logging.WARNING)
    uri = _store_uri()
    shown = without_credentials(uri)
    try:
        with _bounded_requests():
            mlflow.set_tracking_uri(uri)
            client = MlflowClient(uri)
            run_id = os.environ.get("MLFLOW_RUN_ID")
            experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID")
            if run_id:
                experiment_id = client.get_run(run_id).info.experiment_id
            if not experiment_id:
                name = os.environ.get("MLFLOW_EXPERIMENT_NAME", experiment_name)
                found = client.get_experiment_by_name(name)
                experiment_id = found.experiment_id if found else client.create_experiment(name)
            if client.get_experiment(experiment_id).lifecycle_stage == LifecycleStage.DELETED:
                raise TrackingError(
                    f"The MLflow experiment {experiment_id} in {shown} was deleted: restore it (mlflow "
                    "experiments restore), or give another with --experiment-name or the file's name."
                )
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = without_credentials(str(error).strip().splitlines()[0])
        raise TrackingError(
            f"The MLflow tracking store {shown} cannot be used: {reason} "
            "(check MLFLOW_TRACKING_URI, and that the server runs)."
        ) from error
    return Tracking(uri, experiment_id)


def artifact_address(run_id: str, file: str) -> str:
    """Where a page in MLflow's artifact viewer finds an artifact of a run, from the server's root."""
    return f"get-artifact?{urlencode({'path': file, 'run_uuid': run_id})}"


class RunLog:
    """What is written to one MLflow run, by its id: no run is active, so threads and workers may share.

    Parameters
    ----------
    client
        A client of the store that holds the run.
    run_id
        The run's id.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def batch(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, Any] | None = None,
        histories: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Write parameters, metrics, tags and stepped metrics (`histories`) in one request."""
        now = int(time.time() * 1000)
        values = [Metric(key, float(value), now, 0) for key, value in (metrics or {}).items()]
        for key, history in (histories or {}).items():
            values += [Metric(key, float(value), now, step) for step, value in enumerate(history)]
        self._client.log_batch(
            self.run_id,
            metrics=values,
            params=[Param(key, str(value)) for key, value in (params or {}).items()],
            tags=[RunTag(key, str(value)) for key, value in (tags or {}).items()],
        )

    def text(self, text: str, file: str) -> None:
        """Write a text artifact."""
        self._client.log_text(self.run_id, text, file)

    def json(self, data: Any, file: str) -> None:
        """Write a JSON or YAML artifact, by the ending of `file`."""
        self._client.log_dict(self.run_id, data, file)

    def table(self, frame: pd.DataFrame, file: str) -> None:
        """Write a table that MLflow's UI shows as one."""
        self._client.log_table(self.run_id, frame, file)

    def image(self, image: Image.Image, key: str) -> None:
        """Write an image under a key, by which the compare page lays out runs in a grid."""
        self._client.log_image(self.run_id, image, key=key, step=0)

    def file(self, path: Path, folder: str | None = None) -> None:
        """Copy a local file into the run's artifacts."""
        self._client.log_artifact(self.run_id, str(path), folder)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: `FINISHED`, `FAILED` or `KILLED`."""
        self._client.set_terminated(self.run_id, status)


@contextmanager
def parent_run(tracking: Tracking, name: str, kind: str) -> Iterator[RunLog]:
    """Start the run of a search, or go on with the one that `mlflow run` started.

    It is the active run meanwhile, for MLflow's fluent calls on the driver. An exception ends it as
    FAILED, with the message as an artifact; Ctrl-C as KILLED.
    """
    client = tracking.client()
    inside_mlflow_run = "MLFLOW_RUN_ID" in os.environ
    status = "FINISHED"
    run = mlflow.start_run(
        experiment_id=tracking.experiment_id, run_name=None if inside_mlflow_run else name
    )
    log = RunLog(client, run.info.run_id)
    try:
        log.batch(tags={KIND: kind})
        yield log
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except Exception as error:
        status = "FAILED"
        log.text(f"{error}\n", ERROR_FILE)
        raise
    finally:
        mlflow.end_run(status)


@contextmanager
def trial_run(tracking: Tracking, parent_id: str, number: int, name: str) -> Iterator[RunLog]:
    """Make a trial's child run, on the worker; an exception ends it as FAILED with `error.txt`."""
    client = tracking.client()
    # MLflow puts a logged model into this process's experiment, whatever its run is.
    os.environ["MLFLOW_EXPERIMENT_ID"] = tracking.experiment_id
    tags = {MLFLOW_PARENT_RUN_ID: parent_id, KIND: "trial", TRIAL: str(number)}
    run = client.create_run(tracking.experiment_id, run_name=f"{number:03d}-{name}", tags=tags)
    log = RunLog(client, run.info.run_id)
    try:
        yield log
    except BaseException as error:
        log.text(f"{error}\n\n{traceback.format_exc()}", ERROR_FILE)
        log.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    log.finish()


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


def close_trials_left_running(tracking: Tracking, parent_id: str) -> None:
    """End the child runs whose workers are gone (a timeout, a killed process) as KILLED."""
    client = tracking.client()
    for run in trial_runs(tracking, parent_id):
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")
