"""Files as Spark's image struct: decoded as everywhere, read from wherever Spark reads."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml.image import ImageSchema
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from tests.helpers.hadoop import mount
from tests.helpers.models import NO_IMAGES, ODD_IMAGES, as_png, embedded
from tuner.base.errors import ImageSourceError
from tuner.images.decoding import decode_image, struct_to_image
from tuner.models.featurizer import DeepImageFeaturizer
from tuner.sparkdl import images as module
from tuner.sparkdl.images import read_images, readImages

BROKEN = {name: content for name, content in NO_IMAGES.items() if content}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Odd images and files that are none, in two folders called `label=…`, one of them deeper."""
    folder = tmp_path_factory.mktemp("images")
    for number, (name, content) in enumerate((ODD_IMAGES | BROKEN).items()):
        place = folder / ("label=a" if number % 2 else "label=b/deep")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name.replace(' ', '_')}.bin").write_bytes(content)
    for passed in ("empty.bin", ".hidden", "_hidden"):  # by Spark
        (folder / "label=a" / passed).write_bytes(b"x" if "hidden" in passed else b"")
    return folder


def read_by_spark(folder: Path) -> int:
    return sum(file.stat().st_size > 0 for file in folder.glob("[!._]*"))


def name_of(origin: str) -> str:
    return Path(origin).stem.replace("_", " ")


def test_pixels_are_those_of_the_one_decode(folder: Path, spark: SparkSession) -> None:
    frame = read_images(str(folder))
    assert frame.columns == ["image"]
    assert frame.schema["image"].dataType.simpleString() == ImageSchema.columnSchema.simpleString()
    found = {name_of(row.image.origin): row.image for row in frame.collect()}
    assert set(found) == set(ODD_IMAGES) | set(BROKEN)
    for name, content in ODD_IMAGES.items():
        image = found[name]
        assert (image.nChannels, image.mode) == (3, 16)
        np.testing.assert_array_equal(struct_to_image(image.asDict()), decode_image(content))
    for name in BROKEN:
        *numbers, data = found[name][1:]
        assert (numbers, bytes(data)) == ([-1, -1, -1, -1], b"")


def test_features_are_those_of_the_files_bytes(folder: Path, spark: SparkSession, tmp_path: Path) -> None:
    network = embedded(tmp_path)
    of_structs = DeepImageFeaturizer.from_network(network, inputCol="image", outputCol="features")
    of_bytes = DeepImageFeaturizer.from_network(network, inputCol="content", outputCol="features")
    files = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(str(folder))
    structs = of_structs.transform(readImages(str(folder))).select("image.origin", "features")
    contents = of_bytes.transform(files).select("path", "features")
    first, second = ({name_of(origin): row for origin, row in f.collect()} for f in (structs, contents))
    assert set(first) == set(second)
    for name, features in first.items():
        assert (features is None) == (second[name] is None) == (name in BROKEN)
        if features is not None:
            np.testing.assert_allclose(features.toArray(), second[name].toArray(), rtol=1e-5, atol=1e-6)
    assert of_structs.nullCount == len(BROKEN)


def test_files_that_are_no_image_are_left_out_where_that_is_asked_for(
    folder: Path, spark: SparkSession
) -> None:
    rows = read_images(str(folder), dropInvalid=True).collect()
    assert {name_of(row.image.origin) for row in rows} == set(ODD_IMAGES)


def test_a_pattern_a_file_and_partitions_are_read(folder: Path, spark: SparkSession) -> None:
    assert read_images(f"{folder}/label=a/*").count() == read_by_spark(folder / "label=a")
    assert read_images(f"{folder}/label=a/JPEG_L.bin").count() == 1
    parted = read_images(str(folder), recursive=False)
    assert parted.columns == ["image", "label"]
    labels = {name_of(row.origin): row.label for row in parted.select("image.origin", "label").collect()}
    assert labels == {name: "a" if number % 2 else "b" for number, name in enumerate(ODD_IMAGES | BROKEN)}
    assert read_images(str(folder), numPartitions=5).rdd.getNumPartitions() == 5
    assert readImages(str(folder), 3).rdd.getNumPartitions() == 3


def test_a_split_deals_each_file_once(folder: Path, spark: SparkSession) -> None:
    """Each part is read anew, from the same rows in the same order."""
    parts = readImages(str(folder)).withColumn("label", F.lit(1)).randomSplit([0.6, 0.4], seed=7)
    origins = [row.origin for part in parts for row in part.select("image.origin").collect()]
    assert sorted(map(name_of, origins)) == sorted(set(ODD_IMAGES) | set(BROKEN))
    assert all(part.count() for part in parts)


def test_another_filesystem_of_hadoop_is_read(folder: Path, spark: SparkSession) -> None:
    place = mount(spark, folder)
    origins = [row.image.origin for row in read_images(place).collect()]
    assert len(origins) == len(ODD_IMAGES | BROKEN)
    assert all(origin.startswith(f"{place}/label=") for origin in origins)


def test_what_cannot_be_read_is_a_sentence(spark: SparkSession, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageSourceError, match=r"The images .*gone cannot be read: .*PATH_NOT_FOUND"):
        read_images(str(tmp_path / "gone"))
    with pytest.raises(ImageSourceError, match=rf"There are no files in {tmp_path}: check the path\.$"):
        read_images(str(tmp_path))
    (tmp_path / "below").mkdir()
    shutil.copy(folder / "label=a" / "JPEG_L.bin", tmp_path / "below")
    with pytest.raises(ImageSourceError, match="or set recursive for those in folders below"):
        read_images(str(tmp_path), recursive=False)
    with pytest.raises(ImageSourceError, match="numPartitions is 0: it must be 1 or more"):
        read_images(str(folder), numPartitions=0)


def test_many_large_pictures_are_never_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_BYTES", 1000)
    picture = as_png(np.zeros((10, 20, 3), np.uint8))  # 600 bytes of pixels
    contents = [picture, picture, b"", picture, picture, picture]
    batch = pa.RecordBatch.from_pydict(
        {"path": list("abcdef"), "content": contents, "label": [1, 2, 3, 4, 5, 6]}
    )
    for drop, sizes, labels in (
        (False, [2, 3, 1], [1, 2, 3, 4, 5, 6]),
        (True, [2, 2, 1], [1, 2, 4, 5, 6]),
    ):
        made = list(module._decode(iter([batch]), ["label"], drop))
        assert [part.num_rows for part in made] == sizes
        assert [label for part in made for label in part["label"].to_pylist()] == labels
        assert [len(image["data"]) for part in made for image in part["image"].to_pylist()] == [
            600 * (label != 3) for label in labels
        ]


def test_a_batch_that_ends_with_what_is_left_out_is_whole() -> None:
    picture = as_png(np.zeros((2, 2, 3), np.uint8))
    batch = pa.RecordBatch.from_pydict({"path": list("ab"), "content": [picture, b""]})
    assert [part.num_rows for part in module._decode(iter([batch]), [], True)] == [1]
    empty = pa.RecordBatch.from_pydict({"path": ["a"], "content": [b""]})
    assert list(module._decode(iter([empty]), [], True)) == []
