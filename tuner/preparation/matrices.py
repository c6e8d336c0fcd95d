"""The features that trials read: one file a network, which workers map into memory; made by the driver."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike

from tuner.base.columns import LABEL_INDEX, PART, PATH
from tuner.base.errors import CacheError
from tuner.extraction.cache import FeatureCache
from tuner.extraction.files import writing_to
from tuner.images.splits import TEST
from tuner.preparation.images import PreparedImages
from tuner.storage.mirror import brought_here

_ROWS_FILE = "rows.parquet"


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """The features of images, with what is known of them; one row an image, part after part.

    Attributes
    ----------
    features
        float32 of shape (n, width), mapped into memory.
    path, label_index, part
        Of shape (n,): the image, its class, and the part that it is in.
    """

    features: np.ndarray
    path: np.ndarray
    label_index: np.ndarray
    part: np.ndarray

    def only(self, part: str) -> FeatureTable:
        """The rows of one part; nothing is copied."""
        start, end = self._range(part)
        return self._rows([slice(start, end)])

    def all_but(self, part: str) -> FeatureTable:
        """The rows of all other parts; copied where the part lies between them."""
        start, end = self._range(part)
        return self._rows([rows for rows in (slice(0, start), slice(end, None)) if rows != slice(0, 0)])

    def _range(self, part: str) -> tuple[int, int]:
        places = np.flatnonzero(self.part == part)
        if not len(places):
            return len(self.part), len(self.part)
        return int(places[0]), int(places[-1]) + 1

    def _rows(self, slices: Sequence[slice]) -> FeatureTable:
        def taken(values: np.ndarray) -> np.ndarray:
            pieces = [piece for rows in slices if len(piece := values[rows])]
            return pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [values[:0]])

        return FeatureTable(
            taken(self.features), taken(self.path), taken(self.label_index), taken(self.part)
        )


@dataclass(frozen=True)
class FeatureMatrices:
    """Where a search's workers find the features of its images but for the test part.

    Attributes
    ----------
    folder
        One that driver and workers see, or what Spark brought to each (`brought_here`).
    files
        The name of each network's file there, by the network's name.
    nbytes
        The size of the largest of them.
    """

    folder: Path
    files: Mapping[str, str]
    nbytes: int

    def open(self, network: str) -> FeatureTable:
        """Map a network's features into this process's memory; a process does so once.

        Raises
        ------
        CacheError
            The folder cannot be seen from here.
        """
        return _open(brought_here(self.folder), self.files[network])


@lru_cache(maxsize=8)
def _open(folder: Path, file: str) -> FeatureTable:
    try:
        rows = _read_rows(folder)
        features = np.load(folder / file, mmap_mode="r")
    except OSError as error:
        raise CacheError(
            f"The features in {folder} cannot be read by this worker ({error.strerror or error}): set "
            "cache to a folder that driver and workers share under one path."
        ) from error
    return FeatureTable(
        features, rows[PATH].to_numpy(), rows[LABEL_INDEX].to_numpy(), rows[PART].to_numpy()
    )


@lru_cache(maxsize=2)
def _read_rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / _ROWS_FILE)


def matrix_bytes(prepared: PreparedImages) -> int:
    """How much memory the widest network's features of all images but the test part take, as float32."""
    rows = int((prepared.index[PART] != TEST).sum())
    return rows * 4 * max(network.width for network in prepared.networks.values())


def write_matrices(cache: FeatureCache, prepared: PreparedImages, folder: Path) -> FeatureMatrices:
    """Write the features of all images but the test part, for the trials of a search.

    Parameters
    ----------
    cache
        Where the features are.
    prepared
        The images, split.
    folder
        Where to write; made if missing.

    Raises
    ------
    CacheError
        The folder cannot be written, or the cache lost features.
    """
    rows = prepared.index[prepared.index[PART] != TEST].sort_values([PART, PATH], ignore_index=True)
    files: dict[str, str] = {}
    with writing_to(cache.root):
        folder.mkdir(parents=True, exist_ok=True)
        rows[[PATH, LABEL_INDEX, PART]].to_parquet(folder / _ROWS_FILE, index=False)
        for number, network in enumerate(prepared.networks.values()):
            files[network.name] = f"{number}-{network.name}.npy"  # names are letters, digits and _.-
            matrix = map_new_file(folder / files[network.name], (len(rows), network.width))
            cache.load_into(matrix, network, list(rows["digest"]))
            matrix.flush()
    return FeatureMatrices(folder.absolute(), files, matrix_bytes(prepared))


def map_new_file(file: Path, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> np.memmap:
    """Make a `.npy` file of zeros and map it; all its room on the disk is taken at once."""
    matrix: np.memmap = open_memmap(file, "w+", dtype, shape)
    with file.open("r+b") as made:
        # To write to a mapped page that finds no room on the disk would end this process, without a word.
        os.posix_fallocate(made.fileno(), 0, os.fstat(made.fileno()).st_size)
    return matrix
