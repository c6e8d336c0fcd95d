"""The registry that these tests use: empty, and each test's own."""

import os
import shutil
from pathlib import Path

import pytest

from tuner.tracking.store import Tracking


@pytest.fixture
def tracking(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    store = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "0")
    store.client()
    return store
