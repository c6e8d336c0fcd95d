import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.conftest import FinishedSearch
from tests.helpers.models import CHAMPION, NO_IMAGES, ODD_IMAGES, letter_files
from tuner.base.errors import ImageSourceError, ModelError
from tuner.cli.main import main
from tuner.serving.prediction import predict_files, sample_files


def predict(*places: Path, output: str = "json", top_k: int = 0) -> tuple[int, str]:
    out = io.StringIO(newline="")
    console = Console(file=io.StringIO())
    unread = predict_files(CHAMPION, places, top_k=top_k, output=output, out=out, console=console)
    return unread, out.getvalue()


def test_files_and_folders_give_a_row_each(search_store: Path, letters: Path) -> None:
    (search_store / "deep" / "er").mkdir(parents=True)
    for name in ("one.gif", "er/two.gif", "er/bad.gif", ".hidden"):
        (search_store / "deep" / name).write_bytes(ODD_IMAGES["GIF"] if "bad" not in name else b"no image")
    (letter,) = letter_files(letters, "ñandú <b>", 1)
    unread, text = predict(letter, search_store / "deep", top_k=2)
    rows = {Path(row["path"]).name: row for row in json.loads(text)}
    assert next(iter(rows)) == letter.name
    assert set(rows) == {letter.name, "one.gif", "two.gif", "bad.gif"}
    assert unread == 1
    assert rows["bad.gif"] | {"path": ""} == {
        "path": "",
        "prediction": None,
        "probability": None,
        "error": "not an image of a known format",
        "top_k": None,
    }
    assert rows["one.gif"]["probability"] == pytest.approx(rows["two.gif"]["probability"], abs=1e-6)
    assert rows[letter.name]["prediction"] == "ñandú <b>" == rows[letter.name]["top_k"][0]["label"]
    assert "ñandú <b>" in text


@pytest.mark.parametrize("top_k", [0, 2, 99])
def test_the_csv_has_the_columns_that_it_promises(search_store: Path, letters: Path, top_k: int) -> None:
    (search_store / 'bad, "quoted".png').write_bytes(NO_IMAGES["cut"])
    unread, text = predict(*letter_files(letters, "o", 2), search_store, output="csv", top_k=top_k)
    reader = csv.DictReader(io.StringIO(text))
    *good, bad = reader
    likely = range(1, min(top_k, 3) + 1)
    extra = [name for place in likely for name in (f"label_{place}", f"probability_{place}")]
    assert reader.fieldnames == ["path", "prediction", "probability", "error", *extra]
    assert unread == 1
    assert Path(bad.pop("path")).name == 'bad, "quoted".png'
    assert {name for name, value in bad.items() if value} == {"error"}
    for row in good:
        assert row["prediction"] == "o"
        assert 1 / 3 < float(row["probability"]) <= 1
        if top_k:
            assert (row["label_1"], row["probability_1"]) == ("o", row["probability"])


def test_many_files_are_answered_batch_by_batch(search_store: Path) -> None:
    for number in range(130):
        (search_store / f"{number:03d}.gif").write_bytes(ODD_IMAGES["GIF"] if number != 64 else b"")
    unread, text = predict(search_store)
    rows = json.loads(text)
    assert [Path(row["path"]).name for row in rows] == sorted(path.name for path in search_store.iterdir())
    assert [number for number, row in enumerate(rows) if row["error"]] == [64]
    assert unread == 1


def test_what_cannot_be_opened_is_a_row(search_store: Path) -> None:
    os.mkfifo(search_store / "pipe.png")
    (search_store / "one.gif").write_bytes(ODD_IMAGES["GIF"])
    unread, text = predict(search_store / "pipe.png", search_store / "one.gif")
    assert [row["error"] for row in json.loads(text)] == ["cannot be read: not a regular file", None]
    assert unread == 1


def test_a_name_that_is_not_utf8_is_answered(search_store: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(search_store) + b"/caf\xe9.gif"))
    odd.write_bytes(ODD_IMAGES["GIF"])
    unread, text = predict(search_store)
    (row,) = json.loads(text)
    assert unread == 0
    assert row["path"] == f"{search_store}/caf\\xe9.gif"


def test_a_sample_leaves_out_what_cannot_be_read(search_store: Path) -> None:
    (search_store / "1.gif").write_bytes(ODD_IMAGES["GIF"])
    os.mkfifo(search_store / "pipe.png")
    assert sample_files([]) == []
    assert sample_files([search_store]) == [ODD_IMAGES["GIF"]]


def test_places_that_cannot_work_are_sentences(search_store: Path) -> None:
    (search_store / "empty").mkdir()
    with pytest.raises(ImageSourceError, match=r"^There is no file or folder .*gone: check the path\.$"):
        predict(search_store / "gone")
    with pytest.raises(ImageSourceError, match=r"^There are no files in .*empty\.$"):
        predict(search_store / "empty")
    with pytest.raises(ModelError, match=r"^--top-k is -1: it must be 0 or more\.$"):
        predict(search_store, top_k=-1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("models:/letters@nobody", "."), "The model models:/letters@nobody cannot be loaded"),
        (("models:/letters/77", "."), "The model models:/letters/77 cannot be loaded"),
        (("gone", "."), "The model gone cannot be loaded"),
        ((CHAMPION, "gone"), "There is no file or folder gone"),
        ((CHAMPION, ".", "--top-k", "-2"), "--top-k is -2"),
    ],
)
def test_the_command_ends_with_one_sentence(
    search_store: Path,
    finished_search: FinishedSearch,
    arguments: tuple[str, ...],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (search_store / "image.gif").write_bytes(ODD_IMAGES["GIF"])
    monkeypatch.setattr(sys, "argv", ["tuner", "predict", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"tuner: {expected}")
    assert len(captured.err.strip().splitlines()) == 1
