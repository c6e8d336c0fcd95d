"""A store of MLflow's default kind for each test."""

import os
import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from tuner.tracking.store import Tracking, open_tracking


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: MLflow takes seconds for its tables."""
    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    """MLflow's default store, in a folder of its own."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    return open_tracking("an experiment")
