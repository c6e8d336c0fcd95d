"""The features of a run of `tuner learn`: what the cache has, in a file that is streamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuner.base.columns import LABEL_INDEX, PART, PATH
from tuner.base.errors import ImageSourceError
from tuner.classifiers.heads.files import Head
from tuner.evaluation.predictions import Scored
from tuner.extraction.cache import FeatureCache
from tuner.extraction.files import writing_to
from tuner.images.splits import TEST, VALIDATION
from tuner.learning.rows import RowFile
from tuner.learning.stream import score_rows
from tuner.networks.resolution import Network
from tuner.preparation.images import PreparedImages

HELD_BACK = (VALIDATION, "fold-0")
"""The parts that validate: of folds the first."""


def rows_to_learn(prepared: PreparedImages) -> pd.DataFrame:
    """The images of the parts that are learned, in the order of their bytes: always the same."""
    index = prepared.index
    return index[~index[PART].isin((TEST, *HELD_BACK))].sort_values(["digest", PATH])


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """The rows of an open file: what is learned, then what validates, then what tests."""

    file: RowFile
    learned: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame

    def validated(self, head: Head) -> Scored:
        """What a classifier says of the images that validate."""
        return self._scored(head, self.validation, len(self.learned))

    def tested(self, head: Head) -> Scored:
        """What it says of the test part, which is read here, and nowhere else."""
        return self._scored(head, self.test, len(self.learned) + len(self.validation))

    def _scored(self, head: Head, rows: pd.DataFrame, begin: int) -> Scored:
        scores = score_rows(head, self.file, np.arange(begin, begin + len(rows)))
        return Scored(list(rows[PATH]), rows[LABEL_INDEX].to_numpy(), scores, head.gives)


@contextmanager
def feature_rows(
    cache: FeatureCache, prepared: PreparedImages, network: Network, learned: pd.DataFrame, name: str
) -> Iterator[FeatureRows]:
    """Write what is learned, validates and tests into a file of the cache's folder, gone at the end.

    Parameters
    ----------
    learned
        The images to learn, in the order from which each pass draws its own.
    name
        Of the folder, which nobody else has.

    Raises
    ------
    ImageSourceError
        There are no images that validate or test.
    CacheError
        The file cannot be written, or the cache lost features.
    """
    held = prepared.index[prepared.index[PART].isin(HELD_BACK)], prepared.rows(TEST)
    for part, what in zip(held, ("validation", "test"), strict=True):
        if part.empty:
            raise ImageSourceError(
                f"None of the {what} images is there any more: learn anew, without --resume."
            )
    parts = (learned, *(part.sort_values(["digest", PATH]) for part in held))
    digests = [digest for part in parts for digest in part["digest"]]
    staging = cache.root / "staging" / name
    try:
        with writing_to(cache.root):
            staging.mkdir(parents=True)
            file = RowFile(staging / "rows", (len(digests), network.width))
        with file:
            with writing_to(cache.root):
                cache.load_into(file, network, digests, ahead=False)
            yield FeatureRows(file, *parts)
    finally:
        cache.place.discard(staging)
