import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from tests.conftest import tuner
from tests.helpers.hadoop import mount, mount_settings
from tests.imports.test_archives import make_zip
from tests.imports.test_listing import FILES, SPLIT, make_folder
from tuner.base.errors import CacheError, ImageSourceError
from tuner.images.index import index_images
from tuner.images.sources import read_images
from tuner.imports import importing
from tuner.imports.importing import Import, import_images, write_import
from tuner.imports.listing import list_sources
from tuner.storage.filesystem import HadoopFolder

BYTES = 6  # of a shard: one or two of the files


def write(
    spark: SparkSession, places: list[Path], to: str, given: str | None = None, shard_bytes: int = BYTES
) -> Import:
    sources = list_sources([str(place) for place in places], given)
    return write_import(spark, sources, to, shard_bytes, Console(file=io.StringIO()))


def rows(spark: SparkSession, place: str) -> dict[str, tuple[str, bytes]]:
    found = spark.read.parquet(place).collect()
    return {row["path"]: (row["label"], bytes(row["content"])) for row in found}


EXPECTED = {path: (path.partition("/")[0], content) for path, content in FILES.items()}


@pytest.fixture
def target(spark: SparkSession, tmp_path: Path) -> str:
    return f"{mount(spark, tmp_path / 'hdfs')}/photos"


def test_a_search_reads_what_was_imported_as_it_reads_the_folder(
    spark: SparkSession, target: str, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "a", FILES)
    done = write(spark, [folder], target)
    assert (done.place, done.images, done.labels, done.damaged) == (target, 4, ("cat", "dog"), ())
    assert done.files == done.written > 1
    assert rows(spark, target) == EXPECTED
    mine, theirs = (index_images(read_images(spark, source)) for source in (target, str(folder)))
    for column in ("digest", "label", "label_index", "bytes"):
        assert sorted(mine[column]) == sorted(theirs[column])
    names = [entry.name for entry in HadoopFolder(spark, target).entries()]
    assert names == ["_SUCCESS", "_import.json", *names[2:]]
    assert all(name.startswith("images-") for name in names[2:])


def test_a_split_stays_a_split(spark: SparkSession, target: str, tmp_path: Path) -> None:
    write(spark, [make_zip(tmp_path / "a.zip", SPLIT)], target, given="folders")
    index = index_images(read_images(spark, target, given="folders"))
    assert sorted(index["path"]) == sorted(SPLIT)
    for row in index.itertuples():
        assert row.path.startswith(f"{row.given}/{row.label}/")
    with pytest.raises(ImageSourceError, match="look like the parts of a split"):
        read_images(spark, target)


def test_an_import_that_was_stopped_goes_on_and_is_not_seen_before(
    spark: SparkSession, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_folder(tmp_path / "a", FILES)
    upload, done = HadoopFolder.upload, []

    def stopped(self: HadoopFolder, file: Path, name: str) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(name)
        upload(self, file, name)

    monkeypatch.setattr(HadoopFolder, "upload", stopped)
    with pytest.raises(KeyboardInterrupt):
        write(spark, [source], target)
    monkeypatch.setattr(HadoopFolder, "upload", upload)
    assert done[0] == "_import.json"
    assert done[1].startswith("_importing/images-00000-")
    with pytest.raises(ImageSourceError):
        read_images(spark, target)

    again = write(spark, [source], target)
    assert again.written == again.files - 1
    assert rows(spark, target) == EXPECTED
    assert write(spark, [source], target).written == 0
    assert not HadoopFolder(spark, target).exists("_importing")


def test_one_that_was_stopped_while_files_were_moved_goes_on(
    spark: SparkSession, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_zip(tmp_path / "a.zip", SPLIT)
    rename, moved = HadoopFolder.rename, []

    def stopped(self: HadoopFolder, old: str, new: str) -> None:
        if not new.startswith("_"):
            if len(moved) == 1:
                raise KeyboardInterrupt
            moved.append(new)
        rename(self, old, new)

    monkeypatch.setattr(HadoopFolder, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        write(spark, [source], target, given="folders")
    monkeypatch.setattr(HadoopFolder, "rename", rename)
    assert write(spark, [source], target, given="folders").written == 0
    assert set(rows(spark, target)) == set(SPLIT)


def test_what_is_there_is_not_mixed_with_other_images(
    spark: SparkSession, target: str, tmp_path: Path
) -> None:
    source = make_folder(tmp_path / "a", FILES)
    write(spark, [source], target)
    (source / "cat" / "new.png").write_bytes(b"new")
    with pytest.raises(ImageSourceError, match="holds an import of other images, or these have changed"):
        write(spark, [source], target)
    with pytest.raises(ImageSourceError, match="holds something that no import wrote"):
        write(spark, [source], str(tmp_path))


@pytest.mark.parametrize(
    ("to", "reason"),
    [("nonesuch://host/a", "No FileSystem for scheme"), ("/proc/tuner", "proc")],
)
def test_a_target_that_cannot_be_is_one_sentence(
    to: str, reason: str, spark: SparkSession, tmp_path: Path
) -> None:
    source = make_folder(tmp_path / "a", FILES)
    with pytest.raises(
        CacheError, match=rf"The folder {to} cannot be written \(.*{reason}.*\): give"
    ) as error:
        write(spark, [source], to)
    assert "\n" not in str(error.value)


def test_what_is_wrong_is_said_before_spark_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "driver_session", None)
    with pytest.raises(ImageSourceError, match="There is no folder or archive"):
        import_images([str(tmp_path / "nowhere")], str(tmp_path / "to"))
    with pytest.raises(ImageSourceError, match="Images cannot be imported to ~nobody-here"):
        import_images([str(tmp_path)], "~nobody-here/to")


@pytest.mark.long
def test_the_command_imports_an_archive_and_a_search_reads_it(
    letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = mount_settings(tmp_path / "below", "cluster")
    (tmp_path / "below").mkdir()
    (tmp_path / "conf").mkdir()
    lines = [f"spark.hadoop.{name} {value}" for name, value in settings.items()]
    (tmp_path / "conf" / "spark-defaults.conf").write_text("\n".join(lines))
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "conf"))
    archive = shutil.make_archive(str(tmp_path / "letters"), "gztar", letters.parent, "letters")

    command = ("import-images", "--images", archive, "--to", "viewfs://cluster/mounted/letters")
    done = tuner(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "are those in its folder letters" in done.stdout
    said = "62 images of 3 classes in 1 file(s), 1 written now; in an experiment, images: viewfs://cluster/"
    assert said in done.stdout
    assert "0 written now" in tuner(tmp_path, *command).stdout

    experiment = {
        "name": "letters",
        "images": "viewfs://cluster/mounted/letters",
        "search": {"backbone": ["GlyphNet"]},
    }
    (tmp_path / "e.yaml").write_text(json.dumps(experiment))
    done = tuner(tmp_path, "features", "--experiment", "e.yaml", "--export", "f.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "f.npz") as file:
        assert file["features"].shape == (60, 192)
        assert np.bincount(file["labels"]).tolist() == [20, 20, 20]
    done = tuner(tmp_path, "import-images", "--images", "", "--to", "")
    assert (done.returncode, done.stdout) == (2, "")
