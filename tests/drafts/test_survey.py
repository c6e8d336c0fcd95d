from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import glyph
from tuner.base.errors import ImageSourceError
from tuner.drafts.survey import survey


def fill(folder: Path, counts: dict[str, int], side: int = 32, mode: str = "RGB") -> Path:
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            Image.new(mode, (side, 2 * side), number).save(folder / label / f"{number:04d}.png")
    return folder


def test_classes_are_counted_and_sizes_seen(tmp_path: Path) -> None:
    found = survey(str(fill(tmp_path / "a", {"cat": 12, "dog": 30})))
    assert found.counts == {"cat": 12, "dog": 30}
    assert (found.total, found.fewest, found.imbalance) == (42, 12, 2.5)
    assert (found.side, found.gray, found.given) == (32, False, None)
    assert found.notes == ()
    assert found.source == tmp_path / "a"


def test_gray_pictures_are_gray_in_whatever_mode(tmp_path: Path) -> None:
    for number in range(3):
        for letter in "XO":
            (tmp_path / letter).mkdir(exist_ok=True)
            glyph(letter, number).convert("RGB").save(tmp_path / letter / f"{number}.png")
    assert survey(str(tmp_path)).gray


def test_what_is_odd_is_said(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", {"cat": 40, "dog": 9, "cow": 12})
    (folder / "cat" / "notes.txt").write_text("no image")
    (folder / "cat" / "broken.jpg").write_bytes(b"\xff\xd8")
    (folder / "loose.png").touch()
    notes = " | ".join(survey(str(folder)).notes)
    for said in (
        "1 file(s) directly in",
        "not called as images are (1 .txt)",
        "fewer than 10 images, which is little to learn and to test: dog (9)",
        "cat has 42 images, dog has 9",
        "2 of 63 files that were opened cannot be read",
        "broken.jpg",
    ):
        assert said in notes


def test_of_many_images_a_sample_of_all_classes_is_opened(tmp_path: Path) -> None:
    folder = fill(tmp_path, {"cat": 500, "dog": 200}, side=2)
    for number in range(195, 200):
        (folder / "dog" / f"{number:04d}.png").write_bytes(b"")
    (note,) = survey(str(folder)).notes
    assert "of 200 files that were opened cannot be read" in note


def test_a_folder_that_is_split_is_known_as_split(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"cat": 10, "dog": 10})
    fill(tmp_path / "test", {"cat": 3, "dog": 4})
    found = survey(str(tmp_path))
    assert found.given == "folders"
    assert found.counts == {"cat": 13, "dog": 14}
    assert set(found.listing["given"]) == {"train", "test"}


@pytest.mark.parametrize(
    "source", ["nowhere", "file.png", "hdfs://host/a", "table:photos", "builtin:digits"]
)
def test_what_is_no_folder_of_this_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.png").touch()
    with pytest.raises(ImageSourceError, match="tuner new --example"):
        survey(source)


def test_a_folder_of_parquet_and_one_of_one_class_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "part-0.parquet").touch()
    with pytest.raises(ImageSourceError, match="holds Parquet files"):
        survey(str(tmp_path / "a"))
    with pytest.raises(ImageSourceError, match="only the class cat"):
        survey(str(fill(tmp_path / "b", {"cat": 3})))
