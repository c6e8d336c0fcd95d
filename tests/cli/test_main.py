"""The command line: what cannot work is one sentence on stderr and exit code 2."""

import sys
from pathlib import Path

import pytest

import tuner as package
from tests.conftest import tuner
from tuner.base import distribution
from tuner.cli.main import main
from tuner.spark.sessions import DriverSession

FILE = "name: e\nimages: builtin:digits\nsearch: {backbone: [GlyphNet]}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: DriverSession) -> Path:
    """A folder with an experiment. With a session there, a search that is refused leaves none behind."""
    (tmp_path / "e.yaml").write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command line in this process, for what is refused before Spark starts."""
    monkeypatch.setattr(sys, "argv", ["tuner", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--experiment", "none.yaml"), "There is no experiment file none.yaml"),
        (("--backbone", "ResNet5"), "ResNet50"),
        (("--max_evals", "0"), "max_evals is '0'"),
        (("--parallelism", "0"), "parallelism is '0'"),
        (("--regParam", "1:0.1"), "is empty"),
        (("--elasticNetParam", "2"), "within [0, 1]"),
        (("--maxIter", "-1"), "maxIter is -1"),
        (("--regParam", "-1"), "regParam is -1"),
        (("--cache", "/proc/nowhere"), "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(folder, monkeypatch, capsys, arguments, expected):
    if "--experiment" not in arguments:
        arguments = ("--experiment", "e.yaml", *arguments)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    error = run(monkeypatch, capsys, "search", *arguments)
    assert expected in error
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("tuner: ")


def test_unknown_option_is_refused(folder, monkeypatch, capsys):
    assert "--regparam" in run(monkeypatch, capsys, "search", "--regparam", "1")


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        pytest.param("nowhere", "There is no folder nowhere", marks=pytest.mark.long),
        pytest.param("one", "only the class a", marks=pytest.mark.long),
        pytest.param("few", "The class", marks=pytest.mark.long),
    ],
)
def test_images_that_cannot_work_are_one_sentence(folder: Path, letters: Path, images: str, expected: str):
    labels = {"one": ["a"], "few": ["a", "b"], "nowhere": []}[images]
    for label, picture in zip(labels, (letters / "o").glob("*.png"), strict=False):
        (folder / images / label).mkdir(parents=True)
        (folder / images / label / "x.png").write_bytes(picture.read_bytes())
    done = tuner(folder, "search", "--experiment", "e.yaml", "--images", images)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_module_and_help_name_the_commands(folder: Path):
    done = tuner(folder, "--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("search", "features", "evaluate"))


def test_help_groups_the_commands_and_version_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = tuner(folder, "--help").stdout
    places = [
        shown.index(f" {group} ") for group in ("Before a search", "Searches", "Models", "This machine")
    ]
    assert places == sorted(places)
    assert shown.index(" doctor ") > places[-1]
    assert "Commands" not in shown
    assert "Exit codes" in shown
    done = tuner(folder, "--version")
    assert (done.returncode, done.stdout) == (0, f"tuner {distribution.version()}\n")


@pytest.mark.long
def test_features_fills_the_cache_and_then_has_nothing_to_do(folder: Path, letters: Path):
    arguments = ("features", "--experiment", "e.yaml", "--images", letters)
    first, second = tuner(folder, *arguments), tuner(folder, *arguments)
    assert first.returncode == 0, first.stderr
    assert "images/s" in first.stdout
    assert "62 images extracted" in first.stdout
    assert "0 images extracted" in second.stdout.splitlines()[-1]


@pytest.mark.long
def test_bad_image_stops_the_search_where_that_is_asked_for(folder: Path, letters: Path):
    (folder / "e.yaml").write_text(FILE + "on_bad_image: fail\n", encoding="utf-8")
    done = tuner(folder, "search", "--experiment", "e.yaml", "--images", letters)
    assert done.returncode == 2
    assert "broken.jpg cannot be used" in done.stderr or "notes.txt cannot be used" in done.stderr


def test_public_names_are_there_and_no_others():
    assert sorted(package._MODULES) == package.__all__ == sorted(package.__all__)
    assert all(getattr(package, name).__name__ == name for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
