"""The feature cache: each image goes through each network once, over all searches.

One folder a `Backbone.key`, so that whatever decides a feature is part of the path; in it, Parquet files
of rows (digest, features, error), each written aside and renamed, so that a reader sees whole files alone.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from filelock import FileLock
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tuner.backbones import Backbone, load_network
from tuner.errors import CacheError, ImageSourceError
from tuner.featurizer import BATCH_SIZE, content_reader, featurize, ship_network, shipped_file
from tuner.images import ImageSet, contents

_SCHEMA = pa.schema([("digest", pa.string()), ("features", pa.list_(pa.float32())), ("error", pa.string())])
_PART_SECONDS = 5.0  # how much work an interruption may cost
_POLL_SECONDS = 0.2

Progress = Callable[[int, int], None]  # images done, images to do


@dataclass(frozen=True)
class Extraction:
    """What one extraction did: counts of images, and its seconds."""

    extracted: int
    failed: int
    seconds: float


class FeatureCache:
    """Features by network and by image content, under one folder.

    Parameters
    ----------
    root
        The folder; on a cluster, one that the driver and every worker see.

    Raises
    ------
    CacheError
        The folder cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.backbones = self.root / "backbones"
        try:
            self.backbones.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".{uuid.uuid4().hex}.tmp"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise CacheError(
                f"The feature cache {self.root} cannot be written ({error.strerror}): choose another "
                "folder with cache."
            ) from error

    def folder(self, backbone: Backbone) -> Path:
        """The folder of one network's features."""
        return self.root / "features" / backbone.key

    def known(self, backbone: Backbone) -> pd.DataFrame:
        """The images whose outcome is known: columns `digest` and `error` (None: there are features)."""
        parts = _parts(self.folder(backbone))
        if not parts:
            return pd.DataFrame({"digest": [], "error": []}, dtype=object)
        table = ds.dataset(parts, schema=_SCHEMA).to_table(columns=["digest", "error"])
        return table.to_pandas().drop_duplicates("digest")

    def missing(self, backbone: Backbone, digests: Sequence[str]) -> list[str]:
        """The distinct digests, in order, that were not extracted yet."""
        known = set(self.known(backbone)["digest"])
        return [digest for digest in dict.fromkeys(digests) if digest not in known]

    def extract(
        self,
        spark: SparkSession,
        backbone: Backbone,
        images: ImageSet,
        index: pd.DataFrame,
        *,
        tasks: int,
        threads: int = 1,
        on_progress: Progress = lambda *_: None,
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
        fail_on_bad_image
            Stop at the first image that cannot be decoded.

        Raises
        ------
        ImageSourceError
            An image cannot be decoded and `fail_on_bad_image` is set.
        CacheError
            The features cannot be written.
        """
        folder = self.folder(backbone)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            missing = self.missing(backbone, list(index["digest"]))
            if not missing:
                return Extraction(0, 0, 0.0)
            _prepare(folder, backbone)
            wanted = index[index["digest"].isin(set(missing))].drop_duplicates("digest")
            started = time.monotonic()
            ship_network(spark, backbone)
            frame = contents(images, wanted, partitions=min(tasks, len(missing)))
            work = frame.mapInArrow(_writer(backbone, folder, threads, fail_on_bad_image), "images long")
            with _watch(spark, folder, len(missing), on_progress, fail_on_bad_image) as bad_seen:
                _run(work, folder, bad_seen)
            known = self.known(backbone)
            done = known[known["digest"].isin(set(missing))]
            if fail_on_bad_image:
                refuse_bad_images(index, done)
            on_progress(len(missing), len(missing))
            return Extraction(len(done), int(done["error"].notna().sum()), time.monotonic() - started)

    def read(self, spark: SparkSession, backbone: Backbone) -> DataFrame:
        """The features of every image that has them: `digest`, and `features` as a dense vector."""
        rows = spark.read.parquet(*_parts(self.folder(backbone)))
        good = rows.where(F.col("error").isNull()).dropDuplicates(["digest"])
        return good.select("digest", array_to_vector(F.col("features")).alias("features"))


def refuse_bad_images(index: pd.DataFrame, known: pd.DataFrame) -> None:
    """Raise `ImageSourceError` for the first image of `index` that `known` has an error for."""
    bad = index.merge(known[known["error"].notna()][["digest", "error"]], on="digest", suffixes=("_", ""))
    if len(bad):
        path, reason = bad.sort_values("path").iloc[0][["path", "error"]]
        raise ImageSourceError(
            f"The image {path} cannot be used ({reason}), and on_bad_image is fail: repair or remove it, "
            "or set on_bad_image: quarantine."
        )


def _parts(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("part-*.parquet"))


def _prepare(folder: Path, backbone: Backbone) -> None:
    """Say for people what the folder holds, and clear what killed workers left."""
    for leftover in folder.glob(".part-*.tmp"):
        leftover.unlink(missing_ok=True)
    description = folder / "backbone.json"
    if not description.exists():
        description.write_text(json.dumps(backbone.to_dict(), indent=2) + "\n", encoding="utf-8")


def _run(work: DataFrame, folder: Path, bad_seen: threading.Event) -> None:
    try:
        work.agg(F.sum("images")).collect()
    except Exception as error:
        if bad_seen.is_set():  # cancelled on purpose
            return
        if "No space left on device" in str(error):
            raise CacheError(
                f"The disk of the feature cache {folder.parent.parent} is full: free some space, or choose "
                "another folder with cache; what was extracted so far is kept."
            ) from error
        raise


@contextmanager
def _watch(
    spark: SparkSession, folder: Path, total: int, on_progress: Progress, stop_on_bad: bool
) -> Iterator[threading.Event]:
    """Report progress from the names of new files and, if asked to, cancel at the first bad image."""
    group = f"tuner-extract-{uuid.uuid4().hex}"
    before = set(_parts(folder))
    finished, bad_seen = threading.Event(), threading.Event()

    def watch() -> None:
        while not finished.wait(_POLL_SECONDS):
            counts = [_counts(part) for part in set(_parts(folder)) - before]
            on_progress(sum(rows for rows, _ in counts), total)
            if stop_on_bad and any(bad for _, bad in counts) and not bad_seen.is_set():
                bad_seen.set()
                spark.sparkContext.cancelJobGroup(group)

    spark.sparkContext.setJobGroup(group, "Extract features")
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield bad_seen
    finally:
        finished.set()
        watcher.join()
        for name in ("spark.jobGroup.id", "spark.job.description"):
            spark.sparkContext.setLocalProperty(name, None)  # type: ignore[arg-type]  # None unsets it


def _counts(part: str) -> tuple[int, int]:
    """The rows and the bad images of a part, which its name tells: part-<rows>-<bad>-<sha256>.parquet."""
    _, rows, bad, _ = Path(part).name.split("-", 3)
    return int(rows), int(bad)


def _writer(
    backbone: Backbone, folder: Path, threads: int, stop_on_bad: bool
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Make the function that each worker runs over its images: extract, and write parts as it goes."""

    def write_parts(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        network = load_network(backbone, shipped_file(backbone), threads)
        rows: list[tuple[str, np.ndarray | None, str | None]] = []
        written, last = 0, time.monotonic()
        for batch in batches:
            digests = batch.column("digest").to_pylist()
            images = (value.as_py() for value in batch.column("content"))
            results = featurize(images, content_reader(backbone), network, BATCH_SIZE)
            for digest, (features, error) in zip(digests, results, strict=True):
                rows.append((digest, features, error))
                if time.monotonic() - last > _PART_SECONDS or (error and stop_on_bad):
                    written += _write_part(folder, rows)
                    rows, last = [], time.monotonic()
        written += _write_part(folder, rows)
        yield pa.RecordBatch.from_pydict({"images": [written]})

    return write_parts


def _write_part(folder: Path, rows: list[tuple[str, np.ndarray | None, str | None]]) -> int:
    """Write one part aside, then rename it to a name that tells its counts and its content."""
    if not rows:
        return 0
    digests, features, errors = zip(*rows, strict=True)
    table = pa.table([list(digests), list(features), list(errors)], schema=_SCHEMA)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    data = buffer.getvalue()
    bad = sum(error is not None for error in errors)
    aside = folder / f".part-{uuid.uuid4().hex}.tmp"
    aside.write_bytes(data)
    aside.replace(folder / f"part-{len(rows)}-{bad}-{hashlib.sha256(data).hexdigest()}.parquet")
    return len(rows)
