"""What folders of images look like, classes or the parts of a split: functions of names and counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuner.base.choices import GivenSplit
from tuner.base.errors import ImageSourceError
from tuner.images.splits import TEST, TRAIN, VALIDATION

DIRECTLY = ""  # the folder below a folder, of what lies directly in it

_PARTS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
    "testing": TEST,
}
# What else says so, of folders that hold the same class folders: not known well enough to be kept.
_OTHERS = {"dev": VALIDATION, "eval": TEST, "evaluation": TEST, "holdout": TEST}

Tree = Mapping[str, Counter[str]]  # folder → its folders → how many images lie there


def part_of(name: str) -> str | None:
    """The part that a folder is called after, in any case: `Training`, `val`, `test_set`; or None."""
    return _PARTS.get(re.sub(r"[ _-]?set$", "", name.lower()))


def _word_of_part(name: str) -> str | None:
    """The part that one of a name's words says: `seg_train`, `test images`, `val-1`; or None."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((part for word in words if (part := part_of(word) or _OTHERS.get(word))), None)


def shown_names(names: Iterable[str], most: int = 5) -> str:
    """Give names for a sentence, not too many."""
    listed = list(names)
    more = [f"and {len(listed) - most} more"] if len(listed) > most else []
    return ", ".join([*listed[:most], *more])


@dataclass(frozen=True)
class Split:
    """Which folders are parts of a split: those of the source or, `below`, those of its class folders."""

    parts: Mapping[str, str]
    below: bool


def _split_of(tree: Tree) -> Split | None:
    """The split that folders look like, whose images lie two folders deep: part/class or class/part."""
    parts = {name: part for name in tree if (part := part_of(name))}
    if len(set(parts.values())) > 1 and _most_of(tree, parts) and _hold_classes(tree, parts):
        return Split(parts, below=False)
    turned: dict[str, Counter[str]] = {}
    for name, folders in tree.items():
        for folder, count in folders.items():
            turned.setdefault(folder, Counter())[name] = count
    parts = {name: part for name in turned if (part := part_of(name))}
    split = [name for name, folders in tree.items() if len({parts[f] for f in folders if f in parts}) > 1]
    if (
        TRAIN in parts.values()
        and split
        and _most_of(turned, parts)
        and len({name for part in parts for name in turned[part]}) > 1
    ):
        return Split(parts, below=True)
    return None


def _most_of(tree: Tree, some: Iterable[str]) -> bool:
    return 2 * sum(tree[name].total() for name in some) > sum(folders.total() for folders in tree.values())


def _folders(tree: Tree, name: str) -> set[str]:
    """The folders in a folder, if most of its images lie there; else none."""
    folders = tree[name]
    return set(folders) - {DIRECTLY} if folders.total() > 2 * folders[DIRECTLY] else set()


def _hold_classes(tree: Tree, parts: Mapping[str, str]) -> bool:
    """Whether folders called after parts hold class folders, and are no classes of these names."""
    train = set().union(*(_folders(tree, name) for name in parts if parts[name] == TRAIN))
    others = [_folders(tree, name) for name in parts if parts[name] != TRAIN]
    if not train:
        return bool(set.intersection(*others)) if len(others) > 1 else False
    # Test images that nobody has sorted lie in the folder itself, or in the one folder that it has.
    return any(train & other or (len(train) > 1 and len(other) < 2) for other in others)


def _parts_by_other_names(tree: Tree) -> list[str]:
    """Folders that must be parts of a split, though they are not called as parts are.

    They hold the same class folders (`seg_train`, `seg_test`), or one folder each that is called after the
    part once more, as archives are unpacked (`training_set/training_set`).
    """
    called = {name: part for name in tree if (part := _word_of_part(name))}
    if len(set(called.values())) < 2 or not _most_of(tree, called):
        return []
    inner = [_folders(tree, name) for name in called]
    same = len(inner[0]) > 1 and all(folders & inner[0] for folders in inner)
    twice = all(
        len(folders) == 1 and _word_of_part(next(iter(folders))) == part
        for folders, part in zip(inner, called.values(), strict=True)
    )
    return list(called) if same or twice else []


def _parts_in_names(tree: Tree) -> dict[str, dict[str, str]]:
    """Part and class that the names of all folders hold, the same classes for each part; else nothing.

    So are data sets of two domains kept: `trainA`, `trainB`, `testA`, `testB`.
    """
    found: dict[str, dict[str, str]] = {}
    for name in tree:
        # Not at a letter of the same word: `trainee` and `tester` are no parts.
        match = re.fullmatch(r"([A-Za-z]+?)[ _-]?([A-Z].*|[0-9].*|(?<=[ _-]).+)", name)
        part = part_of(match[1]) if match else None
        if match is None or part is None:
            return {}
        found.setdefault(part, {})[match[2]] = name
    classes = {frozenset(names) for names in found.values()}
    return found if len(found) > 1 and len(classes) == 1 and len(next(iter(classes))) > 1 else {}


def _parts_to_be_moved(tree: Tree, names: list[str], source: str, *, training: bool) -> ImageSourceError:
    wanted = TRAIN if training else TEST
    first = min(names, key=lambda name: _word_of_part(name) != wanted)
    inner = sorted(_folders(tree, first))
    alone = len(inner) == 1
    one = "/".join([source.rstrip("/"), first, *(inner if alone else [])])
    hold = f"{first} holds the folder {inner[0]} alone" if alone else f"they hold {shown_names(inner, 3)}"
    keep = (
        ", or bring the class folders into folders called train, val and test, and set split.given: folders"
    )
    return ImageSourceError(
        f"The folders of {source} ({shown_names(names)}) look like the parts of a split, not like classes: "
        f"{hold}. Give one of them alone, such as {one}{keep if training else ''}."
    )


def checked_split(
    tree: Tree, source: str, given: GivenSplit | None, *, training: bool = True
) -> Split | None:
    """The split to keep; without `given`, folders that look like one of parts are refused.

    What only evaluates (`training` is False) has no parts to keep.
    """
    found = _split_of(tree)
    odd = [] if found else _parts_by_other_names(tree)
    if odd:
        raise _parts_to_be_moved(tree, odd, source, training=training)
    if held := _parts_in_names(tree):
        part, classes = next(iter(held.items()))
        raise ImageSourceError(
            f"The folders of {source} ({shown_names(tree)}) look like the parts of a split and its classes "
            f"in one: {shown_names(held)} each of {shown_names(classes)}. Bring their images into "
            f"folders such as {part}/{next(iter(classes))}"
            f"{', and set split.given: folders' if training else ', and give one of the parts alone'}."
        )
    if found is None:
        if given:
            raise ImageSourceError(
                f"split.given is {given}, and {source} holds no split: that takes folders called train and "
                "test or val, each with a folder of images for each class, and there are "
                f"{shown_names(tree) or 'no folders'}{hint(tree, source)}. Leave split.given out, or give "
                "the folder that has them."
            )
        return None
    if given is None:
        if found.below:
            return None
        names = shown_names(found.parts)
        inner = shown_names(sorted(set().union(*(_folders(tree, name) for name in found.parts))), 3)
        wanted = TRAIN if training else TEST
        one = min(found.parts, key=lambda name: found.parts[name] != wanted)
        keep = "Set split.given: folders to keep that split, or give" if training else "Give"
        raise ImageSourceError(
            f"The folders of {source} ({names}) look like the parts of a split, not like classes: they hold"
            f" the folders {inner}. {keep} one of them alone, such as {source.rstrip('/')}/{one}."
        )
    if TRAIN not in found.parts.values():
        raise ImageSourceError(
            f"split.given is {given}, and {source} has no folder train beside {shown_names(found.parts)}: "
            "add it."
        )
    if not found.below:
        for name, part in found.parts.items():
            if tree[name].total() and not _folders(tree, name):
                raise ImageSourceError(
                    f"The images in {source.rstrip('/')}/{name} have no class, for they do not lie in "
                    f"class folders: sort them, or remove {name}"
                    f"{f', and {part} is cut from train' if part != TRAIN else ''}."
                )
    return found


def hint(tree: Tree, source: str) -> str:
    """Where a source of one folder seems to begin, one folder deeper."""
    if len(tree) != 1:
        return ""
    (name,) = tree
    inner = _folders(tree, name)
    if len(inner) < 2:
        return ""
    split = len({part_of(folder) for folder in inner} - {None}) > 1
    return (
        f" (did you mean {source.rstrip('/')}/{name}, which holds the folders {shown_names(sorted(inner))}"
        f"{', with split.given: folders' if split else ''}?)"
    )


def odd_names(tree: Tree, source: str, given: GivenSplit | None) -> list[str]:
    """Say what is unusual about folders that are taken for classes."""
    if given:
        return []
    found = _split_of(tree)
    if found is not None and found.below:
        return [
            f"The class folders of {source} hold the folders {shown_names(found.parts)}, which look like "
            "the parts of a split: all their images are dealt anew; split.given: folders keeps that split"
        ]
    called = [name for name in tree if part_of(name)]
    if len({part_of(name) for name in called}) > 1:
        return [
            f"Classes of {source} are called {shown_names(called)}, as the parts of a split are: they are "
            "taken for classes, for they do not hold the same class folders"
        ]
    inner = [_folders(tree, name) for name in tree]
    if len(inner) > 1 and len(inner[0]) > 1 and all(folders == inner[0] for folders in inner):
        return [
            f"The class folders of {source} ({shown_names(tree)}) all hold the same folders "
            f"({shown_names(sorted(inner[0]))}): if these are the classes, give one of the class folders, "
            "or put the images of each class together"
        ]
    return []


def class_folders(name: str, folders: Iterable[str], split: Split | None) -> list[str]:
    """The classes that a folder of the source is or holds, with or without images."""
    if split is None or (split.below and set(folders) & set(split.parts)):
        return [name]
    return (
        [] if split.below or name not in split.parts else [inner for inner in folders if inner != DIRECTLY]
    )


def place(name: str, inner: str, split: Split | None) -> tuple[str | None, str | None] | None:
    """Class and part of a file; a class of None where it lies beside the classes, None beside the parts."""
    if split is None:
        return name, None
    if split.below:
        return (name, split.parts[inner]) if inner in split.parts else None
    if name not in split.parts:
        return None
    return inner or None, split.parts[name]
