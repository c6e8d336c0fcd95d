"""Images as they were decoded once for a training, mapped into memory, and in batches by tf.data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tuner.base.choices import Preprocessing
from tuner.base.errors import CacheError
from tuner.images.preprocessing import preprocess
from tuner.images.splits import TEST, VALIDATION
from tuner.networks.files import import_keras

PIXELS_FILE, ROWS_FILE = "pixels.npy", "rows.parquet"


@dataclass(frozen=True, eq=False)
class Part:
    """Some of the images.

    Attributes
    ----------
    values
        Of all images: uint8 of shape (n, height, width, 3), RGB, mapped into memory; or what was computed
        of them, float32 of shape (n, …).
    rows
        int64 of shape (m,): where those of this part are.
    label_index, path
        Of shape (m,): their classes, and what they are called.
    preprocessing
        What is done to pixels; None: they are none.
    """

    values: np.ndarray
    rows: np.ndarray
    label_index: np.ndarray
    path: list[str]
    preprocessing: Preprocessing | None

    def __len__(self) -> int:
        return len(self.rows)

    def computed(self, values: np.ndarray) -> Part:
        """The same images as what was computed of them, float32 of shape (m, …)."""
        return replace(self, values=values, rows=np.arange(len(self)), preprocessing=None)

    def batches(self, size: int, order: np.ndarray | None = None) -> Any:
        """A `tf.data.Dataset` of preprocessed images or values (float32) and classes (int64), in batches.

        `order` has places in this part; None: as they stand.
        """
        import_keras()
        import tensorflow as tf

        def read(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            values = self.values[self.rows[places]]
            if self.preprocessing is not None:
                values = preprocess(values, self.preprocessing)
            return values, self.label_index[places]

        def load(places: Any) -> tuple[Any, Any]:
            values, classes = tf.numpy_function(read, [places], (tf.float32, tf.int64), stateful=False)
            values.set_shape((None, *self.values.shape[1:]))
            classes.set_shape((None,))
            return values, classes

        places = np.arange(len(self)) if order is None else order
        batches = tf.data.Dataset.from_tensor_slices(places.astype(np.int64)).batch(size)
        return batches.map(load).prefetch(1)


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Where a training's workers find its images, but for the test part.

    `folder` is one that this process sees; the images of the part
    `validation` rank epochs and trials, and all others are learned from.
    """

    folder: Path
    validation: str

    @cached_property
    def _rows(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / ROWS_FILE)

    def part(self, preprocessing: Preprocessing, *, validates: bool) -> Part:
        """Map the images that are learned from, or those that validate.

        Raises
        ------
        CacheError
            The folder cannot be seen from here.
        """
        try:
            rows = self._rows
            pixels = np.load(self.folder / PIXELS_FILE, mmap_mode="r")
        except OSError as error:
            raise CacheError(
                f"The images in {self.folder} cannot be read by this worker ({error.strerror or error}): "
                "set cache to a folder that driver and workers share under one path."
            ) from error
        some = rows[(rows["part"] == self.validation) == validates]
        return Part(
            pixels,
            some["row"].to_numpy(np.int64),
            some["label_index"].to_numpy(np.int64),
            list(some["path"]),
            preprocessing,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "validation": self.validation}


def write_rows(folder: Path, index: pd.DataFrame) -> TrainingImages:
    """Tell of the images whose pixels are in a folder; nothing of the test part, which nobody shall see.

    `index` has one row an image: `path`, `label_index`, `part` and `row`. Of folds, the first validates.
    """
    rows = index[index["part"] != TEST]
    rows[["path", "label_index", "part", "row"]].to_parquet(folder / ROWS_FILE, index=False)
    return TrainingImages(folder.absolute(), VALIDATION if (rows["part"] == VALIDATION).any() else "fold-0")
