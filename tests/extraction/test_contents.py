import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from tests.helpers.hadoop import mount
from tuner.base.errors import CacheError
from tuner.extraction.cache import FeatureCache
from tuner.extraction.contents import CacheContents, chosen_of
from tuner.extraction.files import Row, write_part
from tuner.extraction.place import LAST_USE, CachePlace
from tuner.networks.resolution import Network

DAY = 24 * 3600


def network(name: str, side: int = 32) -> Network:
    return Network(name, name.lower() * 4, "", (side, side), "tf", 3, "float32")


def fill(root: Path, one: Network, images: int, age_days: float) -> Path:
    """What extraction leaves, as if it had been some days ago."""
    folder = root / "features" / one.key
    folder.mkdir(parents=True)
    (folder / "network.json").write_text(json.dumps(one.to_dict()))
    for start in range(0, images, 4):
        rows = [Row(str(start + n), np.zeros(3, np.float32), None) for n in range(min(4, images - start))]
        write_part(folder, rows)
    for file in folder.iterdir():
        then = time.time() - age_days * DAY
        os.utime(file, (then, then))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "cache"
    fill(root, network("Old"), 5, age_days=100)
    fill(root, network("New"), 10, age_days=2)
    (root / "networks").mkdir()
    (root / "networks" / "abc.keras").write_bytes(b"12345")
    (root / "networks" / "making.lock").touch()
    return root


def test_each_network_is_listed_with_its_images_bytes_and_last_use(root: Path) -> None:
    contents = CacheContents(CachePlace(root))
    new, old = contents.features()
    assert (new.name, new.images, old.name, old.images) == ("New", 10, "Old", 5)
    assert new.network == network("New")
    files = (root / "features" / new.key).iterdir()
    assert new.bytes == sum(file.stat().st_size for file in files)
    assert abs(time.time() - 100 * DAY - old.last_use) < DAY / 2
    assert contents.network_files() == (1, 5)


def test_features_that_are_read_are_used_today(root: Path) -> None:
    cache = FeatureCache(root)
    cache.load(network("Old"), ["0", "4"])
    first, _ = CacheContents(CachePlace(root)).features()
    assert first.name == "Old"
    assert time.time() - first.last_use < DAY / 2
    assert (root / "features" / first.key / LAST_USE).exists()


def test_a_folder_without_a_description_is_listed_by_its_key(root: Path) -> None:
    (root / "features" / network("Old").key / "network.json").write_text("{")
    old = CacheContents(CachePlace(root)).features()[1]
    assert (old.name, old.network, old.images) == ("?", None, 5)
    assert old.is_called(old.key[:8])


def test_what_is_chosen_by_name_key_and_age(root: Path) -> None:
    features = CacheContents(CachePlace(root)).features()
    key = network("Old").key

    def names(networks: list[str], older_than: float | None) -> list[str]:
        return [held.name for held in chosen_of(features, networks, older_than)]

    assert names([], None) == names([], 0) == ["New", "Old"]
    assert (
        names([], 30)
        == names(["Old"], None)
        == names([key[:8]], None)
        == names(["Old", "New"], 30)
        == ["Old"]
    )
    assert names(["New"], 30) == []
    for word in ("Other", key[:3], ""):
        with pytest.raises(CacheError, match=r"there are: New, Old\."):
            names([word], None)


def test_what_is_pruned_is_gone_and_the_rest_stays(root: Path) -> None:
    (root / "staging" / "run").mkdir(parents=True)
    contents = CacheContents(CachePlace(root))
    contents.prune(chosen_of(contents.features(), ["Old"], None))
    assert [held.name for held in contents.features()] == ["New"]
    assert not (root / "staging").exists()
    assert (root / "networks" / "abc.keras").exists()


def test_a_cache_that_a_search_has_open_is_not_pruned(root: Path) -> None:
    cache, contents = FeatureCache(root), CacheContents(CachePlace(root))
    with pytest.raises(CacheError, match="in use by a search"):
        contents.prune(contents.features())
    assert len(contents.features()) == 2
    cache.close()
    contents.prune(contents.features())
    assert contents.features() == []


def test_a_cache_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert CacheContents(CachePlace(tmp_path / "nowhere")).features() == []
    assert list(tmp_path.iterdir()) == []


def test_a_cache_elsewhere_is_listed_and_pruned_there_and_here(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"{mount(spark, tmp_path / 'below')}/cache"
    for place in (tmp_path / "below" / "cache", CachePlace(uri).root):
        fill(place, network("Old"), 5, age_days=100)
        fill(place, network("New"), 10, age_days=2)
    contents = CacheContents(CachePlace(uri), spark)
    assert [(held.name, held.images) for held in contents.features()] == [("New", 10), ("Old", 5)]

    cache = FeatureCache(uri)
    cache.place.connect(spark)
    cache.load(network("Old"), ["1"])
    old, new = contents.features()
    assert (old.name, time.time() - old.last_use < DAY / 2) == ("Old", True)

    staging = tmp_path / "below" / "cache" / "staging" / "some-run"
    staging.mkdir(parents=True)
    cache.close()
    with pytest.raises(CacheError, match="may be in use by the search some-run"):
        contents.prune([new])
    staging.rmdir()
    contents.prune([new])
    assert [held.name for held in contents.features()] == ["Old"]
    for place in (tmp_path / "below" / "cache", cache.root):
        assert {folder.name for folder in (place / "features").iterdir()} == {old.key}
