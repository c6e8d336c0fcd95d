"""The MLflow store: found and checked on the driver, and opened by whoever writes to it."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tuner.base.errors import TrackingError
from tuner.base.wording import first_line

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

    def make_current(self) -> None:
        """Make this store, with what lets one in, MLflow's own in this process: for its fluent calls."""
        for name, value in self.access.items():
            os.environ.setdefault(name, value)
        if mlflow.get_tracking_uri() != self.uri:
            mlflow.set_tracking_uri(self.uri)

    def client(self) -> MlflowClient:
        """Open a client of this store; nothing else in the process changes."""
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
    line = first_line(error)
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
