from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from sklearn.datasets import load_digits

from tests.helpers.sources import Tree, parquet, sha256
from tuner.base.errors import ImageSourceError
from tuner.images import sources as module
from tuner.images.decoding import decode_image
from tuner.images.index import contents, index_images
from tuner.images.sources import read_images


def test_a_relative_folder_and_a_uri_are_the_same_images(
    spark: SparkSession, tree: Tree, monkeypatch: pytest.MonkeyPatch
):
    root = tree("a/1 ü.png", "b/1.png")
    expected = index_images(read_images(spark, str(root)))
    monkeypatch.chdir(root.parent)
    for source in (root.name, f"./{root.name}/", root.as_uri()):
        pd.testing.assert_frame_equal(index_images(read_images(spark, source)), expected)


@pytest.mark.parametrize("source", ["s3a://[bucket/images", "//[images"])
def test_a_uri_that_is_none_is_one_sentence(spark: SparkSession, source: str):
    with pytest.raises(ImageSourceError, match=r"\[.* are no path and no URI: Invalid IPv6 URL"):
        read_images(spark, source)


def test_a_table_is_read_by_its_name(spark: SparkSession):
    spark.createDataFrame([(b"one", "a"), (b"two", "b")], "content binary, label string").createTempView(
        "some_images"
    )
    try:
        images = read_images(spark, "table:some_images")
        assert images.labels == ("a", "b")
        assert set(index_images(images)["digest"]) == {sha256(b"one"), sha256(b"two")}
    finally:
        spark.catalog.dropTempView("some_images")
    with pytest.raises(
        ImageSourceError, match=r"The images table:some_images cannot be read: .*some_images"
    ):
        read_images(spark, "table:some_images")


def test_the_built_in_digits_are_those_of_scikit_learn(spark: SparkSession):
    images = read_images(spark, "builtin:digits")
    assert images.labels == tuple("0123456789")
    rows = images.frame.orderBy("path").collect()
    digits = load_digits()
    assert [row.label_index for row in rows] == digits.target.tolist()
    assert rows[1].path == "digits/0001.png"
    for row, pixels in list(zip(rows, digits.images, strict=True))[::200]:
        found = decode_image(bytes(row.content))
        assert found.shape == (8, 8, 3)
        np.testing.assert_array_equal(np.rint(found[..., 0] * (16 / 255)), pixels)
    with pytest.raises(ImageSourceError, match=r"no built-in set letters: there is builtin:digits"):
        read_images(spark, "builtin:letters")


def test_what_the_driver_holds_is_what_spark_would_read(spark: SparkSession) -> None:
    images = read_images(spark, "builtin:digits")
    index = index_images(images)
    by_spark = replace(images, held=None)
    pd.testing.assert_frame_equal(index, index_images(by_spark), check_dtype=False)
    some = index.iloc[::200]
    sent = {row.digest: bytes(row.content) for row in contents(images, some, 2).collect()}
    assert sent == {row.digest: bytes(row.content) for row in contents(by_spark, some, 2).collect()}
    assert sorted(sent) == sorted(some["digest"])


# Tables with a log ----------------------------------------------------------------------------------

LOGS = {
    "Delta": "_delta_log/00000000000000000000.json",
    "Hudi": ".hoodie/hoodie.properties",
    "Iceberg": "metadata/v1.metadata.json",
    "Paimon": "snapshot/snapshot-1",
}


@pytest.mark.parametrize("kind", LOGS)
def test_the_files_of_a_table_with_a_log_are_refused_with_the_way_that_works(
    spark: SparkSession, tmp_path: Path, kind: str
):
    table = tmp_path / "photos"
    parquet(table / "label=a" / "part-0.parquet", {"content": pa.array([b"x"])})
    parquet(table / "label=b" / "part-0.parquet", {"content": pa.array([b"y"])})
    assert read_images(spark, str(table)).labels == ("a", "b")
    (table / LOGS[kind]).parent.mkdir()
    (table / LOGS[kind]).touch()
    below = ["label=a/part-0.parquet", "label=a/*.parquet", "label=a"] if kind != "Paimon" else []
    for source in (str(table), str(tmp_path), *(f"{table}/{place}" for place in below)):
        with pytest.raises(ImageSourceError, match=f"belongs to an? {kind} table .* give it as table:NAME"):
            read_images(spark, source)
    with pytest.raises(ImageSourceError, match=f"belongs to an? {kind} table .* give it as table:NAME"):
        module._read_elsewhere(spark, table.as_uri(), None, True)


def test_a_folder_beside_a_table_or_a_class_of_its_name_is_none(spark: SparkSession, tree: Tree):
    root = tree("metadata/1.png", "snapshot/1.png", "cat/1.png")
    assert read_images(spark, str(root)).labels == ("cat", "metadata", "snapshot")


# What Spark alone reads -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["images.parquet", "images", "a b%20 [c]"])
def test_a_parquet_elsewhere_is_recognised(spark: SparkSession, tmp_path: Path, name: str):
    for label in ("01", "1"):
        parquet(tmp_path / name / f"label={label}" / "0.parquet", {"content": pa.array([label.encode()])})
    images = module._read_elsewhere(spark, f"file://{tmp_path}/{name}", None, True)
    assert images.labels == ("01", "1")
    assert len(index_images(images)) == 2


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("s3a://bucket/photos", "Spark needs the package org.apache.hadoop:hadoop-aws and its settings"),
        ("gs://bucket/photos", "Spark needs the package com.google.cloud.bigdataoss:gcs-connector"),
        ("abfss://c@a.dfs.core.windows.net/x", "Spark needs the package org.apache.hadoop:hadoop-azure"),
        ("s3://bucket/photos", "Spark calls it s3a: give s3a://bucket/photos"),
        ("dbfs:/photos", "Spark needs a package for it and its settings to read dbfs: URIs"),
        ("hdfs:///photos", "give its host, too: hdfs://HOST/photos"),
    ],
)
def test_a_scheme_that_spark_does_not_bring_is_named_with_what_is_missing(
    spark: SparkSession, source: str, sentence: str
):
    with pytest.raises(
        ImageSourceError, match=rf"{sentence}.* .docs/how-to/own-images.md says how.\.$"
    ) as caught:
        read_images(spark, source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "db.nowhere", "catalogue.db.nowhere"])
def test_a_table_that_spark_does_not_know_is_named_with_what_is_missing(spark: SparkSession, name: str):
    with pytest.raises(
        ImageSourceError, match=r"those of a Hive metastore .*docs/how-to/own-images\.md says how\)\.$"
    ):
        read_images(spark, f"table:{name}")


def test_a_pattern_of_parquet_files_is_read(spark: SparkSession, tmp_path: Path):
    for number in range(3):
        rows = {
            "content": pa.array([f"{number}{label}".encode() for label in "ab"]),
            "label": pa.array(["a", "b"]),
        }
        parquet(tmp_path / f"part-{number}.parquet", rows)
    assert len(index_images(read_images(spark, f"{tmp_path}/part-[01].parquet"))) == 4
    (tmp_path / "part-3.txt").touch()
    with pytest.raises(ImageSourceError, match="There is no folder"):
        read_images(spark, f"{tmp_path}/part-*")


@pytest.mark.parametrize("source", ["builtin:digits", "table:photos"])
def test_what_has_no_folders_has_no_split_of_folders(spark: SparkSession, source: str):
    with pytest.raises(ImageSourceError, match=rf"split\.given is folders, and {source} has no folders"):
        read_images(spark, source, given="folders")
