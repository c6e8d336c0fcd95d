"""`tuner import-images`: what cannot work is one sentence, before Spark starts."""

from pathlib import Path

import pytest

from tests.cli.test_main import run
from tests.imports.test_archives import make_tar


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
    error = run(monkeypatch, capsys, "import-images", "--images", images, "--to", to)
    assert expected in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "to").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.tar", "escaping.tar"]
