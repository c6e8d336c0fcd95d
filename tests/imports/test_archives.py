import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.base.errors import ImageSourceError
from tuner.imports import archives
from tuner.imports.archives import Member, is_archive, members_of

FILES = {"cat/1.png": b"one", "cat/deep/ñ.png": b"two" * 1000, "dog/3.png": b"", "loose.txt": b"x" * 511}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "a.zip": make_zip,
    "a.tar": make_tar,
    "a.tar.gz": lambda path, files: make_tar(path, files, "w:gz"),
    "a.tar.bz2": lambda path, files: make_tar(path, files, "w:bz2"),
    "a.tar.xz": lambda path, files: make_tar(path, files, "w:xz"),
}


def read_all(path: Path) -> dict[str, bytes | None]:
    return {"/".join(member.names): member.read() for member in members_of(path)}


def members(path: Path) -> list[Member]:
    return list(members_of(path))


@pytest.mark.parametrize("name", MAKERS)
def test_every_kind_gives_its_files_in_order(name: str, tmp_path: Path) -> None:
    path = MAKERS[name](tmp_path / name, FILES)
    assert is_archive(path)
    assert read_all(path) == FILES
    assert list(read_all(path)) == list(FILES)
    assert [member.size for member in members(path)] == [len(content) for content in FILES.values()]
    assert list(tmp_path.iterdir()) == [path]  # nothing was unpacked


@pytest.mark.parametrize("name", MAKERS)
def test_what_comes_between_members_is_passed_over_without_being_read(name: str, tmp_path: Path) -> None:
    path = MAKERS[name](tmp_path / name, FILES)
    last = [member.read() for member in members_of(path) if member.names == ("loose.txt",)]
    assert last == [FILES["loose.txt"]]


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1, max_size=20).filter(
            lambda name: name.strip(". ")
        ),
        st.binary(max_size=2000),
        max_size=5,
    )
)
def test_names_and_contents_of_any_kind_come_back(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("archives")
    inside = {f"class/{name}": content for name, content in files.items()}
    for name in ("a.tar", "a.zip"):
        assert read_all(MAKERS[name](folder / name, inside)) == inside


# What is a stranger's


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../up.png",
        "cat/../../up.png",
        "C:\\x.png",
        "c:/x.png",
        "\\\\host\\x.png",
        "a\\..\\b",
    ],
)
@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_a_name_that_leads_out_is_no_name(name: str, kind: str, tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path / kind, {name: b"x", "cat/1.png": b"y"})
    assert [member.names for member in members(path)] == [(), ("cat", "1.png")]


def test_windows_separators_are_separators(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"cat\\inner\\1.png": b"y", "./dog//2.png": b"z"})
    assert [member.names for member in members(path)] == [("cat", "inner", "1.png"), ("dog", "2.png")]


def test_links_and_devices_are_not_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("s", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE), ("d", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(f"cat/{name}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert [member.fault for member in members(tmp_path / "a.tar")] == ["no regular file"] * 3
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("cat/s.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert [member.fault for member in members(tmp_path / "a.zip")] == ["no regular file"]


def test_what_is_encrypted_is_said(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"cat/1.png": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag in the list of files
    path.write_bytes(content)
    assert [member.fault for member in members(path)] == ["encrypted"]


def test_a_damaged_file_in_a_zip_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/1.png", b"first content")
        archive.writestr("cat/2.png", b"second content")
    path.write_bytes(path.read_bytes().replace(b"first content", b"other content"))
    assert read_all(path) == {"cat/1.png": None, "cat/2.png": b"second content"}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_large_file_is_left_unread(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = MAKERS[kind](tmp_path / kind, FILES)
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 600)
    faults = {"/".join(member.names): member.fault for member in members(path)}
    assert faults.pop("cat/deep/ñ.png") == "too large: 3000 bytes"
    assert set(faults.values()) == {None}


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_a_bomb_is_refused_before_it_is_unpacked(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_ALWAYS", 10**5)
    path = MAKERS[kind](tmp_path / kind, {f"cat/{number}": bytes(10**6) for number in range(20)})
    monkeypatch.setattr(archives, "_MOST_TIMES", 10)
    seen = []
    with pytest.raises(ImageSourceError, match="unpacks to more than 10 times its size"):
        seen.extend(member.names for member in members_of(path))
    assert len(seen) < 5


def test_a_header_that_asks_for_everything_is_refused(tmp_path: Path) -> None:
    """A name or an extended header of gigabytes would be read into memory whole."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**33
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(ImageSourceError, match="unpacks to more than"):
        members(tmp_path / "a.tar")


def test_a_member_that_promises_terabytes_is_refused_before_it_is_passed_over(tmp_path: Path) -> None:
    info = tarfile.TarInfo("cat/1.png")
    info.size = 2**40
    (tmp_path / "a.tgz").write_bytes(gzip.compress(info.tobuf() + bytes(10240)))
    with pytest.raises(ImageSourceError, match="unpacks to more than"):
        members(tmp_path / "a.tgz")


def test_a_sparse_file_of_terabytes_is_left_out(tmp_path: Path) -> None:
    info = tarfile.TarInfo("cat/1.png")
    info.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    assert [member.fault for member in members(tmp_path / "a.tar")] == ["no regular file"]


@pytest.mark.parametrize("kind", MAKERS)
def test_an_archive_that_is_cut_off_is_one_sentence(kind: str, tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path / kind, {"cat/1.png": os.urandom(50_000), "cat/2.png": b"x"})
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(
        ImageSourceError, match=r"The archive .* cannot be read \(.+\): give a zip or tar"
    ) as e:
        read_all(path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no tar", mtime=0), bz2.compress(b""), b"PK\3\4"],
    ids=["empty", "text", "gzip", "bzip2", "zip"],  # the same in every process that collects it
)
def test_what_is_no_archive_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ImageSourceError, match="cannot be read"):
        read_all(tmp_path / "a.zip")


def test_an_archive_of_another_name_is_told_by_its_content(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", FILES)
    (tmp_path / "b.zip").write_bytes(lzma.compress((tmp_path / "a.tar").read_bytes()))
    assert read_all(tmp_path / "b.zip") == FILES


def test_members_are_not_kept(tmp_path: Path) -> None:
    """tarfile's own list of members, which is no documented part of it, would grow without end."""
    make_tar(tmp_path / "a.tar", {f"cat/{number}": b"x" for number in range(10)})
    with warnings.catch_warnings(), tarfile.open(tmp_path / "a.tar") as tar:
        kept = [len(tar.members) for _ in archives._taped(tmp_path / "a.tar", tar)]
    assert kept == [0] * 10


@pytest.mark.parametrize("name", ["a.ZIP", "a.tgz", "a.b.tar.gz", "x.tbz2", "x.txz"])
def test_archives_are_known_by_their_names(name: str) -> None:
    assert is_archive(Path(name))
    assert not is_archive(Path(f"{name}.png"))
