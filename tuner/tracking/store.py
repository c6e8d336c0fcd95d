"""The MLflow store: found and checked on the driver, and opened by whoever writes to it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import fluent

from tuner.base.errors import TrackingError
from tuner.base.files import private_folder
from tuner.base.uris import local_path
from tuner.tracking.answering import (
    REFUSALS,
    check_answers,
    is_database,
    reason,
    wait_for_database,
    without_credentials,
)

# How a secured server is reached; the workers of a cluster do not have the driver's environment.
_ACCESS = tuple(
    f"MLFLOW_TRACKING_{name}"
    for name in ("USERNAME", "PASSWORD", "TOKEN", "INSECURE_TLS", "SERVER_CERT_PATH", "CLIENT_CERT_PATH")
)
_EXPERIMENT_VARIABLES = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
_RETRIES = "5"  # of a request to a server, about a minute; MLflow's default is four
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
        if is_database(self.uri):
            wait_for_database(self.uri)
        return MlflowClient(self.uri)


def _check_password(uri: str) -> None:
    """Refuse a database's password with an @, which would be taken for the host's, and told as such."""
    userinfo, _, _ = uri.partition("://")[2].partition("?")[0].rpartition("@")
    if "@" in userinfo and not uri.startswith("http"):
        raise TrackingError(
            f"The MLflow tracking store {without_credentials(uri)} cannot be used: the @ in its user or "
            "password must be written as %40 (check MLFLOW_TRACKING_URI)."
        )


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
    _check_password(uri)
    if uri.startswith("sqlite:///"):
        file, mark, options = uri.removeprefix("sqlite:///").partition("?")
        uri = f"sqlite:///{Path(file).absolute()}{mark}{options}"
    if uri.startswith("sqlite:///") and "timeout=" not in uri:
        uri += f"{'&' if '?' in uri else '?'}timeout={_SQLITE_WAIT_SECONDS}"
    return uri


def be_patient() -> None:
    """Let requests to a server that is started again wait for it, about a minute each."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", _RETRIES)


def forget_active_run() -> None:
    """Let MLflow's fluent calls, and the end of this process, leave the active run alone.

    `mlflow.end_run` tells the store, and waits for minutes where that does not answer.
    """
    fluent._active_run_stack.get().pop()  # type: ignore[no-untyped-call]


def open_registry() -> Tracking:
    """Find the store and its model registry, for what writes no runs; nothing is asked of it yet."""
    be_patient()
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent", "mlflow.spark"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a new store logs each of its migrations
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one for each file
    uri = _store_uri()
    mlflow.set_tracking_uri(uri)
    return Tracking(uri, experiment_id="")


def _alone_with(uri: str) -> FileLock:
    """Two processes that make a new store's tables, or an experiment, at once would fail."""
    name = hashlib.sha256(uri.encode()).hexdigest()[:16]
    return FileLock(private_folder() / f"{name}.lock", timeout=_SQLITE_WAIT_SECONDS)


def sqlite_file(uri: str) -> Path | None:
    """The file of a store in SQLite; None for another kind."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def open_tracking(experiment_name: str, *, make: bool = True) -> Tracking:
    """Find the store and the MLflow experiment, on the driver, and check that the store answers.

    Inside `mlflow run`, the experiment is the one of the run that it started, unless nobody named one and
    that is `Default`; where the program has a run that is active, it is that one's; else the one that
    `MLFLOW_EXPERIMENT_NAME` or `MLFLOW_EXPERIMENT_ID` names; else `experiment_name`, made if need be and
    `make` is set: else one that is not there has no id.

    Raises
    ------
    TrackingError
        The server does not answer, the store cannot be written, or the experiment was deleted.
    """
    uri = open_registry().uri
    shown = without_credentials(uri)
    try:
        check_answers(uri)
        with _alone_with(uri):
            client = Tracking(uri, "").client()
            experiment_id = _given_experiment(client)
            if not experiment_id:
                name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or experiment_name
                found = client.get_experiment_by_name(name) if name else None
                if not found and not make:
                    return Tracking(uri, experiment_id="")
                experiment_id = found.experiment_id if found else client.create_experiment(name)
            if client.get_experiment(experiment_id).lifecycle_stage == LifecycleStage.DELETED:
                raise TrackingError(
                    f"The MLflow experiment {experiment_id} in {shown} was deleted: restore it (mlflow "
                    "experiments restore), or give another with --experiment-name or the file's name."
                )
    except REFUSALS as error:
        variable = next(filter(os.environ.get, _EXPERIMENT_VARIABLES[:2]), None)
        known = (
            f"{variable} is set: unset it, or " if variable and isinstance(error, MlflowException) else ""
        )
        raise TrackingError(
            f"The MLflow tracking store {shown} cannot be used: {reason(error)} "
            f"({known}check MLFLOW_TRACKING_URI, and that the server runs)."
        ) from error
    return Tracking(uri, experiment_id)


def _given_experiment(client: MlflowClient) -> str | None:
    """The experiment of the run that there is already, or the one that a variable has the id of."""
    run_id, active = os.environ.get("MLFLOW_RUN_ID"), mlflow.active_run()
    if run_id:
        found = client.get_experiment(client.get_run(run_id).info.experiment_id)
        # `mlflow run` puts it there where nobody named an experiment.
        return None if found.name == Experiment.DEFAULT_EXPERIMENT_NAME else str(found.experiment_id)
    if active is not None:
        return str(active.info.experiment_id)
    return os.environ.get("MLFLOW_EXPERIMENT_ID")


def named_experiment(experiment_name: str | None) -> str | None:
    """The id of the MLflow experiment that the environment or, if given, a file names; None: neither does.

    Raises
    ------
    TrackingError
        As `open_tracking`.
    """
    if experiment_name is None and not any(map(os.environ.get, _EXPERIMENT_VARIABLES)):
        return None
    if experiment_name is None:
        return open_tracking("", make=False).experiment_id or None
    return open_tracking(experiment_name).experiment_id


def local_artifacts(tracking: Tracking) -> Path | None:
    """The folder of the experiment's artifacts; None where another machine, or a server, keeps them."""
    location = tracking.client().get_experiment(tracking.experiment_id).artifact_location
    path = local_path(location)
    return path.resolve() if path else None
