"""Which images are held back: a pure function of image, label, given part and seed; without Spark."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import pandas as pd

from tuner.base.errors import ImageSourceError

TEST, VALIDATION, TRAIN = "test", "validation", "train"
GIVEN = "given"  # the column of an index for parts that the source states
_RANKS = {TEST: 0, VALIDATION: 1, TRAIN: 2}  # who keeps an image that stands in several

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


def _pooled(given: pd.Series, folds: int) -> pd.Series:
    """The parts that are given, as far as they are kept: to folds, validation and training are one."""
    return given.replace(VALIDATION, TRAIN) if folds else given


def _held(index: pd.DataFrame, folds: int) -> dict[str, str]:
    """Images whose part is given and final, by digest: what is to be cut from training has none yet."""
    if GIVEN not in index:
        return {}
    given = _pooled(index[GIVEN], folds)
    final = given != TRAIN
    return dict(zip(index["digest"][final], given[final], strict=True))


def _assign(
    index: pd.DataFrame, test: Fraction, folds: int, validation_ratio: Fraction, seed: int
) -> dict[str, str]:
    """Assign class after class, in the order of their names."""
    parts = _held(index, folds)
    given = set(parts.values())
    totals = dict.fromkeys(_folds(folds), 0)
    for _, digests in index.groupby("label")["digest"]:
        copies = _copies(digests, seed)
        free = sum(count for digest, count in copies.items() if parts.get(digest) not in given)
        if TEST not in given:
            _take(copies, parts, TEST, _count(free, test))
        if folds:
            _deal(copies, parts, totals)
            continue
        if VALIDATION not in given:
            rest = sum(count for digest, count in copies.items() if parts.get(digest) != TEST)
            _take(copies, parts, VALIDATION, _count(rest, validation_ratio))
        _take(copies, parts, TRAIN, len(digests))
    return parts


def leaked(index: pd.DataFrame, folds: int) -> pd.Series:
    """Name, for each row of a part that is given, the held back part that has its image, too; else None.

    Of an image that stands in several parts, test keeps it before validation, and validation before
    training: its other rows would tell a trial what it is ranked on.
    """
    if GIVEN not in index:
        return pd.Series(None, index=index.index, dtype=object)
    own = _pooled(index[GIVEN], folds).map(_RANKS)
    first = own.groupby(index["digest"]).transform("min")
    names = pd.Series({rank: part for part, rank in _RANKS.items()})
    return first.map(names).astype(object).where(first < own, None)


def absent_classes(index: pd.DataFrame, parts: pd.Series) -> dict[str, list[str]]:
    """Classes without an image in a part that is given for others: by part, sorted by name."""
    labels = set(index["label"])
    present = {part: set(index["label"][parts == part]) for part in (VALIDATION, TEST)}
    return {part: sorted(labels - some) for part, some in present.items() if some and labels - some}


def split_images(
    index: pd.DataFrame, test: Fraction, validation: str, validation_ratio: Fraction, seed: int
) -> pd.Series:
    """Give each image its part.

    Parameters
    ----------
    index
        One row an image, with its `digest` and `label`; a digest may stand in several rows, in several
        classes even, and all of them get the same part. Where the source is split already, `given` has its
        part (`train`, `validation` or `test`), one for all rows of a digest (`leaked`); what no row is
        given as, is cut from `train`.
    test
        The share of each class that only the winner sees: rounded half up, and exact as far as copies
        of an image allow.
    validation
        `holdout` or `cv:k`; folds are dealt from all but the test part.
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
        There are fewer than two classes, or a part would have no image of a class; of a part that is
        given, fewer than two classes.
    """
    folds = 0 if validation == "holdout" else int(validation.partition(":")[2])
    counts = index["label"].value_counts()
    if len(counts) < 2:
        raise ImageSourceError(
            f"There are usable images of {len(counts)} class(es), and a classifier needs at least two."
        )
    parts = index["digest"].map(_assign(index, test, folds, validation_ratio, seed))
    given = set(_held(index, folds).values())
    for part in sorted(given):
        if index["label"][parts == part].nunique() < 2:
            raise ImageSourceError(
                f"The part {part} of the given split has usable images of fewer than two classes: add some,"
                f" or remove it, and it is cut from {TRAIN}."
            )
    how = "given, the rest " if given else ""
    present = set(zip(index["label"], parts, strict=True))
    for label in sorted(counts.index):
        for part in [TEST, *(_folds(folds) or [VALIDATION, TRAIN])]:
            if part not in given and (label, part) not in present:
                raise ImageSourceError(
                    f"The class {label} has {counts[label]} usable image(s), and the split ({how}test "
                    f"{test}, validation {validation}) leaves none of it in {part}: add images, or change "
                    "split."
                )
    return parts.rename("part")
