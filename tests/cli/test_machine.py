from pathlib import Path

import pytest

from tests.cli.test_begin import run
from tests.extraction.test_contents import fill, network
from tuner.cli.machine import _size


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / ".tuner", network("Old"), 5, age_days=100)
    fill(tmp_path / ".tuner", network("New"), 1000, age_days=2)
    return tmp_path / ".tuner"


def test_the_cache_is_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "cache") == 0
    head, new, old, total = capsys.readouterr().out.splitlines()
    assert head.split() == ["network", "input", "precision", "images", "size", "last", "use", "key"]
    assert new.split()[:4] == ["New", "32x32", "float32", "1,000"]
    assert old.split()[-1] == network("Old").key[:12]
    assert total.startswith("2 networks, 1,005 images")


def test_what_is_listed_is_what_is_pruned(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "cache", "--older-than", "30") == 0
    assert "New" not in capsys.readouterr().out
    assert run(monkeypatch, "cache", "--older-than", "30", "--prune") == 0
    assert "removed from .tuner" in capsys.readouterr().out
    assert [folder.name for folder in (root / "features").iterdir() if folder.is_dir()] == [
        network("New").key
    ]
    assert run(monkeypatch, "cache", "--network", "New", "--prune") == 0
    capsys.readouterr()
    assert run(monkeypatch, "cache") == 0
    assert capsys.readouterr().out == "There are no features in the cache .tuner.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--prune",), "--older-than DAYS"), (("--network", "VGG16"), "there are: New, Old.")],
)
def test_what_cannot_be_pruned_is_refused(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    assert run(monkeypatch, "cache", *arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2**42, "4096.0 GiB")]
)
def test_bytes_for_a_person(count: int, shown: str) -> None:
    assert _size(count) == shown


def test_the_doctor_refuses_a_file_that_is_not_there(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "doctor", "--experiment", "none.yaml") == 2
    assert "There is no experiment file none.yaml" in capsys.readouterr().err
