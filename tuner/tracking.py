"""Every MLflow run, tag and artifact name; what is written to a run goes through here."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit
from urllib.request import url2pathname

import mlflow
import pandas as pd
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError

from tuner.errors import TrackingError

# Tags.
KIND = "tuner.kind"  # search, trial, features, evaluate or promote
TRIAL = "tuner.trial"  # the trial's number within its search, from 1
BEST = "tuner.best_trial"
RESUMED = "tuner.resumed_run_id"  # on the run of `mlflow run`: the search that it went on with
DATA_DIGEST = "tuner.data_digest"

# Tags of a model version: the search that made it, and the moves of the alias (from, to, at, why).
SEARCH_RUN = "tuner.search_run_id"
TRIAL_RUN = "tuner.trial_run_id"
PROMOTION = "tuner.promotion"
ROLLBACK = "tuner.rollback"

# Artifacts of a search.
EXPERIMENT_FILE = "experiment.yaml"
LABELS_FILE = "labels.json"
SPACE_FILE = "search_space.json"
QUARANTINE_FILE = "quarantine.csv"
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

HISTORY = "objectiveHistory"  # a trial's stepped metric

# How a secured server is reached; the workers of a cluster do not have the driver's environment.
_ACCESS = tuple(
    f"MLFLOW_TRACKING_{name}"
    for name in ("USERNAME", "PASSWORD", "TOKEN", "INSECURE_TLS", "SERVER_CERT_PATH", "CLIENT_CERT_PATH")
)
_CHECK_SECONDS = 10
_SQLITE_WAIT_SECONDS = 60  # writers of one SQLite file queue up; the default gives up after 5 s


def _access() -> dict[str, str]:
    return {name: os.environ[name] for name in _ACCESS if name in os.environ}


@dataclass(frozen=True)
class Tracking:
    """Where runs are written: known on the driver, carried to the workers with what lets them in."""

    uri: str
    experiment_id: str
    access: Mapping[str, str] = field(default_factory=_access, repr=False)

    def client(self) -> MlflowClient:
        """Open a client, and make this store MLflow's own in this process."""
        for name, value in self.access.items():
            os.environ.setdefault(name, value)
        if mlflow.get_tracking_uri() != self.uri:
            mlflow.set_tracking_uri(self.uri)
        return MlflowClient(self.uri)


def without_credentials(uri: str) -> str:
    """Mask the user and password of a URI, for messages and logs."""
    return re.sub(r"//[^@/]+@", "//***@", uri)


def _take_credentials(uri: str) -> str:
    """Move a server's user and password from its URI to MLflow's variables: it prints where runs are."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.username is None:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _store_uri() -> str:
    """The tracking URI that MLflow would use, made fit for several writers on SQLite, wherever they run."""
    uri = _take_credentials(mlflow.get_tracking_uri())
    if uri.startswith("sqlite:///"):
        file, mark, options = uri.removeprefix("sqlite:///").partition("?")
        uri = f"sqlite:///{Path(file).absolute()}{mark}{options}"
    if uri.startswith("sqlite:///") and "timeout=" not in uri:
        uri += f"{'&' if '?' in uri else '?'}timeout={_SQLITE_WAIT_SECONDS}"
    return uri


@contextmanager
def bounded_requests() -> Iterator[None]:
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


def reason(error: BaseException) -> str:
    """The first line of what went wrong, fit for a sentence."""
    line = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
    # What follows names the address once more, three times over.
    return without_credentials(line.partition(" with exception HTTPConnectionPool")[0])


def open_registry() -> Tracking:
    """Find the store and its model registry, for what writes no runs; nothing is asked of it yet."""
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent", "mlflow.spark"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a new store logs each of its migrations
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one for each file
    uri = _store_uri()
    mlflow.set_tracking_uri(uri)
    return Tracking(uri, experiment_id="")


def _alone_with(uri: str) -> FileLock:
    """Two processes that make a new store's tables, or an experiment, at once would fail."""
    name = hashlib.sha256(uri.encode()).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"tuner-{os.getuid()}-{name}.lock"
    return FileLock(place, timeout=_SQLITE_WAIT_SECONDS)


def open_tracking(experiment_name: str) -> Tracking:
    """Find the store and the MLflow experiment, on the driver, and check that the store answers.

    Inside `mlflow run`, the experiment is the one of the run that it started; else it is the one that
    `MLFLOW_EXPERIMENT_NAME` or `MLFLOW_EXPERIMENT_ID` names; else `experiment_name`, made if need be.

    Raises
    ------
    TrackingError
        The server does not answer, the store cannot be written, or the experiment was deleted.
    """
    uri = open_registry().uri
    shown = without_credentials(uri)
    try:
        with bounded_requests(), _alone_with(uri):
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
        raise TrackingError(
            f"The MLflow tracking store {shown} cannot be used: {reason(error)} "
            "(check MLFLOW_TRACKING_URI, and that the server runs)."
        ) from error
    return Tracking(uri, experiment_id)


def local_artifacts(tracking: Tracking) -> Path | None:
    """The folder of the experiment's artifacts; None where another machine, or a server, keeps them."""
    location = tracking.client().get_experiment(tracking.experiment_id).artifact_location
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path)).resolve()
    return None if parts.scheme else Path(location).resolve()


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
    earlier
        The run as it was, if it is taken up again: MLflow changes no parameter and appends to tables.
    """

    def __init__(self, client: MlflowClient, run_id: str, earlier: Run | None = None) -> None:
        self._client = client
        self.run_id = run_id
        self._params: Mapping[str, str] = earlier.data.params if earlier else {}
        self._resumed = earlier is not None

    def batch(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, Any] | None = None,
        histories: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Write parameters, metrics, tags and stepped metrics (`histories`) in one request.

        A parameter that the run has with another value becomes a tag.
        """
        given = {key: str(value) for key, value in (params or {}).items()}
        changed = {key: value for key, value in given.items() if self._params.get(key, value) != value}
        now = int(time.time() * 1000)
        values = [Metric(key, float(value), now, 0) for key, value in (metrics or {}).items()]
        for key, history in (histories or {}).items():
            values += [Metric(key, float(value), now, step) for step, value in enumerate(history)]
        self._client.log_batch(
            self.run_id,
            metrics=values,
            params=[Param(key, value) for key, value in given.items() if key not in changed],
            tags=[RunTag(key, str(value)) for key, value in {**changed, **(tags or {})}.items()],
        )

    def text(self, text: str, file: str) -> None:
        """Write a text artifact."""
        self._client.log_text(self.run_id, text, file)

    def json(self, data: Any, file: str) -> None:
        """Write a JSON or YAML artifact, by the ending of `file`."""
        self._client.log_dict(self.run_id, data, file)

    def table(self, frame: pd.DataFrame, file: str) -> None:
        """Write a table that MLflow's UI shows as one; one that is there is replaced."""
        folder = Path(file).parent.name or None
        if self._resumed and file in [
            known.path for known in self._client.list_artifacts(self.run_id, folder)
        ]:
            self.json(json.loads(frame.to_json(orient="split", index=False)), file)
        else:
            self._client.log_table(self.run_id, frame, file)

    def csv(self, frame: pd.DataFrame, file: str) -> None:
        """Write a table as CSV; its line ends are quoted where a value holds one, a file's name say."""
        self.text(frame.to_csv(index=False, lineterminator="\r\n"), file)

    def image(self, image: Image.Image, key: str) -> None:
        """Write an image under a key, by which the compare page lays out runs in a grid."""
        self._client.log_image(self.run_id, image, key=key, step=0)

    def file(self, path: Path, folder: str | None = None) -> None:
        """Copy a local file into the run's artifacts."""
        self._client.log_artifact(self.run_id, str(path), folder)

    def parquet(self, frame: pd.DataFrame, file: str) -> None:
        """Write a table for programs to read."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(file).name
            frame.to_parquet(path, index=False)
            self.file(path, Path(file).parent.name or None)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: `FINISHED`, `FAILED` or `KILLED`."""
        self._client.set_terminated(self.run_id, status)


def read_artifact(tracking: Tracking, run_id: str, file: str, folder: Path) -> Path:
    """Fetch an artifact of a run into `folder`.

    Raises
    ------
    TrackingError
        The run has no such artifact, or the store does not answer.
    """
    try:
        with bounded_requests():
            return Path(tracking.client().download_artifacts(run_id, file, str(folder)))
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(f"The run {run_id} has no {file} that can be read: {reason(error)}.") from error
