"""Many small parts of one network's features become few: workers write one every few seconds."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from tuner.extraction.files import SCHEMA, counts, part_path, parts

MOST_PARTS = 64  # more small ones are put together: each is opened and checked by every search
PART_ROWS = 50_000
_ROW_GROUP = 4096  # held at once


def compact(folder: Path) -> int:
    """Put small parts together, once there are many; gives how many parts that leaves the less.

    Each larger part is whole before those that it replaces go. Who stops in between leaves rows that stand
    twice, which readers take once.
    """
    small = [part for part in parts(folder) if counts(part)[0] < PART_ROWS // 2]
    if len(small) <= MOST_PARTS:
        return 0
    before = len(parts(folder))
    for group in _groups(small):
        aside = folder / f".part-{uuid.uuid4().hex}.tmp"
        try:
            with pq.ParquetWriter(aside, SCHEMA) as writer:
                for batch in ds.dataset(group, schema=SCHEMA).to_batches(batch_size=_ROW_GROUP):
                    writer.write_batch(batch)
            rows, bad = (sum(numbers) for numbers in zip(*map(counts, group), strict=True))
            whole = part_path(folder, rows, bad, aside)
            aside.replace(whole)
        finally:
            aside.unlink(missing_ok=True)
        for part in map(Path, group):
            if part != whole:
                part.unlink(missing_ok=True)
    return before - len(parts(folder))


def _groups(files: Sequence[str]) -> Iterator[list[str]]:
    """Parts of together so many rows as one may have."""
    group: list[str] = []
    rows = 0
    for part in files:
        count = counts(part)[0]
        if group and rows + count > PART_ROWS:
            yield group
            group, rows = [], 0
        group.append(part)
        rows += count
    yield group
