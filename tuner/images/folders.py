"""Folders of class folders, on this machine and elsewhere: listed, and read as what they look like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from tuner.base.choices import GivenSplit
from tuner.base.errors import ImageSourceError
from tuner.base.uris import literal
from tuner.images.files import (
    IGNORED,
    SYSTEM_FOLDERS,
    files_below,
    is_passed_over,
    is_system_folder,
    path_text,
)
from tuner.images.index import ImageSet, checked_labels, reading, with_contents, with_index
from tuner.images.layout import (
    DIRECTLY,
    Split,
    Tree,
    checked_split,
    class_folders,
    hint,
    odd_names,
    place,
    shown_names,
)
from tuner.images.splits import GIVEN

ORIGIN = r"^[A-Za-z][A-Za-z0-9+.-]*:(//[^/]*)?/*"  # scheme and host of a Hadoop path
ONE_FOLDER_EACH = "give a folder with one folder of images for each class"

_IMAGE = r"\.(jpe?g|jpe|jfif|png|apng|gif|bmp|dib|webp|tiff?|mpo)$|^[^.]+$"  # or a name without an ending


def _left_out(
    source: str, split: Split | None, loose: int, passed: Iterable[str], beside: Mapping[str, int]
) -> list[str]:
    """Say what lies in a folder and is part of no class."""
    notes, names = [], sorted(passed)
    if loose:
        where = f"{source} or its parts" if split else source
        notes.append(f"{loose} file(s) directly in {where} belong to no class and are left out")
    if beside:
        notes.append(
            f"{sum(beside.values())} file(s) in the folder(s) {shown_names(beside)} of {source} belong to "
            "no part of the split and are left out"
        )
    if names:
        notes.append(f"Hidden and system folder(s) in {source} are passed over: {shown_names(names)}")
    return notes


# Folders of this machine ----------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalFolder:
    """What lies in a folder: the files below each of its folders, and those directly in it."""

    path: Path
    folders: Mapping[str, Sequence[Path]]
    loose: Sequence[Path]
    passed: frozenset[str]
    _inner: Mapping[str, Sequence[str]] = field(repr=False)  # the folders in each, with or without files

    @classmethod
    def list(cls, path: Path) -> LocalFolder:
        """List a folder.

        Raises
        ------
        ImageSourceError
            It, or a folder below it, cannot be read.
        """
        folders: dict[str, Sequence[Path]] = {}
        inner: dict[str, Sequence[str]] = {}
        loose, passed = [], set[str]()
        try:
            root = path.stat()
            for entry in sorted(path.iterdir()):
                name = path_text(entry.name)
                if not entry.is_dir():
                    loose += [] if is_passed_over(entry.name) else [entry]
                elif is_system_folder(entry.name):
                    passed.add(name)
                else:
                    folders[name] = list(files_below(entry, {(root.st_dev, root.st_ino)}, passed))
                    inner[name] = [
                        path_text(below.name)
                        for below in sorted(entry.iterdir())
                        if below.is_dir() and not is_system_folder(below.name)
                    ]
        except OSError as error:
            raise ImageSourceError(
                f"The folder {error.filename} cannot be read: {error.strerror}."
            ) from error
        return cls(path, folders, loose, frozenset(passed), inner)

    @property
    def is_table(self) -> bool:
        """Whether most of it are Parquet files, not pictures in folders."""
        below = [file for files in self.folders.values() for file in files]
        tables = sum(file.suffix == ".parquet" for file in (*below, *self.loose))
        return tables >= max(1, sum(is_image(file.name) for file in below))

    def inner(self, name: str, file: Path) -> str:
        """The folder, in one of the folders, that a file lies in or below."""
        parts = file.relative_to(self.path).parts
        return path_text(parts[1]) if len(parts) > 2 else DIRECTLY

    @property
    def tree(self) -> Tree:
        """How many images there are, by folder and by the folder in it."""
        tree = {name: Counter(dict.fromkeys(self._inner[name], 0)) for name in self.folders}
        for name, files in self.folders.items():
            tree[name].update(self.inner(name, file) for file in files if is_image(file.name))
        return tree


def is_image(name: str) -> bool:
    """Whether a file is called as images are, or has no ending."""
    return re.search(_IMAGE, name, re.IGNORECASE) is not None


class ListedImages(NamedTuple):
    """The images of a folder: as `tuner.images.index.ImageSet` has them, without Spark."""

    labels: tuple[str, ...]
    notes: tuple[str, ...]
    listing: pd.DataFrame


def list_images(folder: LocalFolder, given: GivenSplit | None, *, training: bool) -> ListedImages:
    """List the images of the class folders of a folder, or of those of the parts that it is split into.

    Raises
    ------
    ImageSourceError
        There are too few classes, a class without images, or the folders are not what `given` says.
    """
    source, tree = str(folder.path), folder.tree
    split = checked_split(tree, source, given, training=training)
    classes: dict[str, int] = {}
    rows, loose, beside = [], len(folder.loose), Counter[str]()
    for name, files in folder.folders.items():
        for label in class_folders(name, tree[name], split):
            classes.setdefault(label, 0)
        for file in files:
            found = place(name, folder.inner(name, file), split)
            if found is None:
                beside[name] += 1
            elif found[0] is None:
                loose += 1
            else:
                classes[found[0]] += 1
                rows.append((path_text(file.absolute()), *found))
    empty = [label for label, count in classes.items() if not count]
    if empty and training:
        raise ImageSourceError(
            f"The class {empty[0]} has no images in any part of {source}: add some or remove its folders."
            if split and not split.below
            else f"The class folder {folder.path / empty[0]} has no images: add some or remove it."
        )
    labels = checked_labels(
        [label for label, count in classes.items() if count],
        source,
        "class folder",
        ONE_FOLDER_EACH + hint(tree, source),
        training=training,
    )
    notes = [*_left_out(source, split, loose, folder.passed, beside), *odd_names(tree, source, given)]
    if empty:
        notes.append(f"The class folder(s) {shown_names(empty)} of {source} have no images")
    listing = pd.DataFrame(rows, columns=["path", "label", GIVEN])
    listing = (
        listing.sort_values(["label", "path"], ignore_index=True) if split else listing.drop(columns=GIVEN)
    )
    return ListedImages(labels, tuple(notes), listing)


def read_local_folder(
    spark: SparkSession, folder: LocalFolder, given: GivenSplit | None, *, training: bool
) -> ImageSet:
    """Read the class folders of a folder, or those of the parts that it is split into.

    Errors are those of `list_images`.
    """
    labels, notes, listing = list_images(folder, given, training=training)

    def frame() -> DataFrame:
        columns = [name for name in ("path", "label", GIVEN) if name in listing]
        listed = spark.createDataFrame(listing, ", ".join(f"{name} string" for name in columns))
        read = with_contents(with_index(listed, labels))
        return read.select("path", "content", "label", "label_index", *columns[2:])

    return ImageSet(spark, frame, labels, notes, listing)


# Folders elsewhere ----------------------------------------------------------------------------------


def read_remote_folder(
    spark: SparkSession, source: str, given: GivenSplit | None, *, training: bool
) -> ImageSet:
    """Read with Spark, which leaves out files and folders that begin with an underscore or a dot.

    Errors are those of `read_local_folder`.
    """
    files = reading(
        source,
        lambda: spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(literal(source)),
    )
    # `path` is the root, made canonical, and the names below it; nothing in it is percent-encoded.
    root = re.sub("/+", "/", re.sub(ORIGIN, "", source)).rstrip("/")
    names = F.split(
        F.regexp_replace("path", ORIGIN, "").substr(len(root) + 2 if root else 1, 2**31 - 1), "/"
    )
    system = F.filter(names, lambda name: F.lower(name).isin(*SYSTEM_FOLDERS))
    placed = files.select(
        "path",
        "content",
        F.when(F.size(names) > 1, names[0]).alias("folder"),  # null beside the folders
        F.when(F.size(names) > 2, names[1]).otherwise(DIRECTLY).alias("inner"),
        F.get(system, F.lit(0)).alias("system"),
        F.lower(F.element_at(names, -1)).alias("file"),
    ).where(~F.col("file").isin(*IGNORED))
    groups = placed.groupBy("folder", "inner", "system", F.col("file").rlike(_IMAGE).alias("image"))
    counts = reading(source, groups.count().collect)
    tree: dict[str, Counter[str]] = {}
    for row in counts:
        if row["folder"] is not None and row["system"] is None:
            tree.setdefault(row["folder"], Counter())[row["inner"]] += row["count"] * row["image"]
    split = checked_split(tree, source, given, training=training)
    classes, loose, beside = set[str](), 0, Counter[str]()
    for row in counts:
        found = place(row["folder"], row["inner"], split) if row["folder"] is not None else (None, None)
        if row["system"] is None:
            if found is None:
                beside[row["folder"]] += row["count"]
            elif found[0] is None:
                loose += row["count"]
            else:
                classes.add(found[0])
    labels = checked_labels(
        sorted(classes), source, "class folder", ONE_FOLDER_EACH + hint(tree, source), training=training
    )
    passed = {row["system"] for row in counts if row["system"] is not None}
    notes = [*_left_out(source, split, loose, passed, beside), *odd_names(tree, source, given)]
    rows = placed.where(F.col("system").isNull()).select("path", "content", *_class_and_part(split))
    rows = rows.where(F.col("label").isNotNull())
    return ImageSet(spark, lambda: with_index(rows, labels), labels, tuple(notes))


def _class_and_part(split: Split | None) -> list[Column]:
    """The columns `label`, null beside the classes, and `given`, from `folder` and `inner`."""
    if split is None:
        return [F.col("folder").alias("label")]
    parts = F.create_map(*[F.lit(text) for pair in split.parts.items() for text in pair])
    part = parts[F.col("inner" if split.below else "folder")]
    label = F.col("folder") if split.below else F.when(F.col("inner") != DIRECTLY, F.col("inner"))
    return [F.when(part.isNotNull(), label).alias("label"), part.alias(GIVEN)]
