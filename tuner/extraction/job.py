"""One extraction's Spark job, on the driver: handed to the workers, watched, shown, its errors told."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as ProgressBar

from tuner.base import errors
from tuner.base.wording import clock
from tuner.extraction.files import counts, keep_part, parts
from tuner.extraction.worker import FeatureWriter, PartSender, SentPart, Undecided
from tuner.images.index import ImageSet, contents
from tuner.spark.jobs import tagged
from tuner.spark.worker_daemon import FOR_EXTRACTION, hand_over, preloading

_POLL_SECONDS = 0.2
_ROUND_BYTES, _ROUND_IMAGES = 256 * 2**20, 256  # of features in all; of files, for each task

Progress = Callable[[int, int], None]  # images done, images to do
Result = Undecided | SentPart  # of a task


def run_extraction(
    spark: SparkSession,
    writer: FeatureWriter,
    images: ImageSet,
    missing: pd.DataFrame,
    tasks: int,
    on_progress: Progress,
    *,
    sent: bool = False,
) -> dict[str, str]:
    """Let workers extract the features of missing images (`path`, `digest`), in so many tasks.

    Gives, by digest, why images could not be decoded this time. With `writer.stop_on_bad` the job ends at
    the first image that cannot be. `sent`: workers do not see the folder; they send the driver what they
    would write, round after round, so that it holds little at once and an interruption costs little.

    Raises
    ------
    ImageSourceError, CacheError
        What a worker raised.
    """
    undecided: dict[str, str] = {}
    with _watch(spark, writer, len(missing), on_progress) as bad_seen:
        for some in _rounds(writer, images, missing, tasks) if sent else [missing]:
            work = _work(spark, writer, images, some, min(tasks, len(some)), sent)
            for name, found in _run(work, bad_seen):
                if isinstance(found, bytes):
                    keep_part(writer.folder, name, found)
                else:
                    undecided[name] = found
            if bad_seen.is_set():
                break
    return undecided


def _rounds(
    writer: FeatureWriter, images: ImageSet, missing: pd.DataFrame, tasks: int
) -> Iterator[pd.DataFrame]:
    """Deal images to rounds; those of a table are few, for each reads all of it."""
    rows = _ROUND_BYTES // (4 * writer.network.width)
    if images.listing is not None:
        rows = min(rows, _ROUND_IMAGES * tasks)
    for start in range(0, len(missing), max(rows, tasks)):
        yield missing.iloc[start : start + max(rows, tasks)]


def _work(
    spark: SparkSession,
    writer: FeatureWriter,
    images: ImageSet,
    missing: pd.DataFrame,
    tasks: int,
    sent: bool,
) -> Callable[[], Iterable[Result]]:
    """The Spark job in which the workers extract."""
    worker = PartSender(writer) if sent else writer
    if images.listing is None:
        columns = "digest string, error string" + (", part binary" if sent else "")
        with preloading(spark.sparkContext, FOR_EXTRACTION):
            done = contents(images, missing, tasks).mapInArrow(worker.of_contents, columns)
            return lambda: [_result(*row) for row in done.collect()]
    files = list(missing[["path", "digest"]].itertuples(index=False, name=None))
    shares = spark.sparkContext.parallelize([files[task::tasks] for task in range(tasks)], tasks)
    return hand_over(shares.mapPartitions(worker.of_files), FOR_EXTRACTION).collect


def _result(name: str, error: str, part: bytes | None = None) -> Result:
    return (name, error) if part is None else (name, bytes(part))


def _run(work: Callable[[], Iterable[Result]], bad_seen: threading.Event) -> list[Result]:
    try:
        return list(work())
    except Exception as error:
        if bad_seen.is_set():  # cancelled on purpose
            return []
        raised = rf"{re.escape(errors.__name__)}\.(CacheError|ImageSourceError): (.+)"
        sentence = re.search(raised, str(error))
        if sentence:  # what a worker raised
            raise getattr(errors, sentence[1])(sentence[2]) from error
        raise


@contextmanager
def _watch(
    spark: SparkSession, writer: FeatureWriter, total: int, on_progress: Progress
) -> Iterator[threading.Event]:
    """Report progress from the names of new files and, if asked to, cancel at the first bad image."""
    finished, bad_seen = threading.Event(), threading.Event()

    def watch(tag: str) -> None:
        while not finished.wait(_POLL_SECONDS):
            done = [counts(part) for part in parts(writer.folder) if Path(part).name not in writer.before]
            on_progress(sum(rows for rows, _ in done), total)
            if writer.stop_on_bad and any(bad for _, bad in done) and not bad_seen.is_set():
                bad_seen.set()
                spark.sparkContext.cancelJobsWithTag(tag)

    with tagged(spark.sparkContext, "extract") as tag:
        watcher = threading.Thread(target=watch, args=(tag,), daemon=True)
        watcher.start()
        try:
            yield bad_seen
        finally:
            finished.set()
            watcher.join()


class ExtractionProgress:
    """Shows how many images went through each network, how many a second, and the time left.

    Bars on a terminal; elsewhere lines at the end.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = ProgressBar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images · {task.fields[rate]:.1f} images/s{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> ExtractionProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def of(self, network: str, total: int) -> Iterator[Progress]:
        """Show one network's progress; yields the callback, which any thread may call."""
        started, done_so_far = time.monotonic(), 0
        bar = self._bars.add_task(network, total=total, rate=0.0, left="")

        def report(done: int, _: int) -> None:
            nonlocal done_so_far
            done_so_far = done
            seconds = time.monotonic() - started
            rate = done / max(seconds, 1e-6)
            left = f" · about {clock((total - done) / rate)} left" if 0 < done < total else ""
            left = left or (f" · {clock(seconds)}" if done else "")
            self._bars.update(bar, completed=done, rate=rate, left=left)

        yield report
        if not self._console.is_terminal and done_so_far:
            rate = done_so_far / max(time.monotonic() - started, 1e-6)
            self._console.print(f"{network}: {done_so_far} images, {rate:.1f} images/s", markup=False)
