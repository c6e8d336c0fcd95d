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
from tuner.experiment.schema import Experiment
from tuner.extraction.cache import FeatureCache
from tuner.registry import scores
from tuner.registry.champion_challenger import (
    _images_to_compare_on,
    compare_versions,
    read_split,
    search_experiment,
)
from tuner.registry.lookup import Sessions
from tuner.spark.sessions import DriverSession
from tuner.tracking.names import SEARCH_RUN
from tuner.tracking.run_log import RunLog
from tuner.tracking.store import Tracking


@pytest.fixture(scope="module")
def store(finished_search: FinishedSearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    """The registry of the finished search, in a copy of its own."""
    file = shutil.copy(finished_search.folder / "mlflow.db", tmp_path_factory.mktemp("compared"))
    copy = Tracking(f"sqlite:///{file}", finished_search.parent().info.experiment_id)
    with tracking(copy.uri):
        yield copy


@pytest.fixture(scope="module")
def champion(store: Tracking) -> ModelVersion:
    return store.client().get_model_version("letters", "1")


def add_version(store: Tracking, source: str, run_id: str | None) -> ModelVersion:
    tags = {} if run_id is None else {SEARCH_RUN: run_id}
    return store.client().create_model_version("letters", source, tags=tags)


def sessions(driver: DriverSession) -> Sessions:
    return lambda: driver


def no_session() -> DriverSession:
    raise AssertionError("Spark is not needed")


def copied_search(store: Tracking, split: pd.DataFrame, experiment: Experiment | None = None) -> str:
    """A run that holds another split, as another search would have logged it."""
    run = RunLog(
        store.client(), store.client().create_run(store.experiment_id).info.run_id, store.experiment_id
    )
    run.parquet(split, "split.parquet")
    if experiment is None:
        experiment = search_experiment(store, store.client().get_model_version("letters", "1"))
    run.json(experiment.to_yaml_dict(), "experiment.yaml")
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
    compared = compare_versions(sessions(driver), store, champion, challenger, "accuracy")
    found, parent = compared.comparison, finished_search.parent()
    assert (compared.champion, compared.challenger) == ("1", str(challenger.version))
    assert compared.notes == ()
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
    compared = compare_versions(sessions(driver), store, champion, rival, "f1", images=str(folder))
    assert compared.comparison.images == 13
    assert compared.comparison.gain == 0
    assert compared.notes == (
        "1 of its test images were left out because the challenger was trained on them.",
        "1 of its test images are not there any more, or cannot be used.",
    )


@pytest.mark.long
def test_images_that_are_all_gone_are_a_sentence(
    driver: DriverSession, store: Tracking, champion: ModelVersion, challenger: ModelVersion
):
    with pytest.raises(
        ImageSourceError, match="None of the 15 test images of version 1 is in builtin:digits"
    ):
        compare_versions(sessions(driver), store, champion, challenger, "accuracy", images="builtin:digits")


def test_other_classes_cannot_be_compared(driver: DriverSession, store: Tracking, champion: ModelVersion):
    split = read_split(store, champion)
    run_id = copied_search(store, split.assign(label=split["label"].replace("o", "Z")))
    rival = add_version(store, champion.source, run_id)
    with pytest.raises(
        ModelError, match=r"other classes than the champion, version 1: it has no o and adds Z"
    ):
        compare_versions(sessions(driver), store, champion, rival, "accuracy")


def test_a_challenger_that_has_learnt_every_test_image_is_refused(
    driver: DriverSession, store: Tracking, champion: ModelVersion
):
    run_id = copied_search(store, read_split(store, champion).assign(part="train"))
    rival = add_version(store, champion.source, run_id)
    with pytest.raises(ModelError, match="was trained on every test image of version 1"):
        compare_versions(sessions(driver), store, champion, rival, "accuracy")


def test_versions_without_a_search_or_a_split_are_refused(
    driver: DriverSession, store: Tracking, champion: ModelVersion, finished_search: FinishedSearch
):
    stray = add_version(store, champion.source, None)
    with pytest.raises(ModelError, match="was not registered by a search of tuner"):
        compare_versions(sessions(driver), store, champion, stray, "accuracy")
    old = add_version(store, champion.source, finished_search.trials()[0].info.run_id)
    with pytest.raises(TrackingError, match=r"has no split\.parquet that can be read"):
        compare_versions(sessions(driver), store, champion, old, "accuracy")


@pytest.fixture
def cache(finished_search: FinishedSearch) -> FeatureCache:
    return FeatureCache(finished_search.folder / ".tuner")


@pytest.fixture
def moved(finished_search: FinishedSearch, tmp_path: Path) -> Path:
    """The images in another folder, where they can be changed."""
    return shutil.copytree(finished_search.images, tmp_path / "moved")


def files_of_test(store: Tracking, champion: ModelVersion, folder: Path, images: Path) -> list[Path]:
    """The champion's test images in a copy of the folder, by class."""
    split = read_split(store, champion).query("part == 'test'").sort_values("path")
    return [folder / Path(path).relative_to(images) for path in split["path"]]


def test_features_of_the_cache_need_neither_spark_nor_networks(
    store: Tracking,
    champion: ModelVersion,
    challenger: ModelVersion,
    cache: FeatureCache,
    finished_search: FinishedSearch,
):
    compared = compare_versions(no_session, store, champion, challenger, "accuracy", caches=[cache])
    logged = finished_search.parent().data.metrics
    found = compared.comparison
    assert (found.images, compared.computed, compared.notes) == (15, 0, ())
    metrics = {name: logged[f"test_{name}"] for name in found.champion.metrics}
    assert found.champion.metrics == pytest.approx(metrics, abs=1e-4)
    assert found.challenger.metrics["logLoss"] != pytest.approx(metrics["logLoss"], abs=1e-4)


def test_images_without_features_go_through_the_network_in_this_process(
    store: Tracking, champion: ModelVersion, challenger: ModelVersion, cache: FeatureCache
):
    cached = compare_versions(no_session, store, champion, challenger, "accuracy", caches=[cache])
    computed = compare_versions(no_session, store, champion, challenger, "accuracy")
    assert computed.computed == 15
    for one, other in ((computed.comparison.champion, cached.comparison.champion),):
        assert one.metrics == pytest.approx(other.metrics, abs=1e-4)


@pytest.mark.long
def test_images_without_features_that_are_many_or_elsewhere_are_left_to_spark(
    driver: DriverSession,
    store: Tracking,
    champion: ModelVersion,
    challenger: ModelVersion,
    cache: FeatureCache,
    monkeypatch: pytest.MonkeyPatch,
):
    cached = compare_versions(no_session, store, champion, challenger, "accuracy", caches=[cache])
    monkeypatch.setattr(scores, "_FEW", 14)
    compared = compare_versions(sessions(driver), store, champion, challenger, "accuracy")
    assert compared.computed == 15
    assert compared.comparison.champion.metrics == pytest.approx(
        cached.comparison.champion.metrics, abs=1e-4
    )


def test_corrected_labels_count(
    store: Tracking,
    champion: ModelVersion,
    challenger: ModelVersion,
    cache: FeatureCache,
    finished_search: FinishedSearch,
    moved: Path,
):
    """Of 15 test images two were put into the class of another, and one into a class of its own."""
    plain = compare_versions(no_session, store, champion, challenger, "accuracy", caches=[cache])
    files = files_of_test(store, champion, moved, finished_search.images)
    for number, (file, label) in enumerate(zip(files[:3], ("o", "o", "new"), strict=True)):
        (moved / label).mkdir(exist_ok=True)
        file.rename(moved / label / f"moved-{number}.png")
    compared = compare_versions(
        no_session, store, champion, challenger, "accuracy", images=str(moved), caches=[cache]
    )
    assert compared.comparison.images == 14
    assert compared.notes == (
        "1 of its test images are in a class now that the models do not know.",
        "2 of its test images have another class now than in the champion's search: the one that they have "
        "now counts.",
    )
    support = compared.comparison.champion.confusion.sum(axis=1)
    assert (support - plain.comparison.champion.confusion.sum(axis=1)).tolist() == [-3, 2, 0]


def test_the_challengers_source_knows_the_classes_better(
    store: Tracking,
    champion: ModelVersion,
    cache: FeatureCache,
    finished_search: FinishedSearch,
    moved: Path,
):
    """The champion's folder still holds the old labels; the challenger's search read corrected ones."""
    (file, *_) = files_of_test(store, champion, moved, finished_search.images)
    file.rename(moved / "o" / "corrected.png")
    experiment = search_experiment(store, champion).model_copy(update={"images": str(moved)})
    run_id = copied_search(store, read_split(store, champion), experiment)
    rival = add_version(store, champion.source, run_id)
    compared = compare_versions(no_session, store, champion, rival, "accuracy", caches=[cache])
    assert compared.comparison.images == 15
    (note,) = compared.notes
    assert note.startswith("1 of its test images have another class now")


def test_an_image_that_stands_in_several_classes_now_is_left_out(
    store: Tracking,
    champion: ModelVersion,
    challenger: ModelVersion,
    cache: FeatureCache,
    finished_search: FinishedSearch,
    moved: Path,
):
    (file, *_) = files_of_test(store, champion, moved, finished_search.images)
    shutil.copy(file, moved / "o" / "copy.png")
    compared = compare_versions(
        no_session, store, champion, challenger, "accuracy", images=str(moved), caches=[cache]
    )
    assert compared.comparison.images == 14
    assert compared.notes == ("1 of its test images stand in several classes now.",)


def test_where_no_image_is_left_features_and_remembered_classes_remain(
    store: Tracking, champion: ModelVersion, cache: FeatureCache, tmp_path: Path
):
    """The champion's folder is gone; the challenger's search had corrected one label before."""
    split, gone = read_split(store, champion), tmp_path / "gone"
    test = split[split["part"] == "test"].index
    experiment = search_experiment(store, champion).model_copy(update={"images": str(gone)})
    old = add_version(store, champion.source, copied_search(store, split, experiment))
    split.loc[test[0], "label"] = "o"
    new = add_version(store, champion.source, copied_search(store, split, experiment))
    compared = compare_versions(no_session, store, old, new, "accuracy", caches=[cache])
    assert compared.comparison.images == 15
    assert compared.notes == (
        "1 of its test images have another class now than in the champion's search: the one that they have "
        "now counts.",
        f"The images {gone} cannot be read now: There is no folder {gone}: check images, the folder of "
        "class folders.",
        "15 of its test images count with the class that they had in the searches.",
    )
    with pytest.raises(
        ImageSourceError, match=r"None of the 15 test images of version \d+ can be compared on.*no folder"
    ):
        compare_versions(no_session, store, old, new, "accuracy")


def test_images_that_were_given_and_are_not_there_are_a_sentence(
    store: Tracking, champion: ModelVersion, challenger: ModelVersion, cache: FeatureCache, tmp_path: Path
):
    with pytest.raises(ImageSourceError, match=f"There is no folder {tmp_path / 'none'}"):
        compare_versions(
            no_session,
            store,
            champion,
            challenger,
            "accuracy",
            images=str(tmp_path / "none"),
            caches=[cache],
        )
