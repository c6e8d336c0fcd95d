import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.base.errors import CacheError
from tuner.base.files import file_digest, files_of, private_folder, write_aside, writing

names = st.text("abc", min_size=1, max_size=3)
trees = st.dictionaries(st.tuples(names, names).map("/".join), st.binary(max_size=4), max_size=4)


def make(folder: Path, tree: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for place, content in tree.items():
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_bytes(content)
    return folder


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"content").hexdigest()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(one=trees, other=trees)
def test_two_folders_have_one_digest_exactly_if_their_files_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    place = tmp_path_factory.mktemp("folders")
    first = make(place / "first", one)
    again = make(place / "again", dict(reversed(one.items())))
    second = make(place / "second", other)
    assert file_digest(first) == file_digest(again)
    assert (file_digest(first) == file_digest(second)) == (one == other)
    assert [file.relative_to(first).as_posix() for file in files_of(first)] == sorted(one)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "target.txt"
    target.write_text("before")

    def fail(aside: Path) -> None:
        aside.write_text("hal")
        assert target.read_text() == "before"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_aside(target, fail)
    assert target.read_text() == "before"
    write_aside(target, lambda aside: aside.write_text("after"))
    assert target.read_text() == "after"
    assert list(tmp_path.iterdir()) == [target]


def test_what_the_system_refuses_is_one_sentence_with_an_advice() -> None:
    with (
        pytest.raises(CacheError) as caught,
        writing("The store", Path("/proc/none"), "choose another folder"),
    ):
        Path("/proc/none").mkdir()
    assert str(caught.value) == (
        "The store /proc/none cannot be written (No such file or directory): choose another folder."
    )
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(ValueError, match="another mistake"), writing("The store", Path("x"), "advice"):
        raise ValueError("another mistake")


def test_the_private_folder_is_one_for_all_of_a_users_processes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = private_folder()
    assert folder == private_folder() == tmp_path / f"tuner-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("taken", ["a link", "a file", "open to all", "another user's"])
def test_a_private_folder_whose_name_somebody_took_is_another_one(
    tmp_path: Path, monkeypatch, taken: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = tmp_path / f"tuner-{os.getuid()}"
    (tmp_path / "victim").mkdir(mode=0o700)
    match taken:
        case "a link":
            place.symlink_to(tmp_path / "victim")
        case "a file":
            place.touch()
        case "open to all":
            place.mkdir()
            place.chmod(0o777)
        case _:
            if os.geteuid() != 0:
                pytest.skip("only root gives a folder away")
            place.mkdir(mode=0o700)
            os.chown(place, 12345, 12345)
    folder = private_folder()
    assert folder != place
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "victim").iterdir()) == []
