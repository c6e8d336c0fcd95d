"""Several networks' features, one after the other."""

from pathlib import Path

import pytest
from rich.console import Console

from tuner.base.errors import ImageSourceError
from tuner.experiment.networks import NetworkSpec
from tuner.extraction.cache import FeatureCache
from tuner.images.index import index_images
from tuner.images.sources import read_images
from tuner.networks.resolution import resolve_network
from tuner.preparation.features import extract_features
from tuner.spark.sessions import DriverSession

NAMES = ("GlyphNet", "GaborNet")


def test_each_network_has_its_features_and_what_is_cached_is_not_extracted_again(
    driver: DriverSession, letters: Path, tmp_path: Path
):
    images = read_images(driver.spark, str(letters))
    index = index_images(images)
    readable = index[index["error"].isna()].iloc[:12]
    cache = FeatureCache(tmp_path / "cache")
    networks = [resolve_network(NetworkSpec(name=name), "float32", cache.networks) for name in NAMES]
    count = readable["digest"].nunique()
    for expected in (count, 0):
        done = extract_features(driver, cache, networks, images, readable, Console(quiet=True))
        assert [extraction.extracted for extraction in done] == [expected, expected]
    for network in networks:
        found = cache.load(network, list(readable["digest"]))
        assert found.shape == (12, network.width)
        assert found.std(axis=0).max() > 0


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
