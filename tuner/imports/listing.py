"""What is to be imported: each image file of folders and archives, with its class and part of a split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tuner.base.choices import GivenSplit
from tuner.base.errors import ImageSourceError
from tuner.base.uris import local_path
from tuner.images.files import files_below, is_passed_over, is_system_folder, path_text, read_file
from tuner.images.folders import ONE_FOLDER_EACH, is_image
from tuner.images.index import checked_labels
from tuner.images.layout import DIRECTLY, checked_split, hint, odd_names, place, shown_names
from tuner.imports.archives import is_archive, members_of

Content = bytes | None


class Image(NamedTuple):
    """An image file of a source.

    Attributes
    ----------
    number
        Its place in the source.
    path, label, part
        What it is called, its class, and the part of a split that it is in, or None.
    size, stamp
        Bytes, and what tells whether it has changed.
    """

    number: int
    path: str
    label: str
    part: str | None
    size: int
    stamp: str


class _Found(NamedTuple):
    """A file as a source has it; `names` are its folders and its own name, below the source."""

    names: tuple[str, ...]
    size: int
    stamp: str
    fault: str | None
    read: Callable[[], Content]


@dataclass(frozen=True)
class Source:
    """A folder or an archive, listed.

    Attributes
    ----------
    path
        Where it is.
    images
        Its images, in the order in which they are read.
    labels
        Their classes.
    left_out
        What cannot be imported, with the reason.
    notes
        Sentences on what is no part of a class, or unusual.
    """

    path: Path
    images: Sequence[Image]
    labels: frozenset[str]
    left_out: Sequence[tuple[str, str]]
    notes: Sequence[str]

    def contents(self, wanted: frozenset[int]) -> Iterator[tuple[Image, Content]]:
        """Read the images of these numbers, one after the other; None where one is damaged.

        Raises
        ------
        ImageSourceError
            The source is not what it was when it was listed.
        """
        listed = {image.number: image for image in self.images if image.number in wanted}
        for number, found in enumerate(_files_of(self.path)):
            image = listed.pop(number, None)
            if image is None:
                continue
            if (found.size, found.stamp) != (image.size, image.stamp):
                raise _changed(self.path)
            yield image, found.read()
            if not listed:
                return
        if listed:
            raise _changed(self.path)


def list_sources(places: Sequence[str], given: GivenSplit | None) -> list[Source]:
    """List folders and archives of class folders.

    Parameters
    ----------
    places
        Paths of this machine. Of several, each image's path begins with its source's name.
    given
        `folders`: they are split already, into folders called train, test and so on.

    Raises
    ------
    ImageSourceError
        One is missing, holds no images, cannot be read, or is not what `given` says.
    """
    paths = [_local(place) for place in places]
    sources = [_list(path, f"{path_text(path.name)}/" if len(paths) > 1 else "", given) for path in paths]
    names = Counter(path.name for path in paths)
    if names and max(names.values()) > 1:
        raise ImageSourceError(
            f"Two of the sources are called {names.most_common(1)[0][0]}, and their images could not be "
            "told apart: rename one, or import them one by one."
        )
    return sources


def digest_of(sources: Sequence[Source]) -> str:
    """Stand for all that is listed: 64 hex digits."""
    digest = hashlib.sha256()
    for source in sources:
        for image in source.images:
            digest.update(repr(tuple(image)).encode("utf-8", "backslashreplace") + b"\n")
    return digest.hexdigest()


def _local(given: str) -> Path:
    if not given:
        raise ImageSourceError("There are no images to import: give --images, a folder or an archive.")
    try:
        path = local_path(given)
    except ValueError as error:
        raise ImageSourceError(f"The images {given} are no path: {error}.") from error
    if path is None:
        raise ImageSourceError(
            f"Images are imported from this machine, and {given} is elsewhere: a search reads it there."
        )
    if not path.exists():
        raise ImageSourceError(f"There is no folder or archive {given}: check --images.")
    if not path.is_dir() and not is_archive(path):
        raise ImageSourceError(
            f"{path} is neither a folder nor an archive (.zip, .tar, .tar.gz, .tar.bz2, .tar.xz): give one."
        )
    return path.absolute()


def _files_of(path: Path) -> Iterator[_Found]:
    if path.is_dir():
        return _files_in(path)
    return (_Found(*member) for member in members_of(path))


def _files_in(folder: Path) -> Iterator[_Found]:
    for file in _below(folder):
        try:
            status = file.stat()
        except OSError:  # a link that leads nowhere: `read_file` tells
            size, stamp = 0, ""
        else:
            size, stamp = status.st_size, str(status.st_mtime_ns)
        names = tuple(path_text(part) for part in file.relative_to(folder).parts)
        yield _Found(names, size, stamp, None, lambda file=file: read_file(str(file))[0])  # type: ignore[misc]


def _below(folder: Path) -> Iterator[Path]:
    try:
        yield from files_below(folder, set())
    except OSError as error:
        raise ImageSourceError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error


def _list(path: Path, prefix: str, given: GivenSplit | None) -> Source:
    passed, left_out, seen = set[str](), [], set[tuple[str, ...]]()
    files: list[tuple[int, _Found]] = []
    for number, found in enumerate(_files_of(path)):
        system = next((name for name in found.names[:-1] if is_system_folder(name)), None)
        if system:
            passed.add(system)
        elif not found.names:
            left_out.append((f"{prefix}#{number}", "its name leads out of the archive"))
        elif is_passed_over(found.names[-1]):
            continue
        elif found.names in seen:
            left_out.append((prefix + "/".join(found.names), "stands there twice"))
        elif found.fault:
            left_out.append((prefix + "/".join(found.names), found.fault))
        else:
            files.append((number, found._replace(read=_nothing)))
            seen.add(found.names)
    return _placed(path, prefix, given, files, passed, left_out)


def _nothing() -> None:
    """Stand for what read a file: to list is not to hold."""


def _placed(
    path: Path,
    prefix: str,
    given: GivenSplit | None,
    files: Sequence[tuple[int, _Found]],
    passed: set[str],
    left_out: list[tuple[str, str]],
) -> Source:
    source, notes = str(path), []
    outer = _outer_folder(files) if not path.is_dir() else ()
    if outer:
        notes.append(f"The class folders of {source} are those in its folder {'/'.join(outer)}")
    cut = len(outer)
    tree: dict[str, Counter[str]] = {}
    for _, found in files:
        names = found.names[cut:]
        if len(names) > 1:
            inner = names[1] if len(names) > 2 else DIRECTLY
            tree.setdefault(names[0], Counter())[inner] += is_image(names[-1])
    split = checked_split(tree, source, given)
    images: list[Image] = []
    loose = 0
    for number, found in files:
        names = found.names[cut:]
        inner = names[1] if len(names) > 2 else DIRECTLY
        label, part = (place(names[0], inner, split) or (None, None)) if len(names) > 1 else (None, None)
        if label is None:
            loose += 1
        else:
            images.append(Image(number, prefix + "/".join(names), label, part, found.size, found.stamp))
    labels = frozenset(image.label for image in images)
    checked_labels(
        list(labels), source, "class folder", ONE_FOLDER_EACH + hint(tree, source), training=False
    )
    if loose:
        notes.append(f"{loose} file(s) of {source} belong to no class and are left out")
    if passed:
        notes.append(
            f"Hidden and system folder(s) in {source} are passed over: {shown_names(sorted(passed))}"
        )
    return Source(path, images, labels, left_out, [*notes, *odd_names(tree, source, given)])


def _outer_folder(files: Sequence[tuple[int, _Found]]) -> tuple[str, ...]:
    """The folders that an archive wraps its class folders in: each is the only one, and holds folders."""
    outer: tuple[str, ...] = ()
    images = [found.names for _, found in files if len(found.names) > 1 and is_image(found.names[-1])]
    while images:
        below = [names[len(outer) :] for names in images if len(names) > len(outer) + 1]
        deep = [names for names in below if len(names) > 2]
        folders = {names[1] for names in deep}
        wraps = len(folders) > 1 or (len(folders) == 1 and all(len(names) > 3 for names in below))
        if len({names[0] for names in below}) != 1 or not wraps or 2 * len(deep) <= len(below):
            break
        outer = (*outer, below[0][0])
    return outer


def _changed(path: Path) -> ImageSourceError:
    return ImageSourceError(f"{path} changed while it was imported: start again.")
