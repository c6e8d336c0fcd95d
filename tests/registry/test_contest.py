"""Two registered versions on the champion's test images."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities.model_registry import ModelVersion

from tests.conftest import FinishedSearch
from tests.helpers.searches import tracking
from tuner.base.errors import ImageSourceError, ModelError, TrackingError
from tuner.registry.contest import _images_to_compare_on, compare_versions, read_split, search_experiment
from tuner.spark.sessions import DriverSession
from tuner.tracking.names import SEARCH_RUN
from tuner.tracking.run_log import RunLog
from tuner.tracking.store import Tracking


@pytest.fixture(scope="module")
def store(finished_search: FinishedSearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    """The registry of the finished search, in a copy of its own."""
    file = shutil.copy(finished_search.folder / "mlflow.db", tmp_path_factory.mktemp("contest"))
    copy = Tracking(f"sqlite:///{file}", finished_search.parent().info.experiment_id)
    with tracking(copy.uri):
        yield copy


@pytest.fixture(scope="module")
def champion(store: Tracking) -> ModelVersion:
    return store.client().get_model_version("letters", "1")


def add_version(store: Tracking, source: str, run_id: str | None) -> ModelVersion:
    tags = {} if run_id is None else {SEARCH_RUN: run_id}
    return store.client().create_model_version("letters", source, tags=tags)


def copied_search(store: Tracking, split: pd.DataFrame) -> str:
    """A run that holds another split, as another search would have logged it."""
    run = RunLog(store.client(), store.client().create_run(store.experiment_id).info.run_id)
    run.parquet(split, "split.parquet")
    run.finish()
    return run.run_id


@pytest.fixture(scope="module")
def challenger(store: Tracking, champion: ModelVersion, finished_search: FinishedSearch) -> ModelVersion:
    """The worst trial's model, which has seen the training part only."""
    worst = min(finished_search.trials(), key=lambda run: run.data.metrics["accuracy"])
    (model,) = mlflow.search_logged_models(
        [store.experiment_id], f"source_run_id = '{worst.info.run_id}'", output_format="list"
    )
    return add_version(store, model.model_uri, champion.run_id)


def test_a_version_leads_to_its_experiment_and_split(store: Tracking, champion: ModelVersion):
    assert search_experiment(store, champion).name == "letters"
    split = read_split(store, champion)
    assert list(split.columns) == ["path", "label", "digest", "part"]
    assert split["part"].value_counts().to_dict() == {"train": 30, "validation": 15, "test": 15}


def test_what_the_challenger_has_learnt_from_is_left_out():
    champion = pd.DataFrame(
        {"digest": list("abcdd"), "part": ["test", "test", "train", "test", "test"], "label": list("xyxyy")}
    )
    challenger = pd.DataFrame({"digest": list("abc"), "part": ["test", "fold-1", "test"]})
    wanted, learnt = _images_to_compare_on(champion, challenger)
    assert (list(wanted["digest"]), learnt) == (["a", "d"], 1)


@pytest.mark.long
def test_both_are_scored_on_the_champions_test_images(
    driver: DriverSession,
    store: Tracking,
    champion: ModelVersion,
    challenger: ModelVersion,
    finished_search: FinishedSearch,
):
    contest = compare_versions(driver, store, champion, challenger, "accuracy")
    found, parent = contest.comparison, finished_search.parent()
    assert (contest.champion, contest.challenger) == ("1", str(challenger.version))
    assert contest.notes == ()
    assert found.images == 15
    logged = {name: parent.data.metrics[f"test_{name}"] for name in found.champion.metrics}
    assert found.champion.metrics == pytest.approx(logged, abs=1e-4)
    assert found.challenger.metrics["logLoss"] != pytest.approx(logged["logLoss"], abs=1e-4)
    names = {Path(path).name for path in read_split(store, champion).query("part == 'test'")["path"]}
    assert {Path(path).name for path in found.disagreements["path"]} <= names


@pytest.mark.long
def test_images_that_are_gone_or_learnt_are_counted(
    driver: DriverSession,
    store: Tracking,
    champion: ModelVersion,
    finished_search: FinishedSearch,
    tmp_path: Path,
):
    """Of 15 test images one was learnt from, and one is gone."""
    folder = tmp_path / "moved"
    shutil.copytree(finished_search.images, folder)
    split = read_split(store, champion)
    test = split[split["part"] == "test"].index
    split.loc[test[0], "part"] = "train"
    (folder / Path(split.loc[test[1], "path"]).relative_to(finished_search.images)).unlink()
    rival = add_version(store, champion.source, copied_search(store, split))
    contest = compare_versions(driver, store, champion, rival, "f1", images=str(folder))
    assert contest.comparison.images == 13
    assert contest.comparison.gain == 0
    assert contest.notes == (
        "1 of its test images were left out because the challenger was trained on them.",
        "1 of its test images are not there any more.",
    )


@pytest.mark.long
def test_images_that_are_all_gone_are_a_sentence(
    driver: DriverSession, store: Tracking, champion: ModelVersion, challenger: ModelVersion
):
    with pytest.raises(
        ImageSourceError, match="None of the 15 test images of version 1 is in builtin:digits"
    ):
        compare_versions(driver, store, champion, challenger, "accuracy", images="builtin:digits")


def test_other_classes_cannot_be_compared(driver: DriverSession, store: Tracking, champion: ModelVersion):
    split = read_split(store, champion)
    run_id = copied_search(store, split.assign(label=split["label"].replace("o", "Z")))
    rival = add_version(store, champion.source, run_id)
    with pytest.raises(
        ModelError, match=r"other classes than the champion, version 1: it has no o and adds Z"
    ):
        compare_versions(driver, store, champion, rival, "accuracy")


def test_a_challenger_that_has_learnt_every_test_image_is_refused(
    driver: DriverSession, store: Tracking, champion: ModelVersion
):
    run_id = copied_search(store, read_split(store, champion).assign(part="train"))
    rival = add_version(store, champion.source, run_id)
    with pytest.raises(ModelError, match="was trained on every test image of version 1"):
        compare_versions(driver, store, champion, rival, "accuracy")


def test_versions_without_a_search_or_a_split_are_refused(
    driver: DriverSession, store: Tracking, champion: ModelVersion, finished_search: FinishedSearch
):
    stray = add_version(store, champion.source, None)
    with pytest.raises(ModelError, match="was not registered by a search of tuner"):
        compare_versions(driver, store, champion, stray, "accuracy")
    old = add_version(store, champion.source, finished_search.trials()[0].info.run_id)
    with pytest.raises(TrackingError, match=r"has no split\.parquet that can be read"):
        compare_versions(driver, store, champion, old, "accuracy")
