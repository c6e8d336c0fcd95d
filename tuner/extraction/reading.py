"""Features read back from the cache's files, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from tuner.base.errors import CacheError
from tuner.base.wording import first_line
from tuner.extraction.files import SCHEMA

_BATCH_ROWS = 4096  # held at once


def read_features(files: Sequence[str], digests: Sequence[str], matrix: np.ndarray) -> None:
    """Read the features of images into the rows of a matrix, in the order of their digests.

    Parameters
    ----------
    files
        Parts of one network's features.
    digests
        Of n images; one may stand there several times.
    matrix
        float32 of shape (n, width), in memory or mapped; it is overwritten.

    Raises
    ------
    CacheError
        A part is damaged, or some of the images have no features.
    """
    wanted = pd.Index(digests)
    distinct = wanted.unique()
    rows = distinct.get_indexer(wanted)  # copies of an image share its features
    first = np.full(len(distinct), -1)
    first[rows[::-1]] = np.arange(len(wanted))[::-1]
    missing = np.ones(len(distinct), bool)
    for found, features in _batches(files):
        # A task that was tried again may have written an image twice.
        known, places = np.unique(distinct.get_indexer(pd.Index(found)), return_index=True)
        new = (known >= 0) & missing[known]
        matrix[first[known[new]]] = features[places[new]]
        missing[known[new]] = False
    if missing.any():
        raise CacheError(
            f"{missing.sum()} images have lost their features in the feature cache: start again, and they "
            "are extracted again."
        )
    copies = np.flatnonzero(first[rows] != np.arange(len(wanted)))
    matrix[copies] = matrix[first[rows[copies]]]


def _batches(files: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Digests and features of images that have some."""
    if not files:
        return
    scanner = ds.dataset(list(files), schema=SCHEMA).scanner(
        columns=["digest", "features"],
        filter=ds.field("features").is_valid(),
        batch_size=_BATCH_ROWS,
        batch_readahead=2,
        fragment_readahead=2,
    )
    try:
        for batch in scanner.to_batches():
            if batch.num_rows:
                values = batch.column("features").flatten().to_numpy(zero_copy_only=False)
                yield (
                    batch.column("digest").to_numpy(zero_copy_only=False),
                    values.reshape(batch.num_rows, -1),
                )
    except (pa.ArrowException, OSError) as error:
        raise CacheError(
            f"A file of the feature cache is damaged ({first_line(error)}): remove it, and its images are "
            "extracted again."
        ) from error
