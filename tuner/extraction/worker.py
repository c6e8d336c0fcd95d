"""A worker's part of an extraction: its images through the network, the features into files as it goes."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from tuner.base.errors import ImageSourceError, UndecidedImageError
from tuner.extraction.files import Row, parts, read_columns, write_part
from tuner.extraction.udf import open_on_worker
from tuner.images.decoding import Seen, outcomes
from tuner.images.files import CHANGED, read_file
from tuner.networks.inference import BATCH_SIZE, content_reader, featurize
from tuner.networks.resolution import Network

ListedImage = tuple[str, str]  # a file's path, and its digest
Undecided = tuple[str, str]  # an image's digest, and why it could not be decoded this time
SentPart = tuple[str, bytes]  # a part's name, and what is in it


@dataclass(frozen=True)
class FeatureWriter:
    """What one extraction's workers share.

    Attributes
    ----------
    before
        The names of the parts that were there when it began.
    decoder
        What decides whether an image can be decoded: verdicts are kept with it.
    part_seconds
        How much of a worker's work an interruption may cost.
    stop_on_bad
        Whether a part is written at once when an image cannot be decoded, for the driver to see.
    """

    network: Network
    folder: Path
    before: frozenset[str]
    decoder: str
    threads: int
    part_seconds: float
    stop_on_bad: bool

    def of_files(self, shares: Iterable[list[ListedImage]]) -> Iterator[Undecided]:
        """Read files, each once, and write their features; gives the images that are to be tried again."""
        for share in shares:
            done = self._done()
            yield from self._write(
                (digest, _read_unchanged(path, digest)) for path, digest in share if digest not in done
            )

    def of_contents(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Do so with images that come as columns `digest` and `content`; gives `digest` and `error`."""
        done = self._done()
        images = (
            (digest.as_py(), content.as_py())
            for batch in batches
            for digest, content in zip(batch.column("digest"), batch.column("content"), strict=True)
            if digest.as_py() not in done
        )
        undecided = list(self._write(images))
        yield pa.RecordBatch.from_pydict(
            {
                "digest": pa.array([digest for digest, _ in undecided], pa.string()),
                "error": pa.array([error for _, error in undecided], pa.string()),
            }
        )

    def _done(self) -> set[str]:
        """The images that this extraction is done with: a task that is tried again goes on where it was."""
        new = [part for part in parts(self.folder) if Path(part).name not in self.before]
        if not new:
            return set()
        return set(read_columns(new, ["digest"], self._outcomes)["digest"].to_pylist())

    @property
    def _outcomes(self) -> tuple[str | None, ...]:
        return (*outcomes(self.network.decoding), self.decoder)

    def _write(self, images: Iterator[tuple[str, bytes]]) -> Iterator[Undecided]:
        compute = open_on_worker(self.network, self.threads)
        read = content_reader(self.network, note=lambda seen: noted.__setitem__(-1, seen))
        digests: deque[str] = deque()  # of the images that were read, until their outcomes come
        noted: deque[Seen | UndecidedImageError | None] = deque()

        def contents() -> Iterator[bytes]:
            for digest, content in images:
                digests.append(digest)
                noted.append(None)
                yield content

        def examine(content: bytes) -> np.ndarray:
            try:
                return read(content)
            except UndecidedImageError as error:
                noted[-1] = error
                raise

        rows: list[Row] = []
        last = time.monotonic()
        for features, error in featurize(contents(), examine, compute, BATCH_SIZE):
            digest, seen = digests.popleft(), noted.popleft()
            if isinstance(seen, UndecidedImageError):
                yield digest, str(error)
                continue
            facts = (None,) * 4 if seen is None else (seen.depends, seen.highest, seen.white, seen.lowest)
            rows.append(Row(digest, features, error, *((self.decoder, *facts[1:]) if error else facts)))
            if time.monotonic() - last > self.part_seconds or (error and self.stop_on_bad):
                write_part(self.folder, rows)
                rows, last = [], time.monotonic()
        write_part(self.folder, rows)


@dataclass(frozen=True)
class PartSender:
    """A writer on a worker that shares no folder with the driver: parts travel as results of the task.

    Attributes
    ----------
    writer
        What is to be done; it writes to a folder of the worker's own.
    """

    writer: FeatureWriter

    def of_files(self, shares: Iterable[list[ListedImage]]) -> Iterator[Undecided | SentPart]:
        """As `FeatureWriter.of_files`, and the parts after that."""
        with tempfile.TemporaryDirectory() as folder:
            yield from self._writer(folder).of_files(shares)
            yield from _sent(folder)

    def of_contents(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """As `FeatureWriter.of_contents`, with the parts in a column `part`, their names in `digest`."""
        with tempfile.TemporaryDirectory() as folder:
            for undecided in self._writer(folder).of_contents(batches):
                yield undecided.append_column("part", pa.nulls(undecided.num_rows, pa.binary()))
            for name, part in _sent(folder):
                yield pa.RecordBatch.from_pydict(
                    {
                        "digest": pa.array([name], pa.string()),
                        "error": pa.nulls(1, pa.string()),
                        "part": pa.array([part], pa.binary()),
                    }
                )

    def _writer(self, folder: str) -> FeatureWriter:
        return replace(self.writer, folder=Path(folder), before=frozenset())


def _sent(folder: str) -> Iterator[SentPart]:
    for part in map(Path, parts(Path(folder))):
        yield part.name, part.read_bytes()


def _read_unchanged(path: str, digest: str) -> bytes:
    content, _ = read_file(path)
    if content is None or hashlib.sha256(content).hexdigest() != digest:
        raise ImageSourceError(CHANGED % path)
    return content
