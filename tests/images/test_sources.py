import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from sklearn.datasets import load_digits

from tuner.base.errors import ImageSourceError
from tuner.images import contents as contents_module
from tuner.images import index as index_module
from tuner.images import sources as module
from tuner.images.decoding import decode_image
from tuner.images.index import contents, index_images
from tuner.images.sources import read_images

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make files below a folder: each has its own name, from there, as its content."""

    def make(*names: str) -> Path:
        root = tmp_path / "the images"
        root.mkdir(exist_ok=True)
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        return root

    return make


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def partition_sizes(frame) -> list[int]:
    return [len(rows) for rows in frame.rdd.glom().collect()]


def parquet(path: Path, rows: dict[str, pa.Array]) -> str:
    pq.write_table(pa.table(rows), path)
    return str(path)


BINARY = pa.array([b"one", b"two", b"one"])

# Folders ------------------------------------------------------------------------------------------


def test_files_are_hashed_alike_on_the_driver_and_on_the_workers_of_a_cluster(
    spark: SparkSession, tree: Tree, monkeypatch: pytest.MonkeyPatch
):
    root = tree(*[f"{number % 3}/{number}.png" for number in range(200)])
    (root / "0" / "gone.png").symlink_to(root / "nowhere.png")
    images = read_images(spark, str(root))
    here = index_images(images)
    monkeypatch.setattr(index_module, "is_local", lambda _: False)  # as with the master of a cluster
    pd.testing.assert_frame_equal(here, index_images(images))
    assert len(here) == 201
    assert here["error"].notna().sum() == 1


def test_each_folder_is_a_class_and_everything_below_it_belongs_to_it(spark: SparkSession, tree: Tree):
    names = [
        "two words/1.jpg",
        "two words/deep/er/2.jpg",
        "größe/ü.png",
        "বাংলা/১.png",
        "🐈/🐈.png",
        "_hidden from Spark/_1.png",
        "a:b/c:d.png",
        "100%25/[x]{y}*?.png",
        "Cat/1.png",
        "cat/1.png",
        "10/1.png",
        "9/1.png",
        'quote\'s "and" \\/1.png',
        "line\nbreak/1.png",
    ]
    root = tree(*names)
    images = read_images(spark, str(root))
    labels = sorted({name.partition("/")[0] for name in names})
    assert list(images.labels) == labels
    assert labels.index("10") < labels.index("9")
    assert images.notes == ()
    index = index_images(images)
    assert list(index.columns) == ["path", "label", "label_index", "digest", "bytes", "error"]
    assert sorted(index["path"]) == sorted(str(root / name) for name in names) == list(index["path"])
    for row in index.itertuples():
        name = str(Path(row.path).relative_to(root))
        assert row.label == name.partition("/")[0] == labels[row.label_index]
        assert (row.digest, row.bytes, row.error) == (sha256(name.encode()), len(name.encode()), None)
    assert "frame" not in vars(images)  # listing and hashing files need none
    rows = images.frame.collect()
    assert images.frame.columns == ["path", "content", "label", "label_index"]
    assert [field.dataType.simpleString() for field in images.frame.schema] == [
        "string",
        "binary",
        "string",
        "int",
    ]
    assert {(row.path, bytes(row.content), row.label, row.label_index) for row in rows} == {
        (row.path, str(Path(row.path).relative_to(root)).encode(), row.label, row.label_index)
        for row in index.itertuples()
    }


def test_links_back_do_not_hang_and_do_not_mix_classes(spark: SparkSession, tree: Tree):
    root = tree("cats/1.png", "cats/more/2.png", "dogs/1.png")
    (root / "cats" / "more" / "up").symlink_to(root / "cats")
    (root / "cats" / "all").symlink_to(root)
    (root / "dogs" / "itself").symlink_to(root / "dogs" / "itself")
    (root / "dogs" / "other.png").symlink_to(root / "cats" / "1.png")
    index = index_images(read_images(spark, str(root)))
    found = {str(Path(row.path).relative_to(root)): row.error for row in index.itertuples()}
    loop = "cannot be read: Too many levels of symbolic links"
    assert found == {
        "cats/1.png": None,
        "cats/more/2.png": None,
        "dogs/1.png": None,
        "dogs/itself": loop,
        "dogs/other.png": None,
    }


def test_what_cannot_be_read_has_its_reason_and_no_digest(spark: SparkSession, tree: Tree):
    root = tree("a/good.png", "b/good.png")
    (root / "a" / "dangling.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "a" / "pipe.png")
    with (root / "b" / "huge.png").open("wb") as huge:
        huge.truncate(2**40)  # without its blocks: no disk is used, and no memory must be
    images = read_images(spark, str(root))
    index = index_images(images)
    bad = index[index["error"].notna()]
    assert dict(zip((Path(path).name for path in bad["path"]), bad["error"], strict=True)) == {
        "dangling.png": "cannot be read: No such file or directory",
        "pipe.png": "cannot be read: not a regular file",
        "huge.png": f"too large: {2**40} bytes",
    }
    assert set(bad["digest"]) == {""}
    assert set(bad["bytes"]) == {0}
    assert images.frame.where("content is null").count() == 3
    assert list(index[index["error"].isna()]["error"]) == [None, None]


def test_folders_deeper_than_python_recurses_are_read(spark: SparkSession, tree: Tree):
    root = tree("a/1.png", "b/1.png")
    here = Path.cwd()
    try:
        os.chdir(root / "a")
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
        Path("deep.png").write_bytes(b"deep")
    finally:
        os.chdir(here)
    try:
        index = index_images(read_images(spark, str(root)))
        assert sorted(index["digest"]) == sorted(map(sha256, (b"a/1.png", b"b/1.png", b"deep")))
        assert list(index["error"]) == [None] * 3
    finally:  # pytest's own removal recurses
        subprocess.run(["rm", "-r", root / "a"], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_without_permission_is_named(spark: SparkSession, tree: Tree):
    root = tree("a/1.png", "b/1.png")
    (root / "b").chmod(0)
    try:
        with pytest.raises(ImageSourceError, match=f"{root / 'b'} cannot be read: Permission denied"):
            read_images(spark, str(root))
    finally:
        (root / "b").chmod(0o755)


def test_a_name_that_is_not_utf8_is_listed_and_the_rest_is_read(spark: SparkSession, tree: Tree):
    root = tree("a/1.png", "b/1.png")
    Path(os.fsdecode(os.fsencode(root) + b"/a/caf\xe9.png")).write_bytes(b"x")
    index = index_images(read_images(spark, str(root)))
    assert [Path(path).name for path in index["path"]] == ["1.png", "caf\\xe9.png", "1.png"]
    assert list(index["error"].isna()) == [True, False, True]


def test_loose_files_are_noted_and_hidden_ones_are_not(spark: SparkSession, tree: Tree):
    root = tree("a/1.png", "b/1.png", "b/.DS_Store", "b/._1.png", "b/Thumbs.db", "b/.git/config")
    tree("notes.txt", "also loose.png", ".DS_Store", "Thumbs.db", ".cache/1.png", "b/readme.txt")
    images = read_images(spark, str(root))
    assert images.notes == (f"2 file(s) directly in {root} belong to no class and are left out",)
    assert [Path(path).name for path in index_images(images)["path"]] == ["1.png", "1.png", "readme.txt"]


def test_a_relative_folder_and_a_uri_are_the_same_images(
    spark: SparkSession, tree: Tree, monkeypatch: pytest.MonkeyPatch
):
    root = tree("a/1 ü.png", "b/1.png")
    expected = index_images(read_images(spark, str(root)))
    monkeypatch.chdir(root.parent)
    for source in (root.name, f"./{root.name}/", root.as_uri()):
        pd.testing.assert_frame_equal(index_images(read_images(spark, source)), expected)


@pytest.mark.parametrize(
    ("names", "source", "sentence"),
    [
        ([], "nowhere", "There is no folder .*nowhere"),
        ([], "", "There is no class folder in .*give a folder with one folder"),
        ([], "long" * 100, "cannot be read: File name too long"),
        ([], "a\0b", "There is no folder"),
        (["loose.png"], "", "There is no class folder in"),
        (["a/1.png"], "", "There is only the class a in .*at least two"),
        (["a/1.png"], "a/1.png", r"a/1\.png is a file: give a folder"),
        (["a/1.png", "b/.DS_Store"], "", "The class folder .*/b has no images"),
    ],
    ids=[
        "missing",
        "empty",
        "a long name",
        "a null byte",
        "no folder",
        "one class",
        "a file",
        "an empty class",
    ],
)
def test_a_folder_that_is_no_source_is_refused(spark: SparkSession, tree: Tree, names, source, sentence):
    root = tree(*names)
    with pytest.raises(ImageSourceError, match=sentence):
        read_images(spark, str(root / source))


@pytest.mark.long
def test_a_jvm_in_a_c_locale_reads_non_ascii_folders(tree: Tree):
    root = tree("größe/🐈.png", "বাংলা/১.png")
    code = (
        "import sys\n"
        "from pyspark.sql import SparkSession\n"
        "from tuner.images.index import contents, index_images\n"
        "from tuner.images.sources import read_images\n"
        "spark = SparkSession.builder.master('local[1]').config('spark.ui.enabled', False)\n"
        "spark = spark.getOrCreate()\n"
        "images = read_images(spark, sys.argv[1])\n"
        "index = index_images(images)\n"
        "print(ascii(sorted(zip(index['label'], index['error'], index['digest']))))\n"
        "print(contents(images, index, 1).where('length(content) > 0').count())\n"
        "spark.stop()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("LANG", "PYTHONUTF8")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        env=environment | {"LC_ALL": "C", "PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    names = ["größe/🐈.png", "বাংলা/১.png"]
    expected = [(name.partition("/")[0], None, sha256(name.encode())) for name in names]
    assert done.stdout.decode().splitlines() == [ascii(sorted(expected)), "2"]


# A folder that only Spark reads --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["images", "50%20 [x]{y} größe"])
def test_a_remote_folder_has_the_classes_of_its_first_level(spark: SparkSession, tmp_path: Path, name: str):
    """Called with a file: URI, as Hadoop writes it: nothing is percent-encoded."""
    root = tmp_path / name
    names = ["cat s/1.png", f"cat s/{name}/deep/2 3.png", "dög%41/1#?.png", "dög%41/Thumbs.db", "loose.png"]
    for file in names:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(file.encode())
    for source in (f"file://{root}", f"file:{root}/", f"file://{root}//"):
        images = module._read_remote_folder(spark, source)
        assert images.labels == ("cat s", "dög%41")
        assert images.notes == (f"1 file(s) directly in {source} belong to no class and are left out",)
    index = index_images(images)
    assert list(
        zip(index["label"], index["label_index"], index["digest"], index["error"], strict=True)
    ) == [
        (label, ["cat s", "dög%41"].index(label), sha256(file.encode()), None)
        for label, file in sorted((file.partition("/")[0], file) for file in names[:3])
    ]
    assert {bytes(row.content) for row in contents(images, index, 2).collect()} == {
        file.encode() for file in names[:3]
    }


@pytest.mark.parametrize("source", ["s3a://[bucket/images", "//[images"])
def test_a_uri_that_is_none_is_one_sentence(spark: SparkSession, source: str):
    with pytest.raises(ImageSourceError, match=r"\[.* are no path and no URI: Invalid IPv6 URL"):
        read_images(spark, source)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nosuch://host/images", "The images nosuch://host/images cannot be read: .*nosuch"),
        ("file:///nowhere/at all", "cannot be read: .*nowhere/at all"),
    ],
)
def test_a_remote_folder_that_cannot_be_read_is_one_sentence(spark: SparkSession, source, sentence):
    with pytest.raises(ImageSourceError, match=sentence) as caught:
        module._read_remote_folder(spark, source)
    assert "\n" not in str(caught.value)


# Parquet, tables, the built-in set -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["images.parquet", "a b ü.parquet", "[1]{2}*.parquet"])
def test_a_parquet_needs_content_and_label(spark: SparkSession, tmp_path: Path, name: str):
    source = parquet(tmp_path / name, {"label": pa.array(["b", "a", "a"]), "content": BINARY})
    for given in (source, (tmp_path / name).as_uri()):
        images = read_images(spark, given)
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
    assert images.labels == ("10", "9")
    index = index_images(images)
    assert index.to_dict("list") == {
        "path": ["images/0.png", "images/1.png", "images/2.png"],
        "label": ["10", "9", "9"],
        "label_index": [0, 1, 1],
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


# Index and contents -------------------------------------------------------------------------------


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
    monkeypatch.setattr(contents_module, "_BATCH_BYTES", 20)
    monkeypatch.setattr(contents_module, "_BATCH_ROWS", 4)
    root = tree(*(f"a/{n}.png" for n in range(9)))
    (root / "b").mkdir()
    (root / "b" / "1.png").write_bytes(b"x" * 1000)
    images = read_images(spark, str(root))
    assert images.frame.count() == 10
    assert {row.digest for row in contents(images, index_images(images), 1).collect()} == {
        sha256(path.read_bytes()) for path in root.glob("*/*")
    }
