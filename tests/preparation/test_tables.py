from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tuner.base.errors import CacheError
from tuner.classifiers.parameters import TrialParams
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.schema import Experiment, Split
from tuner.experiment.search import SearchSettings
from tuner.extraction.cache import FeatureCache
from tuner.extraction.files import Row, write_part
from tuner.images.index import ImageSet
from tuner.models.fitted.estimators import fit_estimator
from tuner.networks.resolution import resolve_network
from tuner.preparation import tables as feature_tables
from tuner.preparation.images import PreparedImages, prepare_images
from tuner.preparation.tables import feature_table, publish_tables
from tuner.spark.endpoint import connect_from_worker
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


@pytest.mark.long
def test_250_classes_are_fitted_over_connect(driver: DriverSession, tmp_path: Path, size: str) -> None:
    """Without the label column's attribute, Spark Connect counts up to 100 classes before it fits."""
    classes, cache = 250, FeatureCache(tmp_path)
    network = resolve_network(NetworkSpec(name="GaborNet"), "float32", cache.networks)
    cache.folder(network).mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 3)
    digests = [str(number) for number in range(len(labels))]
    features = rng.normal(size=(len(labels), network.width)).astype(np.float32)
    write_part(cache.folder(network), [Row(*each, None) for each in zip(digests, features, strict=True)])
    index = pd.DataFrame(
        {
            "path": digests,
            "digest": digests,
            "label": labels.astype(str),
            "label_index": labels,
            "part": ["train", "validation", "test"] * classes,
            "bytes": 1,
        }
    )
    names = tuple(map(str, range(classes)))
    images = ImageSet(driver.spark, lambda: driver.spark.range(0), names)
    made = PreparedImages(images, index, index[:0], {"GaborNet": network}, 0)
    view, endpoint = publish_tables(driver, cache, made)["GaborNet"], driver.endpoint

    def fit(_: Iterable[int]) -> Iterator[tuple[int, int]]:
        session = connect_from_worker(endpoint)
        params = TrialParams.of(backbone="GaborNet", regParam=0.1, elasticNetParam=0.0, maxIter=1)
        model = fit_estimator(session.table(view).where("part = 'train'"), params)
        yield model.numClasses, model.coefficientMatrix.numRows

    assert driver.spark.sparkContext.parallelize([0], 1).mapPartitions(fit).collect() == [
        (classes, classes)
    ]
