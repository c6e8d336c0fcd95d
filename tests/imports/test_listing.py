from pathlib import Path

import pytest

from tests.imports.test_archives import MAKERS, make_tar, make_zip
from tuner.base.errors import ImageSourceError
from tuner.imports import archives
from tuner.imports.listing import Source, digest_of, list_sources

FILES = {"cat/1.png": b"one", "cat/deep/2.png": b"two", "dog/3.png": b"three", "dog/notes.txt": b"four"}


def make_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


ALL = {**MAKERS, "a": make_folder}


def list_one(path: Path, given: str | None = None) -> Source:
    (source,) = list_sources([str(path)], given)
    return source


def read(source: Source, numbers: set[int] | None = None) -> dict[str, bytes | None]:
    wanted = {image.number for image in source.images} if numbers is None else numbers
    return {image.path: content for image, content in source.contents(frozenset(wanted))}


@pytest.mark.parametrize("name", ALL)
def test_a_source_has_paths_classes_and_contents(name: str, tmp_path: Path) -> None:
    source = list_one(ALL[name](tmp_path / name, FILES))
    assert {image.path: image.label for image in source.images} == {
        path: path.partition("/")[0] for path in FILES
    }
    assert source.labels == {"cat", "dog"}
    assert read(source) == FILES
    assert (source.left_out, source.notes) == ([], [])


@pytest.mark.parametrize("name", ALL)
def test_only_what_is_wanted_is_read(name: str, tmp_path: Path) -> None:
    source = list_one(ALL[name](tmp_path / name, FILES))
    numbers = {image.number for image in source.images if image.label == "dog"}
    assert read(source, numbers) == {"dog/3.png": b"three", "dog/notes.txt": b"four"}
    assert read(source, set()) == {}


@pytest.mark.parametrize("name", ALL)
def test_what_belongs_to_no_class_is_counted(name: str, tmp_path: Path) -> None:
    beside = {"README": b"x", ".hidden": b"x", "__MACOSX/cat/1.png": b"x", "cat/Thumbs.db": b"x"}
    source = list_one(ALL[name](tmp_path / name, {**FILES, **beside}))
    assert read(source) == FILES
    assert source.notes[0] == f"1 file(s) of {tmp_path / name} belong to no class and are left out"
    folder = name == "a"  # whose system folders are not even entered
    assert len(source.notes) == (1 if folder else 2)
    assert folder or source.notes[1].endswith("are passed over: __MACOSX")


@pytest.mark.parametrize("wrap", ["flowers", "data/flowers 17"])
def test_the_folder_that_an_archive_wraps_its_classes_in_is_no_class(wrap: str, tmp_path: Path) -> None:
    files = {f"{wrap}/{name}": content for name, content in FILES.items()}
    wrapped = make_zip(tmp_path / "a.zip", {**files, f"{wrap}/README.txt": b"x", "LICENSE": b"x"})
    source = list_one(wrapped)
    assert read(source) == FILES
    assert source.notes == [
        f"The class folders of {wrapped} are those in its folder {wrap}",
        f"2 file(s) of {wrapped} belong to no class and are left out",
    ]


def test_a_folder_is_not_unwrapped_as_a_search_does_not(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", {f"flowers/{name}": content for name, content in FILES.items()})
    assert list_one(tmp_path / "a").labels == {"flowers"}


SPLIT = {f"{part}/{name}": content for part in ("train", "test") for name, content in FILES.items()}


@pytest.mark.parametrize("name", ALL)
def test_a_split_is_kept_or_refused(name: str, tmp_path: Path) -> None:
    path = ALL[name](tmp_path / name, SPLIT)
    with pytest.raises(ImageSourceError, match=r"look like the parts of a split"):
        list_one(path)
    source = list_one(path, "folders")
    assert {(image.part, image.label) for image in source.images} == {
        (part, label) for part in ("train", "test") for label in ("cat", "dog")
    }
    with pytest.raises(ImageSourceError, match="holds no split"):
        list_one(ALL[name](tmp_path / f"b{name}", FILES), "folders")


def test_paths_of_several_sources_begin_with_their_names(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", {"cat/1.png": b"x"})
    make_folder(tmp_path / "b", {"cat/1.png": b"y"})
    sources = list_sources([str(tmp_path / "a.zip"), str(tmp_path / "b")], None)
    assert [image.path for source in sources for image in source.images] == [
        "a.zip/cat/1.png",
        "b/cat/1.png",
    ]


def test_what_cannot_be_imported_is_listed_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 600)
    odd = {"../x.png": b"x", "cat/large.png": bytes(601), "cat//1.png": b"again"}
    source = list_one(make_tar(tmp_path / "a.tar", {**FILES, **odd}))
    assert read(source) == FILES
    assert source.left_out == [
        ("#4", "its name leads out of the archive"),
        ("cat/large.png", "too large: 601 bytes"),
        ("cat/1.png", "stands there twice"),
    ]


@pytest.mark.parametrize("name", ALL)
def test_a_source_that_changes_meanwhile_is_told(name: str, tmp_path: Path) -> None:
    source = list_one(ALL[name](tmp_path / name, FILES))
    ALL[name](tmp_path / name, {**FILES, "cat/1.png": b"longer than it was"})
    with pytest.raises(ImageSourceError, match="changed while it was imported: start again"):
        read(source)


def test_a_source_that_lost_files_is_told(tmp_path: Path) -> None:
    source = list_one(make_zip(tmp_path / "a.zip", FILES))
    make_zip(tmp_path / "a.zip", {"cat/1.png": b"one"})
    with pytest.raises(ImageSourceError, match="changed while it was imported"):
        read(source)


@pytest.mark.parametrize("name", ALL)
def test_the_digest_stands_for_what_is_listed(name: str, tmp_path: Path) -> None:
    path = ALL[name](tmp_path / name, FILES)
    before = digest_of([list_one(path)])
    assert digest_of([list_one(path)]) == before
    ALL[name](path, {**FILES, "cat/1.png": b"longer"})
    assert digest_of([list_one(path)]) != before


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("", "There are no images to import: give --images"),
        ("nowhere", "There is no folder or archive nowhere"),
        ("hdfs://host/photos", "is elsewhere: a search reads it there"),
        ("~nobody-here/photos", "is a home folder|home folder that is not known"),
        ("file.png", "is neither a folder nor an archive"),
        ("empty", "There is no class folder in .*empty: give a folder with one folder of images"),
    ],
)
def test_a_source_that_cannot_be_is_refused(
    place: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.png").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageSourceError, match=sentence):
        list_sources([place], None)


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        make_folder(tmp_path / folder / "photos", FILES)
    with pytest.raises(ImageSourceError, match="Two of the sources are called photos"):
        list_sources([str(tmp_path / folder / "photos") for folder in ("one", "two")], None)


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", FILES)
    (tmp_path / "a" / "cat" / "loop").symlink_to(tmp_path / "a")
    assert (
        read(list_one(tmp_path / "a")) == FILES
    )  # a folder that a link leads back to is not entered again
