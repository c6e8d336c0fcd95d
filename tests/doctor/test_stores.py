import hashlib
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from tests.helpers.searches import free_port
from tuner.base.errors import CacheError, ImageSourceError, TrackingError
from tuner.doctor import stores
from tuner.experiment.schema import Experiment
from tuner.tracking.store import Tracking


def experiment(**keys: object) -> Experiment:
    return Experiment.model_validate(
        {"name": "e", "images": "a", "search": {"backbone": "GlyphNet"}, **keys}
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def test_in_an_empty_folder_all_is_in_order_and_it_stays_empty(folder: Path) -> None:
    asked = experiment(cache=str(folder / "a" / "cache"))
    checks = (stores.check_store, stores.check_registry, stores.check_cache)
    found = [finding for check in checks for finding in check(asked)]
    assert [finding.state for finding in found] == ["ok"] * 3
    assert all("made" in finding.said for finding in found)
    assert list(folder.iterdir()) == []


def test_a_store_that_is_there_is_only_read(store: Tracking, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    (found,) = stores.check_store(experiment())
    assert "is made by the first search" in found.said
    (known,) = stores.check_store(experiment(name="an experiment"))
    assert "is there" in known.said
    (registry,) = stores.check_registry(experiment())
    assert "has no champion yet" in registry.said
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before


def test_a_champion_is_named(store: Tracking) -> None:
    client = store.client()
    client.create_registered_model("e")
    client.create_model_version("e", "somewhere")
    client.set_registered_model_alias("e", "champion", "1")
    (found,) = stores.check_registry(experiment())
    assert "champion of e is version 1" in found.said


def test_an_experiment_that_was_deleted_is_refused_as_by_a_search(store: Tracking) -> None:
    MlflowClient(store.uri).delete_experiment(store.experiment_id)
    with pytest.raises(TrackingError, match="was deleted: restore it"):
        list(stores.check_store(experiment(name="an experiment")))


def test_a_server_that_is_away_is_refused_as_by_a_search(folder: Path) -> None:
    mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
    for check in (stores.check_store, stores.check_registry):
        with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI"):
            list(check(experiment()))


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/cache"])
def test_a_cache_that_cannot_be_written_is_refused_as_by_a_search(folder: Path, place: str) -> None:
    with pytest.raises(CacheError, match="cannot be written"):
        list(stores.check_cache(experiment(cache=place)))


@pytest.mark.parametrize(
    ("images", "state"),
    [("builtin:digits", "ok"), ("photos", "ok"), ("table:photos", "left out"), ("*.parquet", "left out")],
)
def test_images_of_this_machine_are_looked_for(folder: Path, images: str, state: str) -> None:
    (folder / "photos").mkdir()
    (found,) = stores.check_images(experiment(images=images))
    assert found.state == state


def test_images_that_are_not_there_are_refused(folder: Path) -> None:
    with pytest.raises(ImageSourceError, match="There is no folder photos"):
        list(stores.check_images(experiment(images="photos")))


def test_a_store_that_cannot_be_made_is_refused(folder: Path) -> None:
    mlflow.set_tracking_uri("sqlite:////proc/nowhere/mlflow.db")
    with pytest.raises(TrackingError, match="takes no files"):
        list(stores.check_store(experiment()))


def test_a_cache_that_is_there_stays_and_where_a_search_writes_is_known(folder: Path) -> None:
    (folder / ".tuner").mkdir()
    (found,) = stores.check_cache(experiment())
    assert "there" in found.said
    assert (folder / ".tuner").is_dir()
    written = stores.written_folders(experiment())
    assert set(written.values()) == {folder / ".tuner", folder / "mlflow.db"}
