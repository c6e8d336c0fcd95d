"""What the images turned out to be: which are left out and why, and what is unusual about the rest."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from tuner.base.errors import ImageSourceError
from tuner.experiment.schema import Split
from tuner.extraction.cache import refuse_bad_images
from tuner.images.layout import shown_names
from tuner.images.splits import TEST, TRAIN, VALIDATION, absent_classes, leaked

_CONFLICT, _COPY = "label conflict", "copy of an image of the part"
_LITTLE = 1 / 3  # of their range, which a set of images at least is expected to fill

# Left out -------------------------------------------------------------------------------------------


def with_outcomes(
    index: pd.DataFrame, known: Iterable[pd.DataFrame], undecided: Mapping[str, str]
) -> pd.DataFrame:
    """The index with the reason, if any, why an image could not be read or decoded.

    `known` has what the cache knows for each network, `undecided` what could not be decoded this time.
    """
    reasons: dict[str, str] = {}
    for table in known:
        bad = table[table["error"].notna()]
        reasons |= dict(zip(bad["digest"], bad["error"], strict=True))
    decoded = index["digest"].map(reasons | dict(undecided))
    return index.assign(error=index["error"].where(index["error"].notna(), decoded))


def mark_conflicts(outcome: pd.DataFrame) -> pd.DataFrame:
    """Give usable images that stand in several classes their reason: nobody can tell which class is right.

    Takes and gives an index (`label`, `digest`, `bytes`, `error`); an empty file is no image of any class.
    """
    usable = outcome[outcome["error"].isna() & (outcome["bytes"] > 0)]
    pairs = usable[["digest", "label"]].drop_duplicates()
    shared = pairs[pairs.duplicated("digest", keep=False)]
    classes = shared.groupby("digest")["label"].agg(set).to_dict()
    rows = usable[usable["digest"].isin(classes)]
    error = outcome["error"].astype(object)
    error.loc[rows.index] = [
        f"{_CONFLICT}: also in {', '.join(sorted(classes[digest] - {label}))}"
        for digest, label in zip(rows["digest"], rows["label"], strict=True)
    ]
    return outcome.assign(error=error)


def usable(outcome: pd.DataFrame, labels: Sequence[str], fail: bool) -> pd.DataFrame:
    """The rows without an error; every class must have some and, with `fail`, no row may be left out.

    Raises
    ------
    ImageSourceError
        The first image that is left out, or the first class without any.
    """
    bad = outcome[outcome["error"].notna()]
    if fail:
        first = bad.head(1)  # by path, as the index is sorted
        refuse_bad_images(first.drop(columns="error"), first)
    good = outcome.drop(bad.index)
    there = set(good["label"])
    for label in labels:
        if label not in there:
            rows = bad[bad["label"] == label]
            path, reason = rows.iloc[0][["path", "error"]]
            raise ImageSourceError(
                f"None of the {len(rows)} image(s) of the class {label} can be used (the first, {path}: "
                f"{reason}): add images or remove the class."
            )
    return good.drop(columns="error")


def keep_apart(good: pd.DataFrame, split: Split) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of a split that is given, take out rows whose image is held back elsewhere: the rest, and these."""
    held = leaked(good, split.folds)
    copies = good[held.notna()]
    return good[held.isna()], copies.assign(reason=_COPY + " " + held.dropna().astype(str))


# Said -----------------------------------------------------------------------------------------------


def left_out(quarantine: pd.DataFrame, total: int, undecided: Mapping[str, str]) -> Iterator[str]:
    """Count what is left out of `total` images, by kind."""
    if len(quarantine):
        yield f"{len(quarantine)} of {total} images cannot be used: see quarantine.csv"
    reasons = quarantine["reason"]
    conflicts = int(reasons.str.startswith(f"{_CONFLICT}: ").sum())
    if conflicts:
        yield (
            f"{conflicts} of them are in conflict over their label: copies of one image stand in several "
            "classes, so all of them are left out"
        )
    for part in (TEST, VALIDATION):
        copies = int((reasons == f"{_COPY} {part}").sum())
        if copies:
            yield (
                f"{copies} of them are copies of images of {part} in other parts: they are left out there, "
                f"where a model would learn from what it is {'tested' if part == TEST else 'ranked'} on"
            )
    if undecided:
        again = int(reasons.isin(set(undecided.values())).sum())
        yield (
            f"{again} of them could not be decoded this time, which says nothing of the images "
            f"({next(iter(undecided.values()))}): the next search tries them again"
        )


def about_labels(labels: Iterable[str]) -> Iterator[str]:
    """Say which classes differ only by what is hardly seen: case, spaces, how letters are put together."""
    alike: dict[str, list[str]] = {}
    for label in labels:
        seen = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
        alike.setdefault(seen, []).append(label)
    groups = [" and ".join(map(ascii, group)) for group in alike.values() if len(group) > 1]
    if groups:
        yield f"Classes whose names look alike are taken for different ones: {shown_names(groups)}"


def about_split(index: pd.DataFrame, parts: pd.Series, split: Split) -> Iterator[str]:
    """Say what became of a split that is given."""
    if split.given is None:
        return
    given = index["given"].value_counts()
    counts = ", ".join(f"{given[part]} for {part}" for part in (TRAIN, VALIDATION, TEST) if part in given)
    cut = [
        f"{part} is cut from {TRAIN}"
        for part in (VALIDATION, TEST)
        if part not in given and not (split.folds and part == VALIDATION)
    ]
    pooled = (
        [f"{TRAIN} and {VALIDATION} are dealt to the folds"] if split.folds and VALIDATION in given else []
    )
    yield "; ".join([f"The given split is kept: {counts}", *cut, *pooled])
    for part, labels in absent_classes(index, parts).items():
        yield f"The part {part} has no image of {len(labels)} class(es): {', '.join(labels[:5])}"


def about_values(index: pd.DataFrame, known: pd.DataFrame, max_value: float | None) -> Iterator[str]:
    """Say where a whole set of images fills little of its range, and where values are cut off.

    `known` has the highest and the lowest value of each image (`highest`, `lowest`) and what stands for
    white (`white`).
    """
    seen = known[known["digest"].isin(set(index["digest"]))].dropna(subset=["highest", "white"])
    below = seen["lowest"][seen["lowest"] < 0]
    if len(below):
        yield (
            f"{len(below)} image(s) have values below 0, down to {below.min():g}, which become black: "
            "shift the values before, where they mean something"
        )
    for white, rows in seen.groupby("white"):
        highest = float(rows["highest"].max())
        cut = int((rows["highest"] > white).sum())
        if cut:
            yield (
                f"{cut} image(s) have values above {white:g}, up to {highest:g}, which are cut off: "
                "max_value in the experiment says what stands for white"
            )
        elif highest < _LITTLE * white and (max_value is None or white != max_value):
            likely = highest if white <= 1 else 2 ** int(np.ceil(np.log2(highest + 1))) - 1
            yield (
                f"No value of {len(rows)} image(s) is above {highest:g}, where {white:g} stands for white, "
                "so they are all dark: if their white is lower, say so with max_value in the experiment "
                f"(such as {likely:g})"
            )
