"""Which images are held back: a pure function of image identity, label and seed; without Spark."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import pandas as pd

from tuner.base.errors import ImageSourceError

TEST, VALIDATION, TRAIN = "test", "validation", "train"

_Copies = dict[str, int]  # a class's distinct images by digest, with how often each stands in it


def _count(total: int, ratio: Fraction) -> int:
    """Round half up, exactly: 30 images at 1/3 are 10."""
    return int(total * ratio + Fraction(1, 2))


def _copies(digests: pd.Series, seed: int) -> _Copies:
    """The images of a class in an order that only their bytes and the seed decide."""
    counts = digests.value_counts()
    keys = {digest: hashlib.sha256(f"{seed}:{digest}".encode()).digest() for digest in counts.index}
    return {digest: int(counts[digest]) for digest in sorted(keys, key=keys.__getitem__)}


def _take(copies: _Copies, parts: dict[str, str], part: str, wanted: int) -> None:
    """Assign images that have no part yet, in order, while they fit into what is still wanted.

    An image that stands in two classes has its part from the first of them, and counts.
    """
    wanted -= sum(count for digest, count in copies.items() if parts.get(digest) == part)
    for digest, count in copies.items():
        if digest not in parts and count <= wanted:
            parts[digest] = part
            wanted -= count


def _deal(copies: _Copies, parts: dict[str, str], totals: dict[str, int]) -> None:
    """Assign the images that have no part yet to the fold that has the fewest of their class so far.

    Of folds with equally many it is the one that has the fewest of all classes (`totals`, kept up to
    date): the folds' own sizes stay as close as those within a class.
    """
    sizes = dict.fromkeys(totals, 0)
    for digest, count in copies.items():
        if parts.get(digest) in sizes:
            sizes[parts[digest]] += count
    for digest, count in copies.items():
        if digest not in parts:
            parts[digest] = min(sizes, key=lambda fold: (sizes[fold], totals[fold] + sizes[fold]))
            sizes[parts[digest]] += count
    for fold, size in sizes.items():
        totals[fold] += size


def _folds(number: int) -> list[str]:
    return [f"fold-{fold}" for fold in range(number)]


def _needed(folds: int) -> list[str]:
    return [TEST, *_folds(folds)] if folds else [TEST, VALIDATION, TRAIN]


def _assign(
    index: pd.DataFrame, test: Fraction, folds: int, validation_ratio: Fraction, seed: int
) -> dict[str, str]:
    """Assign class after class, in the order of their names."""
    parts: dict[str, str] = {}
    totals = dict.fromkeys(_folds(folds), 0)
    for _, digests in index.groupby("label")["digest"]:
        copies = _copies(digests, seed)
        _take(copies, parts, TEST, _count(len(digests), test))
        if folds:
            _deal(copies, parts, totals)
        else:
            rest = sum(count for digest, count in copies.items() if parts.get(digest) != TEST)
            _take(copies, parts, VALIDATION, _count(rest, validation_ratio))
            _take(copies, parts, TRAIN, len(digests))
    return parts


def split_images(
    index: pd.DataFrame, test: Fraction, validation: str, validation_ratio: Fraction, seed: int
) -> pd.Series:
    """Give each image its part.

    Parameters
    ----------
    index
        One row an image, with its `digest` and `label`; a digest may stand in several rows, in several
        classes even, and all of them get the same part.
    test
        The share of each class that only the winner sees: rounded half up, and exact as far as copies
        of an image allow.
    validation
        `holdout` or `cv:k`.
    validation_ratio
        The share of the rest of each class that `holdout` ranks trials on.
    seed
        Another seed gives another split.

    Returns
    -------
    Aligned with `index`: `test`, and `validation` or `train` (holdout) or `fold-0` … `fold-<k-1>`.

    Raises
    ------
    ImageSourceError
        There are fewer than two classes, or a part would have no image of a class.
    """
    folds = 0 if validation == "holdout" else int(validation.partition(":")[2])
    counts = index["label"].value_counts()
    if len(counts) < 2:
        raise ImageSourceError(
            f"There are usable images of {len(counts)} class(es), and a classifier needs at least two."
        )
    parts = index["digest"].map(_assign(index, test, folds, validation_ratio, seed))
    present = set(zip(index["label"], parts, strict=True))
    for label in sorted(counts.index):
        for part in _needed(folds):
            if (label, part) not in present:
                raise ImageSourceError(
                    f"The class {label} has {counts[label]} usable image(s), and the split (test {test}, "
                    f"validation {validation}) leaves none of it in {part}: add images, or change split."
                )
    return parts.rename("part")
