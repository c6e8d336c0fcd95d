import json
import sys
from pathlib import Path

import pytest

from tests.cli.test_main import run as refused
from tests.drafts.test_survey import fill
from tests.imports.test_archives import make_tar
from tuner.cli.main import main
from tuner.experiment.file import read_experiment
from tuner.experiment.json_schema import schema_text


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tuner", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return fill(tmp_path / "my photos", {"cat": 12, "dog": 30})


def test_a_folder_gets_a_file_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "new", "my photos") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2].startswith("my_photos.yaml: 42 images of 2 classes, ")
    assert said[-1] == "search with: tuner search --experiment my_photos.yaml"
    written = read_experiment(Path("my_photos.yaml"))
    assert (written.name, written.images) == ("my photos", str(folder))
    assert run(monkeypatch, "new", "my photos") == 2
    assert "is there already" in capsys.readouterr().err
    assert run(monkeypatch, "new", "my photos", "--to", "an experiment.yaml") == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("--experiment 'an experiment.yaml'")


def test_examples_are_listed_and_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "new", "--example") == 0
    assert "football" in capsys.readouterr().out
    assert run(monkeypatch, "new", "--example", "football") == 0
    assert read_experiment(Path("football.yaml")).name == "football"
    assert run(monkeypatch, "new", "--example", "soccer") == 2
    assert "There is no example soccer" in capsys.readouterr().err
    assert run(monkeypatch, "new") == 2
    assert "tuner new FOLDER" in capsys.readouterr().err


def test_the_schema_is_printed_or_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "schema") == 0
    assert json.loads(capsys.readouterr().out)["$schema"].startswith("https://json-schema.org/")
    assert run(monkeypatch, "schema", "--to", "schema.json") == 0
    assert Path("schema.json").read_text(encoding="utf-8") == schema_text()
    assert run(monkeypatch, "schema", "--to", "/proc/nowhere") == 2


@pytest.mark.parametrize(
    ("images", "to", "expected"),
    [
        ("nowhere", "to", "There is no folder or archive nowhere"),
        ("", "to", "There are no images to import: give --images"),
        ("bad.tar", "", "There is no place to import images to: give --to"),
        ("bad.tar", "to", "bad.tar cannot be read ("),
        ("escaping.tar", "to", "There is no class folder in "),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(
    images: str,
    to: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    make_tar(tmp_path / "escaping.tar", {"../cat/1.png": b"x", "/dog/2.png": b"y"})
    error = refused(monkeypatch, capsys, "import-images", "--images", images, "--to", to)
    assert expected in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "to").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.tar", "escaping.tar"]
