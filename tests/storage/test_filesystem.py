from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.helpers.hadoop import mount
from tuner.storage.filesystem import HadoopFolder


@pytest.fixture(params=["viewfs", "path", "file"])
def folder(request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path) -> HadoopFolder:
    """A folder that is not there yet, on a filesystem of each kind."""
    below = tmp_path / "below"
    if request.param == "viewfs":
        return HadoopFolder(spark, f"{mount(spark, below)}/cache")
    return HadoopFolder(spark, str(below / "cache") if request.param == "path" else f"file://{below}/cache")


def seen(tmp_path: Path) -> list[str]:
    """What Python sees of it, without Hadoop's checksums."""
    below = tmp_path / "below"
    return sorted(
        file.relative_to(below).as_posix()
        for file in below.rglob("*")
        if file.is_file() and not file.name.endswith(".crc")
    )


def test_a_file_goes_there_and_comes_back(folder: HadoopFolder, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "here").write_bytes(content)
    folder.upload(tmp_path / "here", "features/a/part-1.parquet")
    assert seen(tmp_path) == ["cache/features/a/part-1.parquet"]
    assert folder.exists("features/a/part-1.parquet")
    (entry,) = folder.entries("features/a")
    assert entry[:3] == ("part-1.parquet", len(content), False)
    assert abs(entry.changed - (tmp_path / "here").stat().st_mtime) < 600
    assert [(entry.name, entry.is_folder) for entry in folder.entries("features")] == [("a", True)]
    folder.download("features/a/part-1.parquet", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert not (tmp_path / ".back.crc").exists()


def test_what_is_not_there_is_empty(folder: HadoopFolder) -> None:
    assert folder.entries() == []
    assert folder.read_text("a") is None
    assert not folder.exists()
    folder.remove("a")


def test_a_text_is_replaced_whole(folder: HadoopFolder, tmp_path: Path) -> None:
    for text in ("ä\n", "other", ""):
        folder.write_text("notes.json", text)
        assert folder.read_text("notes.json") == text
    assert seen(tmp_path) == ["cache/notes.json"]


def test_a_failed_upload_leaves_nothing(folder: HadoopFolder, tmp_path: Path) -> None:
    folder.write_text("notes.json", "before")
    with pytest.raises(OSError, match="gone"):
        folder.upload(tmp_path / "gone", "notes.json")
    assert folder.read_text("notes.json") == "before"
    (tmp_path / "here").write_text("a")
    folder.make("notes")
    folder.write_text("notes/inner", "x")
    with pytest.raises(OSError, match=r"\S"):
        folder.upload(tmp_path / "here", "notes")  # a folder with something in it
    assert seen(tmp_path) == ["cache/notes.json", "cache/notes/inner"]


def test_folders_are_made_and_removed_with_what_is_in_them(folder: HadoopFolder, tmp_path: Path) -> None:
    folder.make("a/b")
    folder.write_text("a/b/c", "x")
    folder.rename("a/b/c", "a/c")
    assert [entry.name for entry in folder.entries("a")] == ["b", "c"]
    folder.remove("a")
    assert folder.entries() == []


def test_a_place_is_a_uri_that_spark_reads(
    folder: HadoopFolder, spark: SparkSession, tmp_path: Path
) -> None:
    spark.range(3).coalesce(1).write.parquet(str(tmp_path / "made"))
    (made,) = (tmp_path / "made").glob("*.parquet")
    folder.upload(made, "t/part-0.parquet")
    assert spark.read.parquet(folder.place("t")).count() == 3
    assert folder.place() == folder.uri


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("nonesuch://host/a", "No FileSystem for scheme"),
        ("viewfs://nowhere/a", "[Mm]ount table"),
        ("hdfs://", r"\S"),
    ],
)
def test_a_filesystem_that_is_not_there_is_an_error_of_the_system(
    uri: str, reason: str, spark: SparkSession
) -> None:
    with pytest.raises(OSError, match=reason) as caught:
        HadoopFolder(spark, uri).entries()
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_folder_that_may_not_be_written_is_an_error_of_the_system(spark: SparkSession) -> None:
    with pytest.raises(OSError, match="proc"):
        HadoopFolder(spark, "/proc/tuner").write_text("a", "x")
