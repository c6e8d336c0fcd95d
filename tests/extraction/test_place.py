from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from tests.extraction.test_cache import add_images, extract, read
from tests.helpers.hadoop import mount
from tests.helpers.models import embedded
from tuner.base.errors import CacheError
from tuner.extraction import job
from tuner.extraction.cache import FeatureCache
from tuner.extraction.place import CachePlace
from tuner.images.index import contents
from tuner.networks.resolution import Network


@pytest.fixture(scope="module")
def glyphnet(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return embedded(tmp_path_factory.mktemp("store"))


@pytest.fixture
def uri(spark: SparkSession, tmp_path: Path) -> str:
    return f"{mount(spark, tmp_path / 'below')}/cache"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    add_images(tmp_path / "images", range(10))
    return tmp_path / "images"


def on_machine(name: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureCache:
    """The cache as a driver sees it that works in a folder of its own."""
    (tmp_path / name).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / name)
    cache = FeatureCache(uri)
    assert cache.root.is_relative_to(tmp_path / name / ".tuner")
    return cache


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("part-*.parquet"))


def known(cache: FeatureCache, network: Network) -> int:
    return len(cache.known(network))


def test_features_that_one_machine_extracted_are_another_s(
    spark: SparkSession,
    uri: str,
    images: Path,
    glyphnet: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = on_machine("one", uri, tmp_path, monkeypatch)
    one.place.connect(spark)
    assert extract(spark, one, glyphnet, images).extracted == 10
    there = tmp_path / "below" / "cache" / "features" / glyphnet.key
    assert names(there) == names(one.folder(glyphnet))

    other = on_machine("other", uri, tmp_path, monkeypatch)
    other.exchange(spark, glyphnet)
    assert known(other, glyphnet) == 10
    add_images(images, range(10, 13))
    assert extract(spark, other, glyphnet, images).extracted == 3
    one.exchange(spark, glyphnet)
    assert known(one, glyphnet) == 13
    _, index = read(spark, images)
    assert (one.load(glyphnet, index["digest"]) == other.load(glyphnet, index["digest"])).all()


def test_what_an_interruption_left_here_is_sent_later(
    spark: SparkSession,
    uri: str,
    images: Path,
    glyphnet: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = on_machine("one", uri, tmp_path, monkeypatch)
    extract(spark, cache, glyphnet, images)  # before it was connected
    there = tmp_path / "below" / "cache" / "features" / glyphnet.key
    assert not there.exists()
    cache.exchange(spark, glyphnet)
    assert names(there) == names(cache.folder(glyphnet)) != []


def test_a_part_that_is_damaged_there_is_removed_and_extracted_again(
    spark: SparkSession,
    uri: str,
    images: Path,
    glyphnet: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = on_machine("one", uri, tmp_path, monkeypatch)
    one.place.connect(spark)
    extract(spark, one, glyphnet, images)
    there = tmp_path / "below" / "cache" / "features" / glyphnet.key
    damaged = there / names(there)[0]
    damaged.write_bytes(damaged.read_bytes()[:-10])
    (there / f".{damaged.name}.crc").unlink(missing_ok=True)
    other = on_machine("other", uri, tmp_path, monkeypatch)
    other.exchange(spark, glyphnet)
    assert damaged.name not in names(there)
    _, index = read(spark, images)
    missing = other.missing(glyphnet, list(index["digest"]))
    assert len(missing) == 10 - known(other, glyphnet) > 0


@pytest.mark.parametrize("table", [False, True], ids=["files", "contents"])
def test_workers_that_see_no_folder_send_what_they_extract(
    table: bool,
    spark: SparkSession,
    uri: str,
    images: Path,
    glyphnet: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (images / "odd" / "bad.png").write_bytes(b"no image")
    expected = FeatureCache(tmp_path / "local")
    extract(spark, expected, glyphnet, images)
    cache = on_machine("one", uri, tmp_path, monkeypatch)
    monkeypatch.setattr(CachePlace, "seen_by_workers", lambda *_: None)
    monkeypatch.setattr(job, "_ROUND_BYTES", 4 * glyphnet.width * 4)  # rounds of four images
    cache.place.connect(spark)
    source, index = read(spark, images)
    if table:
        rows = contents(source, index, 1).join(spark.createDataFrame(index), "digest")
        rows.select("content", "label").write.parquet(str(tmp_path / "table"))
        source, index = read(spark, tmp_path / "table")
    progress: list[int] = []
    done = cache.extract(
        spark, glyphnet, source, index, tasks=2, on_progress=lambda count, _: progress.append(count)
    )
    assert (done.extracted, done.failed) == (11, 1)
    assert len(names(cache.folder(glyphnet))) >= 3  # at least one a round
    pd.testing.assert_frame_equal(
        cache.known(glyphnet).sort_values("digest", ignore_index=True),
        expected.known(glyphnet).sort_values("digest", ignore_index=True),
    )
    good = list(
        index["digest"][index["digest"].isin(expected.known(glyphnet).query("error.isna()")["digest"])]
    )
    assert len(good) == 10
    difference = cache.load(glyphnet, good) - expected.load(glyphnet, good)
    assert abs(difference).max() < 1e-5
    # Spark reads them where every machine sees them.
    frame = cache.read(spark, glyphnet)
    assert frame.count() == 10
    assert all(file.startswith("viewfs:") for file in frame.inputFiles())


def test_a_folder_that_is_done_with_is_removed_here_and_there(
    spark: SparkSession, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = on_machine("one", uri, tmp_path, monkeypatch)
    cache.place.connect(spark)
    staging = cache.root / "staging" / "run"
    for folder in (staging, tmp_path / "below" / "cache" / "staging" / "run"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    assert cache.place.for_workers(spark, staging) == staging  # workers of this machine
    assert cache.place.for_saving(spark, staging) == staging
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(CachePlace, "seen_by_workers", lambda *_: None)
        assert cache.place.for_saving(spark, staging) == f"{uri}/staging/run"
    cache.place.discard(staging)
    assert not staging.exists()
    assert not (tmp_path / "below" / "cache" / "staging" / "run").exists()
    cache.place.discard(staging)


@pytest.mark.parametrize(
    ("given", "reason"), [("nonesuch://host/cache", "No FileSystem for scheme"), ("viewfs://none/a", r"\S")]
)
def test_a_filesystem_that_is_not_there_is_one_sentence(
    given: str, reason: str, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = rf"The feature cache {given} cannot be written \(.*{reason}.*\): free it or choose another"
    with pytest.raises(CacheError, match=sentence) as caught:
        FeatureCache(given).place.connect(spark)
    assert "\n" not in str(caught.value)


def test_a_uri_has_a_copy_of_its_own_and_a_path_none() -> None:
    roots = {CachePlace(uri).root for uri in ("hdfs://a/b", "hdfs://a/b/", "hdfs://a/c", "s3a://a/b")}
    assert len(roots) == 3
    place = CachePlace("/data/cache")
    assert (place.root, place.uri) == (Path("/data/cache"), None)
    with pytest.raises(CacheError, match="neither a path nor a URI: write hdfs://HOST/FOLDER, as text"):
        CachePlace(Path("hdfs://host/cache"))
