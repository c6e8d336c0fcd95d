"""The feature cache: each image goes through each network once, over all searches.

One folder a `Network.key`, so that whatever decides a feature is part of the path; in it, Parquet files
of rows (digest, features, error and what else decided them), each written aside and renamed, so that a
reader sees whole files alone. A row counts as long as what decided it is what the experiment says today,
and an error as long as the decoder is of today's version; no row is removed for another.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tuner.base.errors import CacheError, ImageSourceError
from tuner.base.uris import hadoop_uri, literal
from tuner.extraction.compaction import compact
from tuner.extraction.files import (
    Matrix,
    parts,
    read_columns,
    read_features,
    remove_damaged,
    repeats,
    writing_to,
)
from tuner.extraction.job import Progress, run_extraction
from tuner.extraction.occupancy import occupy
from tuner.extraction.place import CachePlace
from tuner.extraction.udf import ship_network
from tuner.extraction.worker import FeatureWriter
from tuner.images.decoding import decoder, outcomes
from tuner.images.index import ImageSet
from tuner.networks.resolution import Network
from tuner.networks.store import NetworkStore

_T = TypeVar("_T")

_COLUMNS = "digest string, features array<float>, error string, depends string"  # the same for Spark
_KNOWN = ("digest", "error", "highest", "white", "lowest")
_PART_SECONDS = 5.0
_GLOB = re.compile(r"[\[\]{}*?\\]")


@dataclass(frozen=True)
class Extraction:
    """What one extraction did.

    Attributes
    ----------
    extracted, failed, seconds
        The images that went through it, those of them without features, and how long it took.
    undecided
        By digest, why images could not be decoded this time: nothing is kept of them, and the next
        extraction tries them again.
    """

    extracted: int
    failed: int
    seconds: float
    undecided: Mapping[str, str] = field(default_factory=dict)


class FeatureCache:
    """Features by network and by image content, under one folder; as long as it is open, nobody prunes it.

    Parameters
    ----------
    root
        The folder or its `file:` URI; on a cluster, one that the driver and every worker see. Or, as text,
        the URI of a folder on a Hadoop filesystem (`tuner.extraction.place`).
    part_seconds
        How much of a worker's work an interruption may cost.

    Raises
    ------
    CacheError
        The folder cannot be written, is not a folder of this machine, or Spark cannot name it.
    """

    def __init__(self, root: Path | str, part_seconds: float = _PART_SECONDS) -> None:
        self.place = CachePlace(root)
        self.root = self.place.root
        self.part_seconds = part_seconds
        self.networks = NetworkStore(self.root)
        with writing_to(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".{uuid.uuid4().hex}.tmp"
            probe.touch()
            probe.unlink()
        self.close = occupy(self.root, self)
        self._used: set[Path] = set()

    def folder(self, network: Network) -> Path:
        """The folder of one network's features."""
        return self.root / "features" / network.key

    def known(self, network: Network) -> pd.DataFrame:
        """The images whose outcome is known: columns `digest`, `error`, `highest`, `white`, `lowest`.

        An error of None means that there are features; `highest` is the image's highest value, where
        `white` stands for white, and `lowest` the lowest, if it is below 0.

        Raises
        ------
        CacheError
            A file of the cache is damaged.
        """
        if not parts(self.folder(network)):
            return pd.DataFrame({name: [] for name in _KNOWN}, dtype=object)
        known: pd.DataFrame = self._read(
            network, lambda files: read_columns(files, _KNOWN, _outcomes(network)).to_pandas()
        )
        # Where another version read an image, and this one once did not, it has features.
        known = known.sort_values("error", na_position="first", kind="stable")
        return known.drop_duplicates("digest")

    def remove_damaged(self, network: Network) -> int:
        """Remove files that were cut off or changed, so that their images are extracted again."""
        with writing_to(self.root):
            return remove_damaged(self.folder(network))

    def exchange(self, spark: SparkSession, network: Network) -> None:
        """Fetch and send what is missing here and there, if the cache is on a Hadoop filesystem."""
        self.place.exchange(spark, self.folder(network))

    def missing(self, network: Network, digests: Sequence[str]) -> list[str]:
        """The distinct digests, in order, that were not extracted yet."""
        known = set(self.known(network)["digest"])
        return [digest for digest in dict.fromkeys(digests) if digest not in known]

    def extract(
        self,
        spark: SparkSession,
        network: Network,
        images: ImageSet,
        index: pd.DataFrame,
        *,
        tasks: int,
        threads: int = 1,
        on_progress: Progress = lambda *_: None,
        on_wait: Callable[[], None] = lambda: None,
        fail_on_bad_image: bool = False,
    ) -> Extraction:
        """Extract what is missing of the images of `index` (columns `path`, `digest`).

        Tasks write their own files every few seconds, so that an interrupted extraction goes on where
        it stopped. Another process that extracts with the same network is waited for.

        Parameters
        ----------
        tasks, threads
            Python workers at once, and TensorFlow's threads in each: their product is the cores.
        on_progress
            Called on the driver, from another thread, as images are done.
        on_wait
            Called once if another process is to be waited for.
        fail_on_bad_image
            Stop at the first image that cannot be decoded; what was extracted until then is kept.

        Raises
        ------
        ImageSourceError
            An image cannot be decoded and `fail_on_bad_image` is set; or one is no longer what was listed.
        CacheError
            The features cannot be written.
        """
        folder = self.folder(network)
        with _locked(folder, self.root, on_wait):
            started, known = time.monotonic(), self.known(network)
            if fail_on_bad_image:
                refuse_bad_images(index, known)
            missing = index[~index["digest"].isin(set(known["digest"]))].drop_duplicates("digest")
            if missing.empty:
                return Extraction(0, 0, 0.0)
            with writing_to(self.root):
                _prepare(folder, network)
            ship_network(spark, network)
            before = frozenset(Path(part).name for part in parts(folder))
            writer = FeatureWriter(
                network, folder, before, decoder(), threads, self.part_seconds, fail_on_bad_image
            )
            sent = self.place.seen_by_workers(spark) is None
            try:
                undecided = run_extraction(spark, writer, images, missing, tasks, on_progress, sent=sent)
            finally:
                self.place.send(folder)
            if self.place.uri is None:  # elsewhere files only come, so that each machine may keep its own
                with writing_to(self.root):
                    compact(folder)
            known = self.known(network)
        if fail_on_bad_image:
            refuse_bad_images(index, known)
        on_progress(len(missing), len(missing))
        failed = known["digest"].isin(set(missing["digest"])) & known["error"].notna()
        failures = int(failed.sum()) + len(undecided)
        return Extraction(len(missing), failures, time.monotonic() - started, undecided)

    def load(self, network: Network, digests: Sequence[str]) -> np.ndarray:
        """The features of images that have them, here and in this order: float32 of shape (n, width).

        Raises
        ------
        CacheError
            As `load_into`.
        """
        matrix = np.empty((len(digests), network.width), np.float32)
        self.load_into(matrix, network, digests)
        return matrix

    def load_into(
        self,
        matrix: Matrix,
        network: Network,
        digests: Sequence[str],
        advance: Callable[[int], object] = lambda _: None,
        *,
        ahead: bool = True,
    ) -> None:
        """Read the features of images that have them into the rows of a matrix, in this order.

        `advance` is told how many distinct images more; `ahead` is as `read_features` takes it.

        Raises
        ------
        CacheError
            A file of the cache is damaged, or some of the images have no features.
        """
        self._note_use(network)
        outcomes = _outcomes(network)
        self._read(
            network, lambda files: read_features(files, digests, matrix, outcomes, advance, ahead=ahead)
        )

    def _note_use(self, network: Network) -> None:
        folder = self.folder(network)
        if folder not in self._used:  # once: elsewhere it is a file to be sent
            self._used.add(folder)
            self.place.note_use(folder)

    def _read(self, network: Network, read: Callable[[list[str]], _T]) -> _T:
        """Read the parts; once more, if another process put them together meanwhile."""
        files = parts(self.folder(network))
        try:
            return read(files)
        except CacheError:
            again = parts(self.folder(network))
            if again == files:
                raise
            return read(again)

    def read(self, spark: SparkSession, network: Network, zero: float = 0.0) -> DataFrame:
        """The features of every image that has them: `digest`, and `features` as a dense vector.

        `zero` is what stands for a feature of 0.
        """
        self._note_use(network)
        found = parts(self.folder(network))
        files = [literal(hadoop_uri(Path(part))) for part in found]
        files = self.place.uris(spark, self.folder(network), files)
        depends = [outcome for outcome in outcomes(network.decoding) if outcome is not None]
        counts = F.col("depends").isin(depends)
        if None in outcomes(network.decoding):
            counts |= F.col("depends").isNull()
        good = spark.read.schema(_COLUMNS).parquet(*files).where(F.col("error").isNull() & counts)
        if repeats(found, outcomes(network.decoding)):  # only then all features are worth a shuffle
            good = good.dropDuplicates(["digest"])
        values = F.col("features")
        if zero:
            values = F.transform(values, lambda value: F.when(value == 0, zero).otherwise(value))
        return good.select("digest", array_to_vector(values).alias("features"))


def _outcomes(network: Network) -> tuple[str | None, ...]:
    """What must have decided a row, for it to count."""
    return (*outcomes(network.decoding), decoder())


def refuse_bad_images(index: pd.DataFrame, known: pd.DataFrame) -> None:
    """Raise `ImageSourceError` for the first image of `index` that `known` has an error for."""
    bad = index.merge(known[known["error"].notna()][["digest", "error"]], on="digest", suffixes=("_", ""))
    if len(bad):
        path, reason = bad.sort_values("path").iloc[0][["path", "error"]]
        raise ImageSourceError(
            f"The image {path} cannot be used ({reason}), and on_bad_image is fail: repair or remove it, "
            "or set on_bad_image: quarantine."
        )


@contextmanager
def _locked(folder: Path, root: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold one network's features; `on_wait` is called if another process holds them."""
    lock = FileLock(folder.with_suffix(".lock"))
    with writing_to(root):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            on_wait()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _prepare(folder: Path, network: Network) -> None:
    """Say for people what the folder holds, and clear what killed workers left."""
    for leftover in folder.glob(".part-*.tmp"):
        leftover.unlink(missing_ok=True)
    description = folder / "network.json"
    if not description.exists():
        description.write_text(json.dumps(network.to_dict(), indent=2) + "\n", encoding="utf-8")
