import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tuner.base.uris import expanded, file_uri, hadoop_path, hadoop_uri, literal, local_path

# Names of files: any bytes but two; also such as are no UTF-8, and such as look encoded.
part = st.binary(min_size=1, max_size=12).filter(
    lambda name: not {0, ord("/")} & set(name) and name not in (b".", b"..")
).map(os.fsdecode) | st.sampled_from(
    ["my projects #1 é", "50%20", "%41", "a?b", "{x}", "[1]", "a:b", "~", "file:", "ফুল", "a\\b"]
)
paths = st.lists(part, min_size=1, max_size=4).map(lambda parts: Path("/", *parts))


@given(paths)
@example(Path("/my projects #1 é/50%20"))
def test_a_path_comes_back_from_its_uris(path: Path) -> None:
    assert local_path(file_uri(path)) == path
    assert hadoop_path(hadoop_uri(path)) == path
    assert hadoop_path(str(path)) == path
    assert file_uri(path).isascii()
    assert not {" ", "#", "?", '"', "'", "\\", "$", "{"} & set(file_uri(path))


@given(paths.filter(lambda path: not str(path).isascii() or {" ", "#", "?"} & set(str(path))))
def test_a_uri_that_was_not_encoded_is_taken_as_it_stands(path: Path) -> None:
    assert local_path(hadoop_uri(path)) == path


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("file:///a%20b", "/a b"),
        ("file:/a%20b", "/a b"),
        ("file://localhost/a", "/a"),
        ("FILE:///a", "/a"),
        ("file:///my photos/50%20", "/my photos/50%20"),
        ("a:b/c", "a:b/c"),
        ("C:/photos", "C:/photos"),
        ("~", "/home/me"),
        ("~/x y", "/home/me/x y"),
        ("/a/~/b", "/a/~/b"),
        ("$HOME/x", "$HOME/x"),
        ("hdfs://host/a", None),
        ("s3a://bucket/a b", None),
    ],
)
def test_what_users_give_is_understood(
    place: str, path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path(place) == (None if path is None else Path(path))


def test_a_home_that_is_not_known_is_said() -> None:
    with pytest.raises(
        ValueError, match=r"^~nobody-at-all/x begins with a home folder that is not known here"
    ):
        expanded(Path("~nobody-at-all/x"))


def test_a_literal_has_no_pattern() -> None:
    assert literal("file:///a [1]{2}*?\\b") == r"file:///a \[1\]\{2\}\*\?\\b"
