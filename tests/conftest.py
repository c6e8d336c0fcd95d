"""What the tests share: one driver session, one finished search, the real data beside the project."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image, ImageDraw, ImageFont
from pyspark.sql import SparkSession

from tests.helpers.searches import TrackingServer, tracking
from tuner.spark.sessions import DriverSession, driver_session
from tuner.tracking.store import Tracking, open_tracking

# A busy machine is no mistake: how long an example takes is not asserted.
settings.register_profile("tuner", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tuner")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure() -> None:
    """The tests have stores of their own: one that is set outside does not reach them."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(autouse=True)
def same_mlflow_settings() -> Iterator[None]:
    """What MLflow's fluent calls set in this process ends with the test: variables, the tracking URI."""
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    yield
    mlflow.set_tracking_uri(uri)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the real images and weights are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def driver() -> Iterator[DriverSession]:
    """The session that a search has; one for all tests, for a process holds one at a time."""
    with driver_session("tuner-tests", parallelism=2) as session:
        yield session


@pytest.fixture(scope="session")
def spark(driver: DriverSession) -> SparkSession:
    return driver.spark


def glyph(letter: str, seed: int) -> Image.Image:
    """A small gray picture of a letter, moved about: classes that a search can tell apart."""
    rng = np.random.default_rng(seed)
    picture = Image.new("L", (32, 32), 255)
    font = ImageFont.load_default(size=22)
    ImageDraw.Draw(picture).text(tuple(rng.integers(2, 9, 2)), letter, fill=0, font=font)
    noise = rng.normal(0, 20, (32, 32))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 letters, one of them with an awkward name, and two files that are no images."""
    folder = tmp_path_factory.mktemp("images") / "letters"
    for label, letter in (("A", "A"), ("ñandú <b>", "X"), ("o", "o")):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            glyph(letter, number).save(folder / label / f"{number:02d}.png")
    (folder / "A" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a JPEG")
    (folder / "o" / "notes.txt").write_text("no image")
    return folder


@dataclass(frozen=True)
class FinishedSearch:
    """A search that ran as a user runs it: the command line, in a folder of its own."""

    folder: Path
    images: Path
    output: str = ""

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def client(self) -> MlflowClient:
        return MlflowClient(self.store)

    def parent(self) -> Run:
        """The run of the first search."""
        client = self.client()
        experiment = client.get_experiment_by_name("letters")
        runs = client.search_runs(
            [experiment.experiment_id], "tags.`tuner.kind` = 'search'", order_by=["start_time ASC"]
        )
        return runs[0]

    def trials(self) -> list[Run]:
        parent = self.parent()
        query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        return self.client().search_runs([parent.info.experiment_id], query, order_by=["start_time ASC"])


def tuner(folder: Path, *arguments: object, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder, without the settings of an outer MLflow run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run(
        [sys.executable, "-m", "tuner", *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory: pytest.TempPathFactory, letters: Path) -> FinishedSearch:
    """A search of the letters, one for all processes of `pytest -n`: fast tests only read its store."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "search"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done.json").exists():
            _search_letters(folder, letters)
    images, output = json.loads((folder / "done.json").read_text())
    return FinishedSearch(folder, Path(images), output)


def _search_letters(folder: Path, letters: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "letters.yaml").write_text(
        "name: letters\n"
        f"images: {letters}\n"
        "split: {test: 1/4, validation: holdout, validation_ratio: 1/3}\n"
        "search: {backbone: [GlyphNet, GaborNet], maxIter: 3:12, max_evals: 5, parallelism: 2}\n",
        encoding="utf-8",
    )
    first = tuner(folder, "search", "--experiment", "letters.yaml")
    assert first.returncode == 0, first.stdout + first.stderr
    (folder / "done.json").write_text(json.dumps([str(letters), first.stdout]))


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


@pytest.fixture
def search_store(
    finished_search: FinishedSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The store of the finished search for MLflow's fluent calls, seen from another folder: this one."""
    monkeypatch.chdir(tmp_path)
    with tracking(finished_search.store):
        yield tmp_path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrackingServer]:
    """A tracking server that runs."""
    server = TrackingServer(tmp_path)
    server.start()
    yield server
    server.stop()
