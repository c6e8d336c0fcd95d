"""What a folder of images holds, as far as a first experiment asks: classes, sizes, and what is odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tuner.base.choices import GivenSplit
from tuner.base.errors import ImageError, ImageSourceError
from tuner.base.uris import local_path
from tuner.images.decoding import decode_image
from tuner.images.files import read_file
from tuner.images.folders import ListedImages, LocalFolder, is_image, list_images
from tuner.images.layout import shown_names

_SAMPLE = 200  # images that are opened; all of a large set would take minutes
_FEW = 10  # images of a class, below which a score says little
_SHOWN = 5
UNEVEN = 3  # times as many images in the largest class as in the smallest


@dataclass(frozen=True)
class Survey:
    """What is known of a folder of images.

    Attributes
    ----------
    source
        The folder.
    given
        Whether it is split already, and how.
    counts
        How many images each class has, in the order of the classes.
    listing
        The files: columns `path`, `label` and, where the folder is split, `given`.
    side
        The median of the shorter sides in pixels, of a sample.
    gray
        Whether all of the sample are gray.
    notes
        Sentences on what is unusual.
    """

    source: Path
    given: GivenSplit | None
    counts: dict[str, int]
    listing: pd.DataFrame
    side: int
    gray: bool
    notes: tuple[str, ...]

    @property
    def total(self) -> int:
        """The number of images."""
        return sum(self.counts.values())

    @property
    def fewest(self) -> int:
        """The number of images of the smallest class."""
        return min(self.counts.values())

    @property
    def imbalance(self) -> float:
        """How many times as many images the largest class has as the smallest."""
        return max(self.counts.values()) / self.fewest


def survey(source: str) -> Survey:
    """Look at a folder of class folders of this machine.

    Raises
    ------
    ImageSourceError
        It is not there, holds no classes, or is no such folder.
    """
    place = local_path(source) if not source.startswith(("table:", "builtin:")) else None
    if place is None or not place.is_dir():
        why = "is no folder of this machine" if place is None or place.exists() else "is not there"
        raise ImageSourceError(
            f"{source} {why}: give a folder with one folder of images for each class, or take an "
            "example (tuner new --example) and change its images."
        )
    folder = LocalFolder.list(place.absolute())
    if folder.is_table:
        raise ImageSourceError(
            f"{source} holds Parquet files: take an example (tuner new --example) and change its images."
        )
    given, listed = _listed(folder)
    counts = Counter(listed.listing["label"])
    sizes, unread = _sampled(listed.listing)
    notes = [*listed.notes, *_odd_files(listed.listing["path"]), *_about_classes(counts), *unread]
    return Survey(
        source=place.absolute(),
        given=given,
        counts={label: counts[label] for label in listed.labels},
        listing=listed.listing,
        side=int(np.median([side for side, _ in sizes])) if sizes else 0,
        gray=bool(sizes) and all(gray for _, gray in sizes),
        notes=tuple(notes),
    )


def holds_tables(place: Path) -> bool:
    """Whether a folder holds Parquet files, and no folders of images."""
    return LocalFolder.list(place.absolute()).is_table


def _listed(folder: LocalFolder) -> tuple[GivenSplit | None, ListedImages]:
    """The images, by the split that the folders are, if they are one."""
    try:
        return None, list_images(folder, None, training=True)
    except ImageSourceError as refused:
        try:
            return "folders", list_images(folder, "folders", training=True)
        except ImageSourceError:
            raise refused from None


def _odd_files(paths: Sequence[str]) -> Iterator[str]:
    odd = Counter(
        Path(path).suffix.lower() or "no ending" for path in paths if not is_image(Path(path).name)
    )
    if odd:
        kinds = ", ".join(f"{count} {ending}" for ending, count in odd.most_common(_SHOWN))
        yield (
            f"{odd.total()} file(s) among the images are not called as images are ({kinds}): what cannot "
            "be read is left out of a search, and listed"
        )


def _about_classes(counts: Counter[str]) -> Iterator[str]:
    few = [f"{label} ({count})" for label, count in counts.items() if count < _FEW]
    if few:
        yield (
            f"{len(few)} class(es) have fewer than {_FEW} images, which is little to learn and to test: "
            f"{shown_names(few)}"
        )
    (largest, most), *_, (smallest, fewest) = counts.most_common()
    if most > UNEVEN * fewest:
        yield f"Classes differ in size: {largest} has {most} images, {smallest} has {fewest}"


def _sampled(listing: pd.DataFrame) -> tuple[list[tuple[int, bool]], list[str]]:
    """The shorter side of images spread over all classes, and whether each is gray; what cannot be read."""
    places = np.unique(np.linspace(0, len(listing) - 1, min(_SAMPLE, len(listing))).astype(int))
    sizes, unread = [], []
    for path in listing["path"].iloc[places]:
        content, error = read_file(path)
        try:
            if content is None:
                raise ImageError(error)
            pixels = decode_image(content)
        except ImageError as reason:
            unread.append(f"{path} ({reason})")
            continue
        gray = np.ptp(pixels, axis=2).max(initial=0) == 0
        sizes.append((min(pixels.shape[:2]), bool(gray)))
    if not unread:
        return sizes, []
    note = f"{len(unread)} of {len(places)} files that were opened cannot be read: {shown_names(unread, 3)}"
    return sizes, [note]
