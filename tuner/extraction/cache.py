"""The feature cache: each image goes through each network once, over all searches.

One folder a `Network.key`, so that whatever decides a feature is part of the path; in it, Parquet files
of rows (digest, features, error), each written aside and renamed, so that a reader sees whole files alone.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tuner.base import errors
from tuner.base.errors import CacheError, ImageSourceError
from tuner.extraction.files import (
    counts,
    parts,
    read_columns,
    remove_damaged,
    repeats,
    writing_to,
)
from tuner.extraction.reading import read_features
from tuner.extraction.udf import ship_network
from tuner.extraction.worker import FeatureWriter
from tuner.images.index import contents
from tuner.images.sources import ImageSet
from tuner.networks.resolution import Network
from tuner.networks.store import NetworkStore
from tuner.spark.worker_daemon import FOR_EXTRACTION, hand_over, preloading

_COLUMNS = "digest string, features array<float>, error string"  # the same for Spark
_PART_SECONDS = 5.0
_POLL_SECONDS = 0.2
_GLOB = re.compile(r"[\[\]{}*?\\]")

Progress = Callable[[int, int], None]  # images done, images to do


@dataclass(frozen=True)
class Extraction:
    """What one extraction did: images that went through it, those of them that failed, its seconds."""

    extracted: int
    failed: int
    seconds: float


class FeatureCache:
    """Features by network and by image content, under one folder.

    Parameters
    ----------
    root
        The folder or its `file:` URI; on a cluster, one that the driver and every worker see.
    part_seconds
        How much of a worker's work an interruption may cost.

    Raises
    ------
    CacheError
        The folder cannot be written, is not a folder of this machine, or Spark cannot name it.
    """

    def __init__(self, root: Path, part_seconds: float = _PART_SECONDS) -> None:
        self.root = _local(root).absolute()
        self.part_seconds = part_seconds
        if _GLOB.search(str(self.root)):
            raise CacheError(
                f"The feature cache {self.root} has one of []{{}}*?\\ in its path, which Spark takes for a "
                "pattern: choose another folder with cache."
            )
        self.networks = NetworkStore(self.root)
        with writing_to(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".{uuid.uuid4().hex}.tmp"
            probe.touch()
            probe.unlink()

    def folder(self, network: Network) -> Path:
        """The folder of one network's features."""
        return self.root / "features" / network.key

    def known(self, network: Network) -> pd.DataFrame:
        """The images whose outcome is known: columns `digest` and `error` (None: there are features).

        Raises
        ------
        CacheError
            A file of the cache is damaged.
        """
        files = parts(self.folder(network))
        if not files:
            return pd.DataFrame({"digest": [], "error": []}, dtype=object)
        return read_columns(files, ["digest", "error"]).to_pandas().drop_duplicates("digest")

    def remove_damaged(self, network: Network) -> int:
        """Remove files that were cut off or changed, so that their images are extracted again."""
        with writing_to(self.root):
            return remove_damaged(self.folder(network))

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
            writer = FeatureWriter(network, folder, threads, self.part_seconds, fail_on_bad_image)
            work = _work(spark, writer, images, missing, min(tasks, len(missing)))
            with _watch(spark, folder, len(missing), on_progress, fail_on_bad_image) as bad_seen:
                _run(work, bad_seen)
            known = self.known(network)
        if fail_on_bad_image:
            refuse_bad_images(index, known)
        on_progress(len(missing), len(missing))
        failed = known["digest"].isin(set(missing["digest"])) & known["error"].notna()
        return Extraction(len(missing), int(failed.sum()), time.monotonic() - started)

    def load(
        self, network: Network, digests: Sequence[str], matrix: np.ndarray | None = None
    ) -> np.ndarray:
        """The features of images that have them, here and in this order: float32 of shape (n, width).

        They are read into `matrix`, if one is given.

        Raises
        ------
        CacheError
            A file of the cache is damaged, or some of the images have no features.
        """
        if matrix is None:
            matrix = np.empty((len(digests), network.width), np.float32)
        read_features(parts(self.folder(network)), digests, matrix)
        return matrix

    def read(self, spark: SparkSession, network: Network, zero: float = 0.0) -> DataFrame:
        """The features of every image that has them: `digest`, and `features` as a dense vector.

        `zero` is what stands for a feature of 0.
        """
        found = parts(self.folder(network))
        files = [f"file://{part}" for part in found]  # not the cluster's own system
        good = spark.read.schema(_COLUMNS).parquet(*files).where(F.col("error").isNull())
        if repeats(found):  # a task was tried again; only then all features are worth a shuffle
            good = good.dropDuplicates(["digest"])
        values = F.col("features")
        if zero:
            values = F.transform(values, lambda value: F.when(value == 0, zero).otherwise(value))
        return good.select("digest", array_to_vector(values).alias("features"))


def _local(root: Path) -> Path:
    """The path of a `file:` URI, whose slashes `Path` has made fewer; of a path, itself."""
    scheme, colon, rest = str(root).partition(":/")
    if not colon or "/" in scheme or len(scheme) < 2:
        return root
    if scheme != "file":
        raise CacheError(
            f"The feature cache cannot be on {scheme}: choose a folder that driver and workers share with "
            "cache, or mount the store as one."
        )
    return Path(f"/{rest.lstrip('/')}")


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


def _work(
    spark: SparkSession, writer: FeatureWriter, images: ImageSet, missing: pd.DataFrame, tasks: int
) -> Callable[[], object]:
    """The Spark job in which the workers extract, in as many tasks."""
    if images.listing is None:
        with preloading(spark.sparkContext, FOR_EXTRACTION):
            done = contents(images, missing, tasks).mapInArrow(writer.of_contents, "images long")
            return done.agg(F.sum("images")).collect
    files = list(missing[["path", "digest"]].itertuples(index=False, name=None))
    shares = spark.sparkContext.parallelize([files[task::tasks] for task in range(tasks)], tasks)
    return hand_over(shares.mapPartitions(writer.of_files), FOR_EXTRACTION).collect


def _run(work: Callable[[], object], bad_seen: threading.Event) -> None:
    try:
        work()
    except Exception as error:
        if bad_seen.is_set():  # cancelled on purpose
            return
        sentence = re.search(r"tuner\.errors\.(CacheError|ImageSourceError): (.+)", str(error))
        if sentence:  # what a worker raised
            raise getattr(errors, sentence[1])(sentence[2]) from error
        raise


@contextmanager
def _watch(
    spark: SparkSession, folder: Path, total: int, on_progress: Progress, stop_on_bad: bool
) -> Iterator[threading.Event]:
    """Report progress from the names of new files and, if asked to, cancel at the first bad image."""
    tag = f"tuner-extract-{uuid.uuid4().hex}"
    before = set(parts(folder))
    finished, bad_seen = threading.Event(), threading.Event()

    def watch() -> None:
        while not finished.wait(_POLL_SECONDS):
            done = [counts(part) for part in set(parts(folder)) - before]
            on_progress(sum(rows for rows, _ in done), total)
            if stop_on_bad and any(bad for _, bad in done) and not bad_seen.is_set():
                bad_seen.set()
                spark.sparkContext.cancelJobsWithTag(tag)

    spark.sparkContext.addJobTag(tag)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield bad_seen
    finally:
        finished.set()
        watcher.join()
        spark.sparkContext.removeJobTag(tag)
