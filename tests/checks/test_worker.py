import pickle
import socket
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from tests.helpers.searches import tracking
from tuner.base.errors import CacheError, ImageSourceError, SessionError, TrackingError, TunerError
from tuner.checks.cluster import needed_packages
from tuner.checks.worker import WorkerChecks
from tuner.tracking.store import open_registry, open_tracking


def answer(**asked: object) -> TunerError | None:
    """What this machine answers, as a worker that got the checks by mail."""
    checks: WorkerChecks = pickle.loads(pickle.dumps(WorkerChecks(**{"packages": (), **asked})))
    ((host, error),) = checks([1])
    assert host == socket.gethostname()
    return None if error is None else pickle.loads(pickle.dumps(error))


def test_a_worker_with_all_packages_has_nothing_to_say():
    names = needed_packages()
    assert {"pyspark", "mlflow", "hyperopt", "tensorflow", "ruamel.yaml"} <= set(names)
    assert not {"typer", "pytest", "rich", "onnx", "tf2onnx"} & set(names)
    assert answer(packages=names) is None


def test_missing_packages_are_named():
    error = answer(packages=("numpy", "no-such-package", "nor-this"))
    assert isinstance(error, SessionError)
    assert f"The worker {socket.gethostname()} lacks no-such-package, nor-this" in str(error)


def test_a_cache_folder_is_the_same_if_the_word_is(tmp_path: Path):
    probe = tmp_path / "probe"
    missing = answer(probe=str(probe), word="a")
    probe.mkdir()
    (probe / "word").write_text("a")
    assert answer(probe=str(probe), word="a") is None
    assert len(list(probe.iterdir())) == 2
    other = answer(probe=str(probe), word="b")
    for error in (missing, other):
        assert isinstance(error, CacheError)
        assert f"does not see the feature cache {tmp_path}" in str(error)


def test_images_out_of_sight_are_said(tmp_path: Path):
    assert answer(images=str(tmp_path)) is None
    error = answer(images=str(tmp_path / "away"))
    assert isinstance(error, ImageSourceError)
    assert f"does not see the images {tmp_path / 'away'}" in str(error)


def test_a_store_that_a_worker_does_not_see_is_not_made(tmp_path: Path):
    file = tmp_path / "mlflow.db"
    error = answer(tracking=(f"sqlite:///{file}?timeout=60", "1", {}, "run", "experiment.yaml"))
    assert isinstance(error, TrackingError)
    assert "does not see the MLflow store" in str(error)
    assert not file.exists()


def test_a_server_out_of_reach_is_said_without_its_password():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening
        uri = f"http://user:s3cret@127.0.0.1:{unused.getsockname()[1]}"
        error = answer(tracking=(uri, "1", {}, "run", "experiment.yaml"))
    assert isinstance(error, TrackingError)
    assert "cannot use the MLflow store http://***@127.0.0.1" in str(error)
    assert "s3cret" not in str(error)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with MLflow's default store: a relative path."""
    monkeypatch.chdir(tmp_path)
    with tracking("sqlite:///mlflow.db"):
        yield tmp_path


def test_artifacts_out_of_sight_are_said(here: Path, monkeypatch: pytest.MonkeyPatch):
    store = open_tracking("artifacts")
    assert store.uri.startswith(f"sqlite:///{here}/mlflow.db")
    run = store.client().create_run(store.experiment_id)
    monkeypatch.chdir("/")  # workers have other folders
    asked = (store.uri, store.experiment_id, store.access, run.info.run_id, "experiment.yaml")
    error = answer(tracking=asked)
    assert isinstance(error, TrackingError)
    assert "does not see the artifacts" in str(error)
    store.client().log_text(run.info.run_id, "name: a", "experiment.yaml")
    assert answer(tracking=asked) is None


def test_user_and_password_leave_the_uri_of_a_server():
    with tracking("https://us%40er:s3cret@host:5000/x"):
        store = open_registry()
        assert store.uri == mlflow.get_tracking_uri() == "https://host:5000/x"
        access = {"MLFLOW_TRACKING_USERNAME": "us@er", "MLFLOW_TRACKING_PASSWORD": "s3cret"}
        assert dict(store.access) == access


def test_access_to_a_server_travels_and_is_not_shown(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret")
    store = open_registry()
    assert dict(store.access) == {"MLFLOW_TRACKING_TOKEN": "s3cret"}
    assert "s3cret" not in repr(store)
    checks = WorkerChecks(
        (), endpoint=("host", 1, "s3cret"), tracking=("http://a:s3cret@b", "1", {}, "", "")
    )
    assert "s3cret" not in repr(checks)
