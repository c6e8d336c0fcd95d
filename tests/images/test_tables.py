import io
import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pyspark.sql import SparkSession

from tests.helpers.sources import BINARY, parquet, sha256
from tuner.base.errors import ImageSourceError
from tuner.images.index import index_images, png_file
from tuner.images.sources import read_images

# Columns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["images.parquet", "a b ü.parquet", "[1]{2}*.parquet"])
def test_a_parquet_needs_content_and_label(spark: SparkSession, tmp_path: Path, name: str):
    source = parquet(tmp_path / name, {"label": pa.array(["b", "a", "a"]), "content": BINARY})
    for place in (source, (tmp_path / name).as_uri()):
        images = read_images(spark, place)
        assert images.labels == ("a", "b")
        index = index_images(images)
        digests = [sha256(content) for content in (b"one", b"two", b"one")]
        assert sorted(zip(index["label"], index["label_index"], index["digest"], strict=True)) == sorted(
            zip(["b", "a", "a"], [1, 0, 0], digests, strict=True)
        )
        assert set(index["path"]) == {f"sha256:{digest[:16]}" for digest in digests}


def test_a_folder_of_parquet_files_with_paths_numbers_and_nulls(spark: SparkSession, tmp_path: Path):
    for part, (label, content) in enumerate([(10, b"ten"), (9, None), (9, b"nine")]):
        parquet(
            tmp_path / f"part-{part}.parquet",
            {
                "label": pa.array([label], pa.int16()),
                "content": pa.array([content], pa.binary()),
                "path": pa.array([f"images/{part}.png"]),
                "more": pa.array([1]),
            },
        )
    images = read_images(spark, str(tmp_path))
    assert images.labels == ("9", "10")
    index = index_images(images)
    assert index.to_dict("list") == {
        "path": ["images/0.png", "images/1.png", "images/2.png"],
        "label": ["10", "9", "9"],
        "label_index": [1, 0, 0],
        "digest": [sha256(b"ten"), "", sha256(b"nine")],
        "bytes": [3, 0, 4],
        "error": [None, "null content", None],
    }


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({"content": BINARY}, "has no column label"),
        ({"label": pa.array(["a", "b", "a"])}, "has no column content"),
        (
            {"content": pa.array(["x", "y"]), "label": pa.array(["a", "b"])},
            "content of .* is string.*binary",
        ),
        (
            {"content": BINARY, "label": pa.array([0.5, 1, 2])},
            "label of .* is double.*text or whole numbers",
        ),
        ({"content": BINARY, "label": pa.array(["a", None, "b"])}, "label of .* has nulls"),
        ({"content": BINARY, "label": pa.array(["a", "", "b"])}, "label of .* has empty text"),
        ({"content": BINARY, "label": pa.array(["a", "a", "a"])}, "There is only the class a in"),
        ({"content": BINARY[:0], "label": pa.array([], pa.string())}, "There is no image in"),
    ],
    ids=[
        "no label",
        "no content",
        "text content",
        "real label",
        "null label",
        "empty label",
        "one class",
        "no rows",
    ],
)
def test_a_parquet_with_other_columns_is_refused(spark: SparkSession, tmp_path: Path, rows, sentence):
    with pytest.raises(ImageSourceError, match=sentence):
        read_images(spark, parquet(tmp_path / "images.parquet", rows))


def test_a_parquet_that_is_none_is_refused_in_one_sentence(spark: SparkSession, tmp_path: Path):
    (tmp_path / "images.parquet").write_bytes(b"not Parquet at all")
    with pytest.raises(ImageSourceError, match=r"images\.parquet cannot be read: ") as caught:
        read_images(spark, str(tmp_path / "images.parquet"))
    assert "\n" not in str(caught.value)


def spark_image(pixels: np.ndarray | None) -> dict[str, object] | None:
    """A row of Spark's image struct, of gray, RGB or RGBA pixels."""
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    channels = pixels[0, 0].size
    data = pixels if channels == 1 else pixels[..., [2, 1, 0, 3][:channels]]
    mode = {1: 0, 3: 16, 4: 24}[channels]
    fields = {"height": height, "width": width, "nChannels": channels, "mode": mode}
    return {"origin": f"file:/{channels}.png", **fields, "data": data.tobytes()}


PIXELS = [
    np.random.default_rng(n).integers(0, 256, shape, np.uint8)
    for n, shape in enumerate([(5, 7, 3), (4, 4), (3, 2, 4)])
]
STRUCT = pa.struct(
    [
        ("origin", pa.string()),
        *((name, pa.int32()) for name in ("height", "width", "nChannels", "mode")),
        ("data", pa.binary()),
    ]
)


@pytest.mark.parametrize("name", ["image", "img"])
def test_spark_s_image_struct_is_read_pixel_by_pixel(spark: SparkSession, tmp_path: Path, name: str):
    broken = {**spark_image(PIXELS[0]), "height": 99}
    structs = [*map(spark_image, PIXELS), None, broken]
    rows = {name: pa.array(structs, STRUCT), "label": pa.array([*"ababa"])}
    images = read_images(spark, parquet(tmp_path / "images.parquet", rows))
    index = index_images(images)
    reasons = sorted(index["error"].dropna())
    assert reasons == ["105 bytes do not make 99 x 7 pixels of 3 channels", "empty image"]
    found = {row.path: bytes(row.content) for row in images.frame.where("content is not null").collect()}
    for pixels, channels in zip(PIXELS, (3, 1, 4), strict=True):
        picture = Image.open(io.BytesIO(found[f"file:/{channels}.png"]))
        np.testing.assert_array_equal(np.asarray(picture), pixels)


DIGESTS = [
    "168fb655a89819a1993dac31828e1d3569860874e974433e8d350f4f6351c28a",
    "b6584210aa7efee3c267338bbc6087a5bde5dfe04de37ec1809e620606f1bccb",
]


def test_pixels_are_the_same_bytes_always():
    """A picture is known by its bytes, to the split and to the cache: of any version of any library."""
    digests = [sha256(png_file(np.arange(n * 12, dtype=np.uint8).reshape(n, 4, 3))) for n in (1, 2)]
    assert digests == DIGESTS


@given(
    arrays(
        np.uint8,
        st.tuples(st.integers(1, 300), st.integers(1, 300), st.sampled_from([3, 4])),
        elements=st.integers(0, 255),
    )
)
@settings(max_examples=20, deadline=None)
def test_pixels_come_back_from_their_file(pixels: np.ndarray):
    for some in (pixels, np.ascontiguousarray(pixels[..., 0])):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_file(some)))), some)


def hugging_face(names: list[str] | None, label: str = "label") -> dict[bytes, bytes] | None:
    if names is None:
        return None
    features = {label: {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


PICTURES = pa.array(
    [{"bytes": b"one", "path": "1.png"}, {"bytes": b"two", "path": None}, {"bytes": None, "path": "3.png"}]
)


@pytest.mark.parametrize(
    ("label", "names", "labels"),
    [("label", None, ("2", "10")), ("labels", [f"class {n}" for n in range(11)], ("class 10", "class 2"))],
)
def test_hugging_face_s_columns_are_read(spark: SparkSession, tmp_path: Path, label: str, names, labels):
    rows = {"image": PICTURES, label: pa.array([2, 10, 2])}
    source = parquet(tmp_path / "data" / "train-0-of-1.parquet", rows, hugging_face(names, label))
    images = read_images(spark, source)
    assert images.labels == labels
    index = index_images(images).set_index("path")
    assert index.loc["1.png", ["label", "digest"]].tolist() == [
        images.labels[-1 if names else 0],
        sha256(b"one"),
    ]
    assert index["error"].dropna().tolist() == ["no bytes in the column, only the path 3.png"]
    assert len(index) == 3


def test_a_class_that_has_no_name_is_refused(spark: SparkSession, tmp_path: Path):
    rows = {"image": PICTURES, "label": pa.array([0, 1, -1])}
    source = parquet(tmp_path / "images.parquet", rows, hugging_face(["cat", "dog"]))
    with pytest.raises(ImageSourceError, match=r"The column label of .* has -1, and its 2 named classes"):
        read_images(spark, source)


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (pa.array([{"path": "x"}] * 3), "image of .* is struct.*binary, or Spark's or Hugging Face's"),
        (pa.array(["x"] * 3), "image of .* is string: it must be binary, or"),
    ],
)
def test_an_image_column_of_another_kind_is_refused(spark: SparkSession, tmp_path: Path, column, sentence):
    rows = {"image": column, "label": pa.array([*"aba"])}
    with pytest.raises(ImageSourceError, match=sentence):
        read_images(spark, parquet(tmp_path / "images.parquet", rows))


def test_labels_that_are_numbers_sort_as_numbers(spark: SparkSession, tmp_path: Path):
    numbers = [0, 1, 10, 11, 2, -3]
    rows = {"content": pa.array([str(n).encode() for n in numbers]), "label": pa.array(numbers)}
    assert read_images(spark, parquet(tmp_path / "images.parquet", rows)).labels == (
        "-3",
        "0",
        "1",
        "2",
        "10",
        "11",
    )


# Files ----------------------------------------------------------------------------------------------


def one(content: bytes, **more: object) -> dict[str, pa.Array]:
    return {"content": pa.array([content]), **{name: pa.array([value]) for name, value in more.items()}}


@pytest.mark.parametrize("above", ["", "data/", "year=2020/"])
def test_a_partitioned_folder_keeps_the_text_of_its_labels(spark: SparkSession, tmp_path: Path, above: str):
    labels = ["001", "1", "010", "a b", "größe", "100%", "x=y"]
    for label in labels:
        parquet(tmp_path / f"{above}label={quote(label)}" / "part-0.parquet", one(label.encode()))
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "readme.md").write_text("not Parquet")
    images = read_images(spark, str(tmp_path))
    assert set(images.labels) == set(labels)
    index = index_images(images)
    assert dict(zip(index["label"], index["digest"], strict=True)) == {
        label: sha256(label.encode()) for label in labels
    }
    assert spark.conf.get("spark.sql.sources.partitionColumnTypeInference.enabled") == "true"


@pytest.mark.long
def test_what_spark_itself_partitions_comes_back(spark: SparkSession, tmp_path: Path):
    labels = ["001", "a b", "größe", "x=y/z", "50%"]
    rows = [(label.encode(), label) for label in labels]
    frame = spark.createDataFrame(rows, "content binary, label string")
    frame.write.partitionBy("label").parquet(str(tmp_path / "images"))
    assert set(read_images(spark, str(tmp_path / "images")).labels) == set(labels)


def test_a_partition_without_a_label_is_refused(spark: SparkSession, tmp_path: Path):
    for label in ("a", "__HIVE_DEFAULT_PARTITION__"):
        parquet(tmp_path / f"label={label}" / "part-0.parquet", one(b"x"))
    with pytest.raises(ImageSourceError, match=r"column label of .* has nulls"):
        read_images(spark, str(tmp_path))


def test_parquet_files_in_folders_of_any_name_are_read(spark: SparkSession, tmp_path: Path):
    for number, name in enumerate(["one.parquet", "deep/two.parquet", "deep/er/three.parquet"]):
        parquet(tmp_path / name, one(name.encode(), label="ab"[number % 2]))
    assert len(index_images(read_images(spark, str(tmp_path)))) == 3


def test_of_a_table_and_a_few_pictures_the_table_is_the_source(spark: SparkSession, tmp_path: Path):
    parquet(tmp_path / "0.parquet", one(b"x", label="a"))
    parquet(tmp_path / "1.parquet", one(b"y", label="b"))
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "1.png").write_bytes(b"z")
    assert read_images(spark, str(tmp_path)).labels == ("a", "b")


SPLIT_FILES = {
    "as Hugging Face names files": "{part}-00000-of-00001.parquet",
    "in folders": "{part}/0.parquet",
    "in partitions": "split={part}/label={label}/0.parquet",
    "in partitions of any name": "fold={part}/0.parquet",
}


@pytest.mark.long
@pytest.mark.parametrize("name", SPLIT_FILES)
def test_parquet_files_that_are_parts_are_refused_or_kept(spark: SparkSession, tmp_path: Path, name: str):
    for part in ("train", "validation", "test"):
        for label in "ab":
            path = tmp_path / SPLIT_FILES[name].format(part=part, label=label)
            if "label" in SPLIT_FILES[name]:
                parquet(path, one(f"{part}{label}".encode()))
            elif label == "a":
                contents = pa.array([f"{part}{letter}".encode() for letter in "ab"])
                parquet(path, {"content": contents, "label": pa.array(["a", "b"])})
    with pytest.raises(ImageSourceError, match=r"look like the parts of a split. Set split.given: folders"):
        read_images(spark, str(tmp_path))
    index = index_images(read_images(spark, str(tmp_path), given="folders"))
    assert {(row.given, row.label): row.digest for row in index.itertuples()} == {
        (part, label): sha256(f"{part}{label}".encode())
        for part in ("train", "validation", "test")
        for label in "ab"
    }


def test_labels_called_after_parts_are_labels(spark: SparkSession, tmp_path: Path):
    for label in ("train", "test"):
        parquet(tmp_path / f"label={label}" / "0.parquet", one(label.encode()))
    assert read_images(spark, str(tmp_path)).labels == ("test", "train")
    with pytest.raises(ImageSourceError, match=r"split\.given is folders, and .* holds no split"):
        read_images(spark, str(tmp_path), given="folders")
