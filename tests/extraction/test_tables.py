from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tuner.base.errors import CacheError
from tuner.experiment.schema import Experiment, SearchSettings, Split
from tuner.extraction import tables as feature_tables
from tuner.extraction.cache import FeatureCache
from tuner.extraction.preparation import PreparedImages, prepare_images
from tuner.extraction.tables import feature_table, publish_tables
from tuner.spark.sessions import DriverSession


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return FeatureCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def prepared(driver: DriverSession, letters: Path, cache: FeatureCache) -> PreparedImages:
    experiment = Experiment(
        name="letters",
        images=str(letters),
        split=Split(test="1/4", validation_ratio=Fraction(1, 3)),
        search=SearchSettings(backbone="GaborNet"),
    )
    return prepare_images(driver, experiment, cache, Console(quiet=True))


@pytest.fixture(params=["small", "medium", "large"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A table made on the driver, by Spark in one partition, or in several."""
    if request.param != "small":
        monkeypatch.setattr(feature_tables, "_SMALL_BYTES", 0)
    if request.param == "large":
        monkeypatch.setattr(feature_tables, "_PARTITION_BYTES", 4096)
    return request.param


def test_trials_never_see_the_test_part(
    driver: DriverSession, cache: FeatureCache, prepared: PreparedImages, size: str
) -> None:
    tables = publish_tables(driver, cache, prepared)
    table = driver.spark.table(tables["GaborNet"])
    assert (table.rdd.getNumPartitions() == 1) == (size != "large")
    rows = table.toPandas()
    assert set(rows["part"]) == {"train", "validation"}
    assert not set(rows["path"]) & set(prepared.rows("test")["path"])
    assert list(rows["path"]) == sorted(rows["path"])


def test_no_task_carries_the_rows_of_a_table(
    driver: DriverSession, cache: FeatureCache, prepared: PreparedImages, size: str
) -> None:
    """A task carries its partition: of a table that the driver made, that would be the rows themselves."""
    table = driver.spark.table(publish_tables(driver, cache, prepared)["GaborNet"])
    jvm = driver.spark.sparkContext._jvm
    for partition in table._jdf.queryExecution().toRdd().partitions():
        written = jvm.java.io.ByteArrayOutputStream()
        jvm.java.io.ObjectOutputStream(written).writeObject(partition)
        assert written.size() < 1000


def test_a_row_has_its_own_image_s_features_and_no_zero(
    driver: DriverSession, cache: FeatureCache, prepared: PreparedImages, size: str
) -> None:
    backbone, rows = prepared.networks["GaborNet"], prepared.index
    table = (
        feature_table(driver, cache, backbone, rows, classes=3)
        .toPandas()
        .set_index("path")
        .loc[rows["path"]]
    )
    assert table[["label_index", "part"]].equals(rows.set_index("path")[["label_index", "part"]])
    cached = cache.load(backbone, list(rows["digest"]))
    assert cached.shape == (len(rows), backbone.width)
    made = np.stack([vector.toArray() for vector in table["features"]])
    np.testing.assert_array_equal(made, np.where(cached == 0, 1e-30, cached.astype(np.float64)))


def test_copies_of_an_image_keep_their_own_rows(
    driver: DriverSession, cache: FeatureCache, prepared: PreparedImages, size: str
) -> None:
    row = prepared.index.head(1)
    rows = pd.concat([row, row.assign(path="a copy")])
    twice = feature_table(driver, cache, prepared.networks["GaborNet"], rows, classes=3)
    assert sorted(item["path"] for item in twice.collect()) == sorted([row["path"].iloc[0], "a copy"])


def test_features_that_went_away_are_one_sentence(cache: FeatureCache, prepared: PreparedImages) -> None:
    with pytest.raises(CacheError, match="1 images have lost their features") as caught:
        cache.load(prepared.networks["GaborNet"], [prepared.index["digest"].iloc[0], "another"])
    assert "\n" not in str(caught.value)
