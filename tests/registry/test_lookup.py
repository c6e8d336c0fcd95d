"""Images found by their content, with and without Spark."""

import hashlib
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tuner.registry.lookup import look_up
from tuner.spark.sessions import DriverSession


def no_session() -> DriverSession:
    raise AssertionError("Spark is not needed")


def digest_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_folder_is_read_without_spark(letters: Path):
    files = [letters / "A" / "00.png", letters / "o" / "03.png"]
    digests = [digest_of(file) for file in files]
    found = look_up([*digests, "0" * 64], [str(letters)], no_session, known={}, splits={}, given={})
    assert found.labels == {digests[0]: ["A"], digests[1]: ["o"]}
    assert (found.unread, found.certain) == ({}, True)
    assert found.files(digests[::-1]) == [file.read_bytes() for file in files[::-1]]


def test_places_are_read_in_turn_until_all_is_found(letters: Path, tmp_path: Path):
    first, gone = tmp_path / "first", tmp_path / "gone"
    for label, file in (("A", "00.png"), ("o", "00.png")):
        (first / label).mkdir(parents=True)
        shutil.copy(letters / label / file, first / label)
    (first / "A" / "00.png").rename(first / "o" / "other.png")
    shutil.copy(letters / "A" / "01.png", first / "A")
    moved, only_later = (digest_of(letters / "A" / name) for name in ("00.png", "05.png"))
    places = [str(gone), str(first), str(letters)]
    found = look_up([moved, only_later], places, no_session, known={}, splits={}, given={})
    assert found.labels == {moved: ["o"], only_later: ["A"]}
    assert (list(found.unread), found.certain) == ([str(gone)], True)
    unsure = look_up(
        [moved, only_later], [str(first), str(gone)], no_session, known={}, splits={}, given={}
    )
    assert (unsure.labels, unsure.certain) == ({moved: ["o"]}, False)


def test_a_file_that_changed_meanwhile_is_not_read(letters: Path, tmp_path: Path):
    folder = shutil.copytree(letters, tmp_path / "letters")
    file = folder / "A" / "00.png"
    digest = digest_of(file)
    found = look_up([digest], [str(folder)], no_session, known={}, splits={}, given={})
    shutil.copy(folder / "o" / "00.png", file)
    assert found.files([digest]) == [None]


def test_a_built_in_set_is_as_its_search_found_it():
    split = pd.DataFrame({"path": ["a"], "label": ["7"], "digest": ["d"], "part": ["test"]})
    found = look_up(
        ["d"], ["builtin:digits"], no_session, known={}, splits={"builtin:digits": split}, given={}
    )
    assert (found.labels, found.certain) == ({"d": ["7"]}, True)


def test_what_only_spark_can_read_starts_it(driver: DriverSession, letters: Path, tmp_path: Path):
    started: list[int] = []

    def session() -> DriverSession:
        started.append(1)
        return driver

    files = [letters / "A" / "00.png", letters / "o" / "00.png"]
    table = str(tmp_path / "letters.parquet")
    contents = pd.DataFrame({"content": [file.read_bytes() for file in files], "label": ["A", "o"]})
    contents.to_parquet(table)
    found = look_up([digest_of(files[0]), "0" * 64], [table], session, known={}, splits={}, given={})
    assert started
    assert (found.labels, found.certain) == ({digest_of(files[0]): ["A"]}, True)
    with pytest.raises(AssertionError, match="Spark is not needed"):
        look_up(["0" * 64], [table], no_session, known={}, splits={}, given={})


def test_the_built_in_digits_are_read_without_spark():
    found = look_up(["0" * 64], ["builtin:digits"], no_session, known={}, splits={}, given={})
    assert (found.labels, found.certain) == ({}, True)
