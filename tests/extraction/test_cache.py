import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import SparkSession

from tuner.base.errors import CacheError, ImageSourceError
from tuner.experiment.networks import NetworkSpec
from tuner.extraction.cache import Extraction, FeatureCache
from tuner.extraction.files import Row
from tuner.extraction.files import parts as parts_of
from tuner.extraction.files import write_part as write_rows
from tuner.images.decoding import decoder, load_input
from tuner.images.index import ImageSet, index_images
from tuner.images.sources import read_images
from tuner.networks.files import import_keras, open_network
from tuner.networks.resolution import Network, resolve_network
from tuner.networks.store import NetworkStore


@pytest.fixture(scope="module")
def glyphnet(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return resolve_network(
        NetworkSpec(name="GlyphNet"), "float32", NetworkStore(tmp_path_factory.mktemp("store"))
    )


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


def add_images(folder: Path, numbers: range) -> None:
    """Images that differ, in two classes."""
    for number in numbers:
        path = folder / ("even" if number % 2 == 0 else "odd") / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3), np.uint8)
        Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_images(tmp_path / "images", range(12))
    return tmp_path / "images"


def read(spark: SparkSession, folder: Path) -> tuple[ImageSet, pd.DataFrame]:
    images = read_images(spark, str(folder))
    return images, index_images(images)


def extract(
    spark: SparkSession, cache: FeatureCache, backbone: Network, folder: Path, **options: object
) -> Extraction:
    images, index = read(spark, folder)
    return cache.extract(spark, backbone, images, index, tasks=2, **options)


def parts(cache: FeatureCache, backbone: Network) -> list[Path]:
    return sorted(cache.folder(backbone).glob("part-*.parquet"))


def rows_written(cache: FeatureCache, backbone: Network) -> list[str]:
    return [
        digest for part in parts(cache, backbone) for digest in pq.read_table(part)["digest"].to_pylist()
    ]


# Extract once


def test_features_are_those_of_the_network_and_are_extracted_once(
    spark: SparkSession, cache: FeatureCache, glyphnet: Network, folder: Path
) -> None:
    shutil.copy(folder / "odd" / "0001.png", folder / "odd" / "twin.png")
    progress: list[tuple[int, int]] = []
    first = extract(spark, cache, glyphnet, folder, on_progress=lambda *done: progress.append(done))
    assert (first.extracted, first.failed) == (12, 0)
    assert progress[-1] == (12, 12)

    frame = cache.read(spark, glyphnet)
    assert frame.schema["features"].dataType == VectorUDT()
    found = {row["digest"]: row["features"].toArray() for row in frame.collect()}
    network = open_network(Path(glyphnet.file), glyphnet.input_size, "float32")
    _, index = read(spark, folder)
    for path, digest in zip(index["path"], index["digest"], strict=True):
        image = load_input(Path(path).read_bytes(), glyphnet.input_size, glyphnet.preprocessing)
        np.testing.assert_allclose(found[digest], network(image[None])[0], rtol=1e-4, atol=1e-5)
    assert len(found) == 12

    before = parts(cache, glyphnet)
    again = extract(spark, cache, glyphnet, folder)
    assert again == Extraction(0, 0, 0.0)
    add_images(folder, range(12, 15))
    assert extract(spark, cache, glyphnet, folder).extracted == 3
    assert set(before) < set(parts(cache, glyphnet))
    assert len(rows_written(cache, glyphnet)) == 15
    described = json.loads((cache.folder(glyphnet) / "network.json").read_text())
    assert Network.from_dict(described) == glyphnet


def test_missing_are_the_unknown_digests_once_in_order(cache: FeatureCache, glyphnet: Network) -> None:
    assert cache.missing(glyphnet, ["b", "a", "b"]) == ["b", "a"]
    write_part(cache, glyphnet, {"a": [1.0]})
    assert cache.missing(glyphnet, ["b", "a", "b"]) == ["b"]


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bfloat16"},
        {"input_size": (32, 33)},
        {"preprocessing": "tf"},
        {"digest": "0" * 64},
    ],
)
def test_whatever_decides_a_feature_has_features_of_its_own(
    change: dict[str, object], cache: FeatureCache, glyphnet: Network
) -> None:
    write_part(cache, glyphnet, {"a": [1.0]})
    other = dataclasses.replace(glyphnet, **change)
    assert cache.missing(other, ["a"]) == ["a"]
    assert cache.missing(dataclasses.replace(glyphnet, name="mine", file="elsewhere"), ["a"]) == []


def write_part(cache: FeatureCache, backbone: Network, features: dict[str, list[float]]) -> Path:
    """A part as a worker writes it."""
    folder = cache.folder(backbone)
    folder.mkdir(parents=True, exist_ok=True)
    before = set(parts(cache, backbone))
    write_rows(
        folder, [Row(digest, np.array(values, np.float32), None) for digest, values in features.items()]
    )
    (part,) = set(parts(cache, backbone)) - before
    return part


def test_an_image_in_two_parts_is_one_row(
    spark: SparkSession, cache: FeatureCache, glyphnet: Network
) -> None:
    write_part(cache, glyphnet, {"a": [1.0, 2.0], "b": [3.0, 4.0]})
    write_part(cache, glyphnet, {"b": [3.0, 4.0], "c": [5.0, 6.0]})
    rows = cache.read(spark, glyphnet).collect()
    found = {row["digest"]: list(row["features"]) for row in rows}
    assert found == {"a": [1, 2], "b": [3, 4], "c": [5, 6]}
    assert len(rows) == 3
    assert sorted(cache.known(glyphnet)["digest"]) == ["a", "b", "c"]


def test_zeros_are_replaced_where_that_is_asked_for(
    spark: SparkSession, cache: FeatureCache, glyphnet: Network
) -> None:
    write_part(cache, glyphnet, {"a": [0.0, -2.0]})
    (plain,) = cache.read(spark, glyphnet).collect()
    (filled,) = cache.read(spark, glyphnet, zero=1e-30).collect()
    assert list(plain["features"]) == [0, -2]
    assert list(filled["features"]) == [1e-30, -2]


# Bad images


@pytest.fixture
def damaged(folder: Path) -> Path:
    path = folder / "odd" / "damaged.png"
    path.write_bytes((folder / "odd" / "0001.png").read_bytes()[:-30])
    return path


def test_a_bad_image_is_an_error_row_and_is_not_tried_again(
    spark: SparkSession, cache: FeatureCache, glyphnet: Network, folder: Path, damaged: Path
) -> None:
    done = extract(spark, cache, glyphnet, folder)
    assert (done.extracted, done.failed) == (13, 1)
    known = cache.known(glyphnet).set_index("digest")["error"]
    _, index = read(spark, folder)
    (digest,) = index[index["path"] == str(damaged)]["digest"]
    assert known[digest] == "truncated"
    assert known.notna().sum() == 1
    assert cache.read(spark, glyphnet).count() == 12
    assert extract(spark, cache, glyphnet, folder) == Extraction(0, 0, 0.0)


def test_fail_names_the_bad_image_and_leaves_the_cache_usable(
    spark: SparkSession, cache: FeatureCache, glyphnet: Network, folder: Path, damaged: Path
) -> None:
    sentence = rf"The image {damaged} cannot be used \(truncated\), and on_bad_image is fail"
    for _ in range(2):  # seen now, and known from before
        with pytest.raises(ImageSourceError, match=sentence):
            extract(spark, cache, glyphnet, folder, fail_on_bad_image=True)
    damaged.unlink()
    extract(spark, cache, glyphnet, folder, fail_on_bad_image=True)
    assert cache.read(spark, glyphnet).count() == 12


def test_a_verdict_is_kept_for_one_version_of_the_decoder_and_features_for_all(
    spark: SparkSession,
    cache: FeatureCache,
    glyphnet: Network,
    folder: Path,
    damaged: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extract(spark, cache, glyphnet, folder)
    before = parts(cache, glyphnet)
    monkeypatch.setattr("tuner.extraction.cache.decoder", lambda: "Pillow 99, decoding 2")
    assert len(cache.known(glyphnet)) == 12
    done = extract(spark, cache, glyphnet, folder)
    assert (done.extracted, done.failed) == (1, 1)
    assert set(before) < set(parts(cache, glyphnet))
    monkeypatch.undo()
    assert extract(spark, cache, glyphnet, folder) == Extraction(0, 0, 0.0)


def test_the_version_of_the_decoder_is_that_of_pillow_and_of_the_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = decoder()
    assert PIL.__version__ in before
    monkeypatch.setattr("tuner.images.decoding.DECODING_VERSION", 10**6)
    assert decoder() != before


def test_an_image_that_another_version_could_read_has_features(
    cache: FeatureCache, glyphnet: Network
) -> None:
    folder = cache.folder(glyphnet)
    folder.mkdir(parents=True)
    write_rows(folder, [Row("a", None, "truncated", decoder())])
    assert cache.known(glyphnet)["error"].tolist() == ["truncated"]
    write_rows(folder, [Row("a", np.ones(2, np.float32), None)])
    assert cache.known(glyphnet)["error"].isna().tolist() == [True]


def test_features_of_other_options_do_not_count(
    spark: SparkSession, cache: FeatureCache, glyphnet: Network
) -> None:
    glyphnet = dataclasses.replace(glyphnet, width=2)
    folder = cache.folder(glyphnet)
    folder.mkdir(parents=True)
    one, two = np.ones(2, np.float32), np.full(2, 2, np.float32)
    rows = [
        Row("a", one, None, "transparent: white"),
        Row("a", two, None, "transparent: black"),
        Row("b", one, None),
    ]
    write_rows(folder, rows)
    black = dataclasses.replace(glyphnet, transparent="black")
    gray = dataclasses.replace(glyphnet, max_value=100.0)
    assert cache.folder(black) == cache.folder(gray) == folder
    assert cache.load(glyphnet, ["a", "b"]).tolist() == [[1, 1], [1, 1]]
    assert cache.load(black, ["a", "b"]).tolist() == [[2, 2], [1, 1]]
    assert cache.missing(gray, ["a", "b"]) == ["a", "b"]
    found = {row["digest"]: list(row["features"]) for row in cache.read(spark, black).collect()}
    assert found == {"a": [2, 2], "b": [1, 1]}


def test_an_image_whose_features_are_not_finite_has_a_reason(
    spark: SparkSession, cache: FeatureCache, tmp_path: Path
) -> None:
    keras = import_keras()
    pixels = keras.Input((4, 4, 3))
    scaled = keras.layers.Rescaling(3e38)(pixels)  # of any value above 1, infinite
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(scaled)).save(tmp_path / "hot.keras")
    spec = NetworkSpec(name="hot", file=tmp_path / "hot.keras", input_size=4, preprocessing="none")
    hot = resolve_network(spec, "float32", cache.networks)
    folder = tmp_path / "images"
    for label, value in (("dark", 0), ("bright", 200)):
        (folder / label).mkdir(parents=True)
        Image.new("L", (4, 4), value).save(folder / label / "1.png")
    done = extract(spark, cache, hot, folder)
    assert (done.extracted, done.failed) == (2, 1)
    known = cache.known(hot)
    assert known["error"].dropna().tolist() == ["the network gives features that are not finite numbers"]
    assert extract(spark, cache, hot, folder).extracted == 0


def add_slow_images(folder: Path, numbers: range) -> None:
    """Images that take a tenth of a second each to decode; they differ in what follows the image."""
    add_images(folder, numbers[:2])
    Image.new("L", (4000, 4000)).save(folder / "slow.png", compress_level=1)
    content = (folder / "slow.png").read_bytes()
    (folder / "slow.png").unlink()
    for number in numbers[2:]:
        (folder / "odd" / f"{number:04d}.png").write_bytes(content + bytes([number]))


@pytest.mark.long
def test_fail_stops_the_job_at_the_first_bad_image(
    spark: SparkSession, cache: FeatureCache, glyphnet: Network, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    add_slow_images(folder, range(128))
    for number in range(30):
        (folder / "even" / f"bad{number}.png").write_bytes(b"bad" + bytes([number]))
    with pytest.raises(ImageSourceError, match=r"bad\d+\.png cannot be used \(not an image"):
        extract(spark, cache, glyphnet, folder, fail_on_bad_image=True)
    settled(cache, glyphnet)
    assert 0 < len(cache.known(glyphnet)) < 158


def test_a_file_that_changed_is_not_taken_for_what_was_listed(
    spark: SparkSession, cache: FeatureCache, glyphnet: Network, folder: Path
) -> None:
    images, index = read(spark, folder)
    shutil.copy(folder / "odd" / "0001.png", folder / "even" / "0000.png")
    (folder / "even" / "0002.png").unlink()
    with pytest.raises(ImageSourceError, match=r"^The image .*000[02]\.png changed or vanished"):
        cache.extract(spark, glyphnet, images, index, tasks=2)
    known = cache.known(glyphnet)
    lost = index[index["path"].str.contains("000[02].png")]["digest"]
    assert not known["digest"].isin(set(lost)).any()
    assert known["error"].isna().all()


# Interrupted, and at once
@pytest.mark.long
def test_an_interrupted_extraction_goes_on_where_it_stopped(
    spark: SparkSession, glyphnet: Network, tmp_path: Path
) -> None:
    add_slow_images(tmp_path / "images", range(128))
    cache = FeatureCache(tmp_path / "cache", part_seconds=0.0)  # a part for each image

    def interrupt() -> None:
        deadline = time.monotonic() + 100
        while not parts(cache, glyphnet) and time.monotonic() < deadline:
            time.sleep(0.01)
        spark.sparkContext.cancelAllJobs()

    watcher = threading.Thread(target=interrupt)
    images, index = read(spark, tmp_path / "images")
    watcher.start()
    with pytest.raises(Exception, match="cancel"):
        cache.extract(spark, glyphnet, images, index, tasks=1)
    watcher.join()
    while_cancelled = settled(cache, glyphnet)
    assert 0 < len(while_cancelled) < 128
    leftover = cache.folder(glyphnet) / ".part-0123.tmp"  # of a worker that was killed as it wrote
    leftover.touch()

    done = FeatureCache(tmp_path / "cache").extract(spark, glyphnet, images, index, tasks=2)
    assert done.extracted == 128 - len(while_cancelled)
    assert set(while_cancelled) < set(parts(cache, glyphnet))
    assert len(rows_written(cache, glyphnet)) == len(set(index["digest"])) == 128
    assert not list(cache.folder(glyphnet).glob(".part-*"))


def settled(cache: FeatureCache, backbone: Network) -> list[Path]:
    """The parts, once the cancelled task's worker writes no more."""
    before: list[Path] = []
    while (now := parts(cache, backbone)) != before:
        before = now
        time.sleep(2.5)  # Spark gives a cancelled worker two seconds to end
    return before


ANOTHER_PROCESS = """
import json, sys
from pathlib import Path
from pyspark.sql import SparkSession
from tuner.networks.resolution import Network
from tuner.networks.store import NetworkStore
from tuner.extraction.cache import FeatureCache
from tuner.images.index import index_images
from tuner.images.sources import read_images

folder, root, backbone = sys.argv[1:]
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
images = read_images(spark, folder)
index = index_images(images)
print("ready", flush=True)
sys.stdin.readline()
network = Network.from_dict(json.loads(backbone))
done = FeatureCache(Path(root)).extract(spark, network, images, index, tasks=1)
print(done.extracted)
"""


@pytest.mark.long
def test_two_processes_at_once_extract_each_image_once(
    spark: SparkSession, glyphnet: Network, tmp_path: Path
) -> None:
    add_images(tmp_path / "images", range(40))
    cache = FeatureCache(tmp_path / "cache", part_seconds=0.0)
    backbone = json.dumps(glyphnet.to_dict())
    with subprocess.Popen(
        [sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path / "images"), str(cache.root), backbone],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable},
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        images, index = read(spark, tmp_path / "images")
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        here = cache.extract(spark, glyphnet, images, index, tasks=1).extracted
        there = int(other.stdout.readline())
    assert other.returncode == 0
    assert sorted([here, there]) == [0, 40]
    assert len(rows_written(cache, glyphnet)) == len(set(rows_written(cache, glyphnet))) == 40


# A cache that cannot be used


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/1/tuner")):
        with pytest.raises(CacheError, match=rf"The feature cache {root} cannot be written \(.+\): "):
            FeatureCache(root)


@pytest.mark.parametrize("name", ["my projects #1 é/50%20", "run[1] {a,b} *?", "a:b", "a\nb"])
def test_a_folder_of_any_name_is_read(
    spark: SparkSession, glyphnet: Network, tmp_path: Path, name: str
) -> None:
    glyphnet = dataclasses.replace(glyphnet, width=2)
    cache = FeatureCache(tmp_path / name)
    write_part(cache, glyphnet, {"a": [1.0, 2.0]})
    assert [list(row["features"]) for row in cache.read(spark, glyphnet).collect()] == [[1, 2]]
    assert cache.load(glyphnet, ["a"]).tolist() == [[1, 2]]


def test_a_folder_that_spark_cannot_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"run \[12:30\] has a colon beside one of \[\]"):
        FeatureCache(tmp_path / "run [12:30]")


@pytest.mark.long
def test_a_network_s_folder_that_cannot_be_written_is_a_sentence(
    spark: SparkSession, cache: FeatureCache, glyphnet: Network, folder: Path
) -> None:
    (cache.root / "features").touch()
    with pytest.raises(CacheError, match="cannot be written"):
        extract(spark, cache, glyphnet, folder)


@pytest.mark.long
def test_a_worker_that_cannot_write_says_it_in_the_same_sentence(
    spark: SparkSession, cache: FeatureCache, glyphnet: Network, tmp_path: Path
) -> None:
    add_slow_images(tmp_path / "images", range(20))

    def remove_folder(done: int, _: int) -> None:
        shutil.rmtree(cache.folder(glyphnet), ignore_errors=True)

    with pytest.raises(CacheError, match=rf"The feature cache {cache.root} cannot be written \(.+\): "):
        extract(spark, cache, glyphnet, tmp_path / "images", on_progress=remove_folder)


def test_a_damaged_part_is_named(cache: FeatureCache, glyphnet: Network) -> None:
    part = write_part(cache, glyphnet, {"a": [1.0]})
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(CacheError, match=rf"is damaged \(.*{part.name}.*\): remove it") as caught:
        cache.known(glyphnet)
    assert "\n" not in str(caught.value)


def test_the_folder_may_be_a_file_uri(tmp_path: Path):
    assert FeatureCache(Path(f"file://{tmp_path}/a")).root == tmp_path / "a"
    assert FeatureCache(tmp_path / "b:" / "c").root == tmp_path / "b:" / "c"


def test_parts_that_another_process_puts_together_meanwhile_are_read_again(
    cache: FeatureCache, glyphnet: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    glyphnet = dataclasses.replace(glyphnet, width=1)
    gone = Path(write_part(cache, glyphnet, {"a": [1.0]}))
    listed, asked = parts_of, []

    def before_they_go(folder: Path) -> list[str]:
        asked.append(listed(folder))
        if len(asked) == 1:
            gone.rename(gone.with_name("part-1-0-other.parquet"))
        return asked[-1]

    monkeypatch.setattr("tuner.extraction.cache.parts", before_they_go)
    assert cache.load(glyphnet, ["a"]).tolist() == [[1.0]]
    assert len(asked) == 2
