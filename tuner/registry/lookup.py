"""Where a champion's test images are now, by their content: the class of each today, and its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any, cast

import pandas as pd
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from tuner.base.choices import GivenSplit
from tuner.base.errors import ImageSourceError
from tuner.images.files import read_file
from tuner.images.index import ImageSet, contents, index_images
from tuner.images.sources import read_images
from tuner.spark.sessions import DriverSession
from tuner.tracking.answering import reason

Source = tuple[ImageSet, pd.DataFrame]  # images, and their index
Sessions = Callable[[], DriverSession]  # the session, started when it is first asked for


class _Spark:
    """A Spark session that is started when something is asked of it: a local folder is read without."""

    def __init__(self, session: Sessions) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session().spark, name)


@dataclass(frozen=True, eq=False)
class Lookup:
    """What was found of the wanted images.

    Attributes
    ----------
    labels
        By digest, the class of an image now, or the classes of its copies.
    unread
        By source, why it could not be read.
    certain
        Whether what was not found is gone: the place where the images were last was read.
    """

    session: Sessions
    labels: Mapping[str, Sequence[str]]
    unread: Mapping[str, ImageSourceError]
    certain: bool
    _rows: Sequence[tuple[Callable[[], ImageSet], pd.DataFrame]] = field(repr=False)

    def files(self, digests: Collection[str]) -> list[bytes | None] | None:
        """The bytes of images, in order, None for what changed; or None: this process cannot read them."""
        paths: dict[str, str] = {}
        for images, rows in self._rows:
            wanted = rows[rows["digest"].isin(digests)]
            if len(wanted) and images().listing is None:
                return None
            paths |= dict(zip(wanted["digest"], wanted["path"], strict=True))
        return [_unchanged(paths[digest], digest) for digest in digests]

    def frame(self, digests: Collection[str]) -> DataFrame:
        """The bytes of images for Spark: `digest`, `content`."""
        cores = self.session().cores
        found = [(images, rows[rows["digest"].isin(digests)]) for images, rows in self._rows]
        frames = [contents(images(), rows, cores) for images, rows in found if len(rows)]
        return reduce(DataFrame.unionByName, frames)


def _unchanged(path: str, digest: str) -> bytes | None:
    content, _ = read_file(path)
    same = content is not None and hashlib.sha256(content).hexdigest() == digest
    return content if same else None


def look_up(
    digests: Collection[str],
    places: Sequence[str],
    session: Sessions,
    *,
    known: Mapping[str, Source],
    splits: Mapping[str, pd.DataFrame],
    given: Mapping[str, GivenSplit | None],
) -> Lookup:
    """Look for images by their content, in one place after the other until all are found.

    Parameters
    ----------
    digests
        Of the images.
    places
        Sources of images; the last one is where they were last.
    session
        For what only Spark can read.
    known
        Sources that were read already.
    splits
        What searches found in sources: in a built-in one it is still there.
    given
        How sources were split already, for those searches.
    """
    left, labels = set(digests), dict[str, Sequence[str]]()
    unread, found = dict[str, ImageSourceError](), list[tuple[Callable[[], ImageSet], pd.DataFrame]]()
    for place in places:
        if not left:
            break
        try:
            images, index = _read(place, session, known, splits, given.get(place))
        except ImageSourceError as error:
            unread[place] = error
            continue
        rows = index[index["digest"].isin(left)]
        labels |= {digest: sorted(set(of)) for digest, of in rows.groupby("digest")["label"]}
        found.append((images, rows.drop_duplicates("digest")))
        left -= set(rows["digest"])
    return Lookup(session, labels, unread, places[-1] not in unread, found)


def _images(source: str, session: Sessions, given: GivenSplit | None) -> ImageSet:
    return read_images(cast(SparkSession, _Spark(session)), source, given=given, training=False)


def _read(
    source: str,
    session: Sessions,
    known: Mapping[str, Source],
    splits: Mapping[str, pd.DataFrame],
    given: GivenSplit | None,
) -> tuple[Callable[[], ImageSet], pd.DataFrame]:
    if source in known:
        images, index = known[source]
        return lambda: images, index
    if source.startswith("builtin:") and source in splits:
        return partial(_images, source, session, given), splits[source]
    try:
        read = _images(source, session, given)
        index = index_images(read, here=True)
    except PySparkException as error:
        raise ImageSourceError(f"The images {source} cannot be read: {reason(error)}.") from error
    return lambda: read, index[index["error"].isna()]
