import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from tests.helpers.sources import Tree, sha256
from tuner.base.errors import ImageSourceError
from tuner.images.folders import read_remote_folder
from tuner.images.index import contents, index_images
from tuner.images.sources import read_images

# Folders of this machine ----------------------------------------------------------------------------


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


def test_loose_files_and_hidden_folders_are_noted_and_hidden_files_are_not(spark: SparkSession, tree: Tree):
    root = tree("a/1.png", "b/1.png", "b/.DS_Store", "b/._1.png", "b/Thumbs.db", "b/.git/config")
    tree("notes.txt", "also loose.png", ".DS_Store", "Thumbs.db", ".cache/1.png", "b/readme.txt")
    images = read_images(spark, str(root))
    assert images.notes == (
        f"2 file(s) directly in {root} belong to no class and are left out",
        f"Hidden and system folder(s) in {root} are passed over: .cache, .git",
    )
    assert [Path(path).name for path in index_images(images)["path"]] == ["1.png", "1.png", "readme.txt"]


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


# A split that is given ------------------------------------------------------------------------------

GIVEN_FILES = [
    *(
        f"{part}/{label}/{part[0]}{number}.png"
        for part in ("Train", "val")
        for label in "ab"
        for number in range(3)
    ),
    *(f"test/{label}/t{number}.png" for label in "ab" for number in range(2)),
    "test/readme.txt",
    "raw/1.png",
    "notes.csv",
]


def parts_of(index) -> dict[tuple[str, str], int]:
    return index.groupby(["given", "label"]).size().to_dict()


GIVEN_PARTS = {
    (part, label): 2 if part == "test" else 3 for part in ("train", "validation", "test") for label in "ab"
}


@pytest.mark.long
def test_parts_of_class_folders_are_refused_or_kept_here_and_elsewhere(spark: SparkSession, tree: Tree):
    root = tree(*GIVEN_FILES)
    for read in (
        lambda given: read_images(spark, str(root), given=given),
        lambda given: read_remote_folder(spark, root.as_uri().replace("%20", " "), given, training=True),
    ):
        with pytest.raises(
            ImageSourceError, match=r"\((Train|test|val), .* look like the parts of a split"
        ):
            read(None)
        images = read("folders")
        assert images.labels == ("a", "b")
        assert parts_of(index_images(images)) == GIVEN_PARTS
        rows = images.frame.select("given", "label", "label_index", "content").collect()
        assert len(rows) == 16
        assert all(bytes(row.content).decode().split("/")[1] == row.label for row in rows)
        notes = " ".join(images.notes)
        assert "2 file(s) directly in" in notes
        assert "1 file(s) in the folder(s) raw" in notes


def test_parts_within_class_folders_are_kept(spark: SparkSession, tree: Tree):
    names = [f"{label}/{part}/{n}.png" for label in "ab" for part in ("train", "test") for n in range(2)]
    root = tree(*names)
    images = read_images(spark, str(root))
    assert len(index_images(images)) == 8
    assert "hold the folders test, train, which look like the parts of a split" in images.notes[0]
    kept = read_images(spark, str(root), given="folders")
    assert set(parts_of(index_images(kept)).values()) == {2}
    elsewhere = read_remote_folder(spark, root.as_uri().replace("%20", " "), "folders", training=True)
    assert parts_of(index_images(elsewhere)) == parts_of(index_images(kept))


def test_a_class_without_images_in_a_part_is_one_only_if_no_part_has_any(spark: SparkSession, tree: Tree):
    root = tree("train/a/1.png", "train/b/1.png", "test/a/2.png", "test/b/.DS_Store")
    assert read_images(spark, str(root), given="folders").labels == ("a", "b")
    (root / "train" / "c").mkdir()
    with pytest.raises(ImageSourceError, match="The class c has no images in any part of"):
        read_images(spark, str(root), given="folders")


def test_a_given_split_is_indexed_alike_on_a_cluster(
    spark: SparkSession, tree: Tree, monkeypatch: pytest.MonkeyPatch
):
    images = read_images(spark, str(tree(*GIVEN_FILES)), given="folders")
    here = index_images(images)
    monkeypatch.setattr("tuner.images.index.is_local", lambda _: False)
    pd.testing.assert_frame_equal(here, index_images(images))


# What lies beside the images ------------------------------------------------------------------------

SYSTEM = ["__MACOSX", "lost+found", "@eaDir", ".git", ".ipynb_checkpoints", "$RECYCLE.BIN", "#recycle"]


@pytest.mark.parametrize("place", ["", "cat/", "cat/deep/"])
def test_the_systems_folders_are_no_classes_and_hold_no_images(spark: SparkSession, tree: Tree, place: str):
    tree(*(f"{place}{name}/cat/1.png" for name in [*SYSTEM, "System Volume Information"]))
    root = tree("cat/1.png", "dog/1.png", "cat/Thumbs.db", "dog/.DS_Store", "dog/Desktop.ini")
    images = read_images(spark, str(root))
    assert images.labels == ("cat", "dog")
    assert len(index_images(images)) == 2
    assert all(name in images.notes[0] for name in sorted([*SYSTEM, "System Volume Information"])[:5])


def test_the_systems_folders_are_passed_over_elsewhere(spark: SparkSession, tree: Tree):
    root = tree(
        "cat/1.png", "dog/1.png", "lost+found/2.png", "cat/@eaDir/1.png", "System Volume Information/x"
    )
    images = read_remote_folder(spark, root.as_uri().replace("%20", " "), None, training=True)
    assert images.labels == ("cat", "dog")
    assert len(index_images(images)) == 2
    (note,) = images.notes
    assert all(name in note for name in ("lost+found", "@eaDir", "System Volume Information"))


@pytest.mark.parametrize(
    "beside", ["metadata.parquet", "metadata.csv", "cat/metadata.parquet", "raw.parquet/x.json"]
)
def test_a_folder_of_pictures_is_one_whatever_lies_beside_them(
    spark: SparkSession, tree: Tree, beside: str
):
    root = tree("cat/1.png", "cat/2.png", "dog/1.png", "dog/2")
    path = root / beside
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"PAR1")
    images = read_images(spark, str(root))
    assert {"cat", "dog"} <= set(images.labels)
    if "/" not in beside:
        assert images.notes == (f"1 file(s) directly in {root} belong to no class and are left out",)


# For evaluation -------------------------------------------------------------------------------------


def test_to_evaluate_one_class_is_enough_and_an_empty_folder_is_noted(spark: SparkSession, tree: Tree):
    root = tree("a/1.png")
    (root / "none").mkdir()
    images = read_images(spark, str(root), training=False)
    assert images.labels == ("a",)
    assert images.notes == (f"The class folder(s) none of {root} have no images",)
    remote = read_remote_folder(spark, root.as_uri().replace("%20", " "), None, training=False)
    assert remote.labels == ("a",)
    with pytest.raises(ImageSourceError, match="There is no class folder in"):
        read_images(spark, str(root / "a"), training=False)


def test_a_source_given_one_folder_too_high_is_told_where_it_begins(spark: SparkSession, tree: Tree):
    root = tree("photos/train/a/1.png", "photos/train/b/1.png", "photos/test/a/1.png")
    with pytest.raises(
        ImageSourceError,
        match=r"only the class photos .*did you mean .*/photos, which holds the folders test",
    ):
        read_images(spark, str(root))
    with pytest.raises(ImageSourceError, match=r"holds no split.*did you mean .*/photos, "):
        read_images(spark, str(root), given="folders")


# A folder that only Spark reads --------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("name", ["images", "50%20 [x]{y} größe"])
def test_a_remote_folder_has_the_classes_of_its_first_level(spark: SparkSession, tmp_path: Path, name: str):
    """Called with a file: URI, as Hadoop writes it: nothing is percent-encoded."""
    root = tmp_path / name
    names = ["cat s/1.png", f"cat s/{name}/deep/2 3.png", "dög%41/1#?.png", "dög%41/Thumbs.db", "loose.png"]
    for file in names:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(file.encode())
    for source in (f"file://{root}", f"file:{root}/", f"file://{root}//"):
        images = read_remote_folder(spark, source, None, training=True)
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


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nosuch://host/images", "The images nosuch://host/images cannot be read: .*nosuch"),
        ("file:///nowhere/at all", "cannot be read: .*nowhere/at all"),
    ],
)
def test_a_remote_folder_that_cannot_be_read_is_one_sentence(spark: SparkSession, source, sentence):
    with pytest.raises(ImageSourceError, match=sentence) as caught:
        read_remote_folder(spark, source, None, training=True)
    assert "\n" not in str(caught.value)
