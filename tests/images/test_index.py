from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from tests.helpers.sources import Tree, parquet, sha256
from tuner.images import index as module
from tuner.images.index import contents, index_images, sorted_labels
from tuner.images.sources import read_images


def partition_sizes(frame) -> list[int]:
    return [len(rows) for rows in frame.rdd.glom().collect()]


def test_files_are_hashed_alike_on_the_driver_and_on_the_workers_of_a_cluster(
    spark: SparkSession, tree: Tree, monkeypatch: pytest.MonkeyPatch
):
    root = tree(*[f"{number % 3}/{number}.png" for number in range(200)])
    (root / "0" / "gone.png").symlink_to(root / "nowhere.png")
    images = read_images(spark, str(root))
    here = index_images(images)
    monkeypatch.setattr(module, "is_local", lambda _: False)  # as with the master of a cluster
    pd.testing.assert_frame_equal(here, index_images(images))
    assert len(here) == 201
    assert here["error"].notna().sum() == 1


def test_the_index_does_not_depend_on_partitions(spark: SparkSession, tmp_path: Path):
    count = 40
    source = parquet(
        tmp_path / "images.parquet",
        {
            "path": pa.array([str(n) for n in range(count)]),
            "content": pa.array([f"image {n % 30}".encode() for n in range(count)]),
            "label": pa.array([str(n % 4) for n in range(count)]),
        },
    )
    images = read_images(spark, source)
    expected = index_images(images)
    assert len(expected) == count
    assert expected["digest"].nunique() == 30
    for partitions in (1, 7):
        spread = replace(images, make_frame=partial(images.frame.repartition, partitions))
        pd.testing.assert_frame_equal(index_images(spread), expected)


@pytest.mark.parametrize("partitions", [3, pytest.param(25, marks=pytest.mark.long)])
def test_contents_has_each_digest_once_in_so_many_even_partitions(
    spark: SparkSession, tree: Tree, tmp_path: Path, partitions: int
):
    root = tree(*(f"{label}/{n}.png" for label in "ab" for n in range(10)))
    (root / "b" / "copy.png").write_bytes(b"a/0.png")
    folder = read_images(spark, str(root))
    rows = folder.frame.toPandas()
    table = {name: pa.array(rows[name]) for name in ("content", "label")}
    for images in (folder, read_images(spark, parquet(tmp_path / "images.parquet", table))):
        index = index_images(images)
        assert len(index) == 21
        frame = contents(images, index, partitions)
        sizes = partition_sizes(frame)
        assert len(sizes) == partitions
        assert max(sizes) - min(sizes) <= 1
        found = [(row.digest, bytes(row.content)) for row in frame.collect()]
        assert sorted(found) == sorted(
            (sha256(content), content) for content in set(map(bytes, rows["content"]))
        )
        some = index[index["digest"].isin(sorted(set(index["digest"]))[:4])]
        assert sorted(row.digest for row in contents(images, some, 2).collect()) == sorted(
            set(some["digest"])
        )


def test_contents_reads_the_files_asked_for_alone(spark: SparkSession, tree: Tree):
    root = tree("a/1.png", "a/2.png", "b/1.png")
    images = read_images(spark, str(root))
    index = index_images(images)
    (root / "a" / "1.png").unlink()
    found = contents(images, index[1:], 1).collect()
    assert {bytes(row.content) for row in found} == {b"a/2.png", b"b/1.png"}


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"another image")])
def test_a_file_that_changed_since_its_index_is_never_taken_for_the_old_one(
    spark: SparkSession, tree: Tree, change: Callable[[Path], object]
):
    root = tree("a/1.png", "b/1.png")
    images = read_images(spark, str(root))
    index = index_images(images)
    change(root / "b" / "1.png")
    with pytest.raises(Exception, match=r"The image .*/b/1\.png changed or vanished while it was in use"):
        contents(images, index, 1).collect()


def test_a_worker_holds_a_few_files_at_a_time(
    spark: SparkSession, tree: Tree, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_BATCH_BYTES", 20)
    monkeypatch.setattr(module, "_BATCH_ROWS", 4)
    root = tree(*(f"a/{n}.png" for n in range(9)))
    (root / "b").mkdir()
    (root / "b" / "1.png").write_bytes(b"x" * 1000)
    images = read_images(spark, str(root))
    assert images.frame.count() == 10
    assert {row.digest for row in contents(images, index_images(images), 1).collect()} == {
        sha256(path.read_bytes()) for path in root.glob("*/*")
    }


@given(st.lists(st.integers(-999, 999).map(str), min_size=1, unique=True))
def test_labels_that_are_all_numbers_sort_as_numbers(labels: list[str]):
    assert [int(label) for label in sorted_labels(labels)] == sorted(map(int, labels))
    assert sorted_labels([*labels, "x"]) == tuple(sorted([*labels, "x"]))


def test_digits_of_any_alphabet_and_fractions_are_numbers():
    assert sorted_labels(["10", "9", "010", "1.5"]) == ("1.5", "9", "010", "10")
    assert sorted_labels(["১০", "৯"]) == ("৯", "১০")
    assert sorted_labels(["1e3", "9"]) == ("1e3", "9")


def test_a_label_column_says_how_many_classes_there_are(spark: SparkSession, tree: Tree):
    images = read_images(spark, str(tree("a/1.png", "b/1.png", "c/1.png")))
    attribute = images.frame.schema["label_index"].metadata["ml_attr"]
    assert (attribute["type"], attribute["num_vals"]) == ("nominal", 3)
