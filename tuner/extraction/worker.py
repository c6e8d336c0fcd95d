"""A worker's part of an extraction: its images through the network, the features into files as it goes."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tuner.base.errors import ImageSourceError
from tuner.extraction.files import Row, write_part
from tuner.extraction.udf import shipped_file
from tuner.images.files import CHANGED, read_file
from tuner.networks.inference import BATCH_SIZE, content_reader, featurize
from tuner.networks.resolution import Network, load_network

ListedImage = tuple[str, str]  # a file's path, and its digest


@dataclass(frozen=True)
class FeatureWriter:
    """What one extraction's workers share.

    `part_seconds` is how much of a worker's work an interruption may cost; with `stop_on_bad` a part is
    written at once when an image cannot be decoded, for the driver to see.
    """

    network: Network
    folder: Path
    threads: int
    part_seconds: float
    stop_on_bad: bool

    def of_files(self, shares: Iterable[list[ListedImage]]) -> Iterator[int]:
        """Read files, each once, and write their features; gives the number of images of each share."""
        for share in shares:
            yield self._write(_read_unchanged(path, digest) for path, digest in share)

    def of_contents(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Do so with images that come as columns `digest` and `content`; gives a column `images`."""
        images = (
            (digest.as_py(), content.as_py())
            for batch in batches
            for digest, content in zip(batch.column("digest"), batch.column("content"), strict=True)
        )
        yield pa.RecordBatch.from_pydict({"images": [self._write(images)]})

    def _write(self, images: Iterator[tuple[str, bytes]]) -> int:
        compute = load_network(self.network, shipped_file(self.network), self.threads)
        digests: deque[str] = deque()  # of the images that were read, until their outcomes come

        def contents() -> Iterator[bytes]:
            for digest, content in images:
                digests.append(digest)
                yield content

        rows: list[Row] = []
        written, last = 0, time.monotonic()
        for features, error in featurize(contents(), content_reader(self.network), compute, BATCH_SIZE):
            rows.append((digests.popleft(), features, error))
            if time.monotonic() - last > self.part_seconds or (error and self.stop_on_bad):
                written += write_part(self.folder, rows)
                rows, last = [], time.monotonic()
        return written + write_part(self.folder, rows)


def _read_unchanged(path: str, digest: str) -> tuple[str, bytes]:
    content, _ = read_file(path)
    if content is None or hashlib.sha256(content).hexdigest() != digest:
        raise ImageSourceError(CHANGED % path)
    return digest, content
