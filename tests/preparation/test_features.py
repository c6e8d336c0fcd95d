"""Several networks' features, one after the other and at once."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tuner.base.errors import ImageSourceError
from tuner.experiment.schema import NetworkSpec
from tuner.extraction.cache import FeatureCache
from tuner.images.index import index_images
from tuner.images.sources import read_images
from tuner.networks.resolution import resolve_network
from tuner.preparation import features
from tuner.preparation.features import extract_features
from tuner.spark.sessions import DriverSession

NAMES = ("GlyphNet", "GaborNet")


def test_few_images_go_through_each_network_in_one_worker_and_give_the_same(
    driver: DriverSession, letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images = read_images(driver.spark, str(letters))
    index = index_images(images)
    readable = index[index["error"].isna()].iloc[:12]
    found = {}
    for few in (0, features.FEW_IMAGES):
        monkeypatch.setattr(features, "FEW_IMAGES", few)
        cache = FeatureCache(tmp_path / str(few))
        networks = [resolve_network(NetworkSpec(name=name), "float32", cache.networks) for name in NAMES]
        done = extract_features(driver, cache, networks, images, readable, Console(quiet=True))
        count = readable["digest"].nunique()
        assert [extraction.extracted for extraction in done] == [count, count]
        again = extract_features(driver, cache, networks, images, readable, Console(quiet=True))
        assert [extraction.extracted for extraction in again] == [0, 0]
        found[few] = [cache.load(network, list(readable["digest"])) for network in networks]
        parts = [len(list(cache.folder(network).glob("*.parquet"))) for network in networks]
        assert parts == [1, 1] if few else [2, 2]
    for one, other in zip(*found.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_what_one_network_meets_ends_all(driver: DriverSession, letters: Path, tmp_path: Path):
    folder = tmp_path / "images"
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number, file in enumerate(sorted((letters / "A").glob("*.png"))[:3]):
            (folder / label / f"{number}.png").write_bytes(file.read_bytes() + label.encode())
    (folder / "b" / "bad.png").write_bytes(b"no image")
    images = read_images(driver.spark, str(folder))
    cache = FeatureCache(tmp_path / "cache")
    networks = [resolve_network(NetworkSpec(name=name), "float32", cache.networks) for name in NAMES]
    with pytest.raises(ImageSourceError, match=r"bad\.png cannot be used"):
        extract_features(
            driver,
            cache,
            networks,
            images,
            index_images(images),
            Console(quiet=True),
            fail_on_bad_image=True,
        )
