"""Rows of features in a file, read and written by their places, so that memory holds a batch alone."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np


class RowFile:
    """A file of float32 rows, open for as long as it is needed.

    It is not mapped into memory: mapped pages count as the process's own until the system takes them back.

    Parameters
    ----------
    file
        Where to make it; all its room on the disk is taken at once.
    shape
        How many rows of how many features.

    Attributes
    ----------
    lowest
        The least of the values that were written.

    Raises
    ------
    OSError
        There is no room.
    """

    def __init__(self, file: Path, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.lowest = math.inf
        self._row_bytes = 4 * shape[1]
        self._file = file.open("w+b", buffering=0)
        if shape[0] * self._row_bytes:
            os.posix_fallocate(self._file.fileno(), 0, shape[0] * self._row_bytes)

    def __setitem__(self, places: np.ndarray, values: np.ndarray) -> None:
        rows = np.ascontiguousarray(values, np.float32)
        for place, row in zip(places.tolist(), rows, strict=True):
            os.pwrite(self._file.fileno(), row.data, place * self._row_bytes)
        self.lowest = min(self.lowest, float(rows.min(initial=math.inf)))

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        rows = np.empty((len(places), self.shape[1]), np.float32)
        for place, row in zip(places.tolist(), rows, strict=True):
            os.preadv(self._file.fileno(), [row.data], place * self._row_bytes)
        return rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
