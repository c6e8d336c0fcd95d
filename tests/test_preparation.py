from fractions import Fraction
from pathlib import Path

import pytest
from rich.console import Console

from tuner.errors import BackboneError, ImageSourceError
from tuner.experiment import Experiment, Search, Split
from tuner.feature_cache import FeatureCache
from tuner.preparation import (
    PreparedImages,
    check_names,
    data_digest,
    feature_table,
    first_image,
    prepare_images,
    publish_tables,
)
from tuner.sessions import DriverSession


def letters_experiment(letters: Path, **settings) -> Experiment:
    return Experiment(
        name="letters",
        images=str(letters),
        split=Split(test="1/4", validation_ratio=Fraction(1, 3)),
        search=Search(backbone="GaborNet"),
        **settings,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return FeatureCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def prepared(driver: DriverSession, letters: Path, cache: FeatureCache) -> PreparedImages:
    return prepare_images(driver, letters_experiment(letters), cache, Console(quiet=True))


def test_good_images_are_split_and_bad_ones_listed(prepared: PreparedImages):
    counts = prepared.index.groupby(["label", "part"]).size().unstack()
    assert set(counts["test"]) == {5}
    assert set(counts["validation"]) == {5}
    assert set(counts["train"]) == {10}
    assert [Path(path).name for path in prepared.quarantine["path"]] == ["broken.jpg", "notes.txt"]
    assert prepared.extracted == 62


def test_what_is_cached_is_not_extracted_again_and_the_digest_stays(
    driver: DriverSession, letters: Path, cache: FeatureCache, prepared: PreparedImages
):
    again = prepare_images(driver, letters_experiment(letters), cache, Console(quiet=True))
    assert again.extracted == 0
    assert again.digest == prepared.digest
    assert data_digest(again.index.sample(frac=1, random_state=0)) == again.digest
    assert data_digest(again.index.assign(part="train")) != again.digest


def test_trials_never_see_the_test_part(
    driver: DriverSession, cache: FeatureCache, prepared: PreparedImages
):
    tables = publish_tables(driver, cache, prepared)
    rows = driver.spark.table(tables["GaborNet"]).toPandas()
    assert set(rows["part"]) == {"train", "validation"}
    assert not set(rows["path"]) & set(prepared.rows("test")["path"])
    assert list(rows["path"]) == sorted(rows["path"])
    assert rows["features"].map(len).unique() == [prepared.backbones["GaborNet"].width]


def test_copies_of_an_image_keep_their_own_rows(
    driver: DriverSession, cache: FeatureCache, prepared: PreparedImages
):
    row = prepared.index.head(1)
    twice = feature_table(
        driver, cache, prepared.backbones["GaborNet"], row._append(row.assign(path="a copy"))
    )
    assert sorted(item["path"] for item in twice.collect()) == sorted([row["path"].iloc[0], "a copy"])


def test_example_is_the_smallest_image(letters: Path, prepared: PreparedImages):
    sizes = [path.stat().st_size for path in letters.rglob("*.png")]
    assert len(first_image(prepared)) == min(sizes)


@pytest.mark.parametrize("warm", [False, True])
def test_a_bad_image_stops_everything_where_that_is_asked_for(
    driver: DriverSession, letters: Path, tmp_path: Path, cache: FeatureCache, prepared, warm: bool
):
    experiment = letters_experiment(letters, on_bad_image="fail")
    used = cache if warm else FeatureCache(tmp_path)
    with pytest.raises(ImageSourceError, match=r"(broken\.jpg|notes\.txt) cannot be used"):
        prepare_images(driver, experiment, used, Console(quiet=True))


def test_unknown_networks_are_refused_with_the_nearest_names(letters: Path):
    experiment = letters_experiment(letters)
    search = experiment.search.model_copy(update={"backbone": Search(backbone="ResNet5O").backbone})
    with pytest.raises(BackboneError, match="ResNet50"):
        check_names(experiment.model_copy(update={"search": search}))
