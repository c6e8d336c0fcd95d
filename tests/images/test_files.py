"""What did not change is not read again, and what changed is; what is no class and no image."""

import os
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.sources import sha256
from tuner.images.files import RememberedDigests, is_passed_over, is_system_folder


class Source:
    """A folder of files, with a memory, and a hash that says what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.memory, self.asked = folder / "images", folder / "digests", list[str]()
        self.folder.mkdir()

    def write(self, name: str, content: bytes, seconds_ago: float = 60) -> None:
        (self.folder / name).write_bytes(content)
        changed = time.time() - seconds_ago
        os.utime(self.folder / name, (changed, changed))

    def hash(self, listing: pd.DataFrame) -> pd.DataFrame:
        self.asked += [Path(path).name for path in listing["path"]]
        contents = [Path(path).read_bytes() if Path(path).exists() else None for path in listing["path"]]
        return listing.assign(
            digest=["" if content is None else sha256(content) for content in contents],
            bytes=[len(content or b"") for content in contents],
            error=["cannot be read" if content is None else None for content in contents],
        )

    def hashed(self, *names: str) -> tuple[pd.DataFrame, list[str]]:
        """The files of these names, hashed, and those that were read for it."""
        listing = pd.DataFrame({"path": [str(self.folder / name) for name in names], "label": "a"})
        listing.index += 7
        self.asked.clear()
        found = RememberedDigests(self.memory, listing).hashed(listing, self.hash)
        assert list(found.index) == list(listing.index)
        assert list(found["path"]) == list(listing["path"])
        for row in found.itertuples():
            content = Path(row.path).read_bytes() if Path(row.path).exists() else None
            assert (row.digest, row.bytes) == (
                ("", 0) if content is None else (sha256(content), len(content))
            )
        return found, list(self.asked)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    source = Source(tmp_path)
    source.write("one.png", b"one")
    source.write("two.png", b"two")
    return source


def test_what_did_not_change_is_not_read_again(source: Source):
    found, asked = source.hashed("one.png", "two.png")
    assert asked == ["one.png", "two.png"]
    again, asked = source.hashed("one.png", "two.png")
    assert asked == []
    pd.testing.assert_frame_equal(again, found, check_dtype=False)
    source.write("three.png", b"three")
    assert source.hashed("two.png", "three.png", "one.png")[1] == ["three.png"]
    assert source.hashed("one.png", "two.png", "three.png")[1] == []


@pytest.mark.parametrize(("content", "seconds_ago"), [(b"ONE", 30), (b"longer", 60)])
def test_what_has_another_time_or_size_is_read(source: Source, content: bytes, seconds_ago: float):
    source.hashed("one.png", "two.png")
    source.write("one.png", content, seconds_ago)
    assert source.hashed("one.png", "two.png")[1] == ["one.png"]


def test_what_was_written_just_now_is_read_again(source: Source):
    source.write("one.png", b"now", seconds_ago=0)
    assert source.hashed("one.png", "two.png")[1] == ["one.png", "two.png"]
    assert source.hashed("one.png", "two.png")[1] == ["one.png"]


def test_what_cannot_be_read_is_tried_again(source: Source):
    for _ in range(2):
        found, asked = source.hashed("one.png", "gone.png")
        assert list(found["error"]) == [None, "cannot be read"]
        assert "gone.png" in asked


@pytest.mark.parametrize("damage", [b"", b"no parquet"])
def test_a_memory_that_is_damaged_is_made_anew(source: Source, damage: bytes):
    source.hashed("one.png", "two.png")
    (file,) = source.memory.iterdir()
    file.write_bytes(damage)
    assert source.hashed("one.png", "two.png")[1] == ["one.png", "two.png"]
    assert source.hashed("one.png", "two.png")[1] == []


def test_a_memory_that_cannot_be_written_costs_nothing_else(source: Source):
    source.memory.write_bytes(b"a file where the folder would be")
    for _ in range(2):
        assert source.hashed("one.png", "two.png")[1] == ["one.png", "two.png"]


# Names that are passed over


@pytest.mark.parametrize(
    "name",
    [
        *(".git", ".Trash-1000", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information"),
        *("@eaDir", "@__thumb", "#recycle", "~snapshot", "Network Trash Folder", "Temporary Items"),
    ],
)
def test_folders_of_systems_and_servers_are_no_classes(name: str) -> None:
    assert is_system_folder(name)
    assert is_system_folder(name.upper())


@pytest.mark.parametrize("name", ["cat", "@anna", "#1", "~", "_tmp", "trash", "metadata"])
def test_other_folders_may_be_classes(name: str) -> None:
    assert not is_system_folder(name)


def test_what_file_managers_leave_is_no_image() -> None:
    assert all(map(is_passed_over, ("Thumbs.db", "desktop.ini", ".DS_Store", "._1.jpg")))
    assert not is_passed_over("1.jpg")
