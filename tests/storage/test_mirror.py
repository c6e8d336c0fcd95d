from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.helpers.hadoop import mount
from tuner.storage.filesystem import HadoopFolder
from tuner.storage.mirror import Mirror, brought_here


@pytest.fixture
def mirror(spark: SparkSession, tmp_path: Path) -> Mirror:
    return Mirror(tmp_path / "here", HadoopFolder(spark, f"{mount(spark, tmp_path / 'below')}/cache"))


@pytest.fixture
def other(spark: SparkSession, mirror: Mirror, tmp_path: Path) -> Mirror:
    """Another machine's."""
    return Mirror(tmp_path / "other", mirror.there)


def write(mirror: Mirror, name: str, text: str) -> Path:
    file = mirror.here / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_what_one_machine_sends_the_other_fetches_once(mirror: Mirror, other: Mirror) -> None:
    for name in ("a", "b"):
        write(mirror, f"features/key/part-{name}", name)
    write(mirror, "features/other/part-c", "c")
    mirror.send("features/key")
    assert [file.name for file in other.fetch("features/key")] == ["part-a", "part-b"]
    assert (other.here / "features/key/part-b").read_text() == "b"
    assert other.fetch("features/key") == []
    write(other, "features/key/part-d", "d")
    other.send("features/key")
    assert [file.name for file in mirror.fetch("features/key")] == ["part-d"]
    assert [entry.name for entry in mirror.there.entries("features")] == ["key"]


def test_files_that_are_being_written_stay_where_they_are(mirror: Mirror, other: Mirror) -> None:
    write(mirror, "features/key/.part-a.tmp", "half")
    write(mirror, "features/key/inner/file", "of a folder")
    mirror.send("features/key")
    mirror.there.write_text("features/key/_part-b.1234", "half")
    mirror.there.write_text("features/key/inner/file", "of a folder")
    assert other.fetch("features/key") == []
    assert [entry.name for entry in mirror.there.entries("features/key")] == ["_part-b.1234", "inner"]


def test_what_is_removed_is_removed_here_and_there(mirror: Mirror) -> None:
    file = write(mirror, "features/key/part-a", "a")
    mirror.send("features/key")
    mirror.remove(file)
    assert not file.exists()
    assert mirror.there.entries("features/key") == []
    mirror.remove(file)


def test_a_folder_has_a_place_or_was_brought(spark: SparkSession, tmp_path: Path) -> None:
    assert brought_here(tmp_path / "model") == tmp_path / "model"
    (tmp_path / "brought").write_text("x")
    spark.sparkContext.addFile(str(tmp_path / "brought"))
    assert brought_here(Path("brought")).read_text() == "x"
    assert brought_here(Path("brought")) != tmp_path / "brought"
