"""The files of the feature cache: written aside and renamed, named after their content, checked by it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from tuner.base.errors import CacheError
from tuner.base.files import file_digest, write_aside, writing
from tuner.base.wording import first_line

SCHEMA = pa.schema(
    [
        ("digest", pa.string()),
        ("features", pa.list_(pa.float32())),
        ("error", pa.string()),
        ("depends", pa.string()),
        ("highest", pa.float32()),
        ("white", pa.float32()),
        ("lowest", pa.float32()),
    ]
)
_BATCH_ROWS, _BATCH_BYTES = 4096, 32 * 2**20  # held at once
# How files are read: ahead of what is asked for, on all cores; or one after the other, by pieces.
_AHEAD: Mapping[str, Any] = {"batch_readahead": 2, "fragment_readahead": 2}
_BY_PIECES: Mapping[str, Any] = {
    "batch_readahead": 0,
    "fragment_readahead": 1,
    "use_threads": False,
    "fragment_scan_options": ds.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True),
}
_DIGITS = 32  # of the sha256 of a file, in its name

_checked: dict[Path, tuple[int, int]] = {}


class Row(NamedTuple):
    """What came of an image.

    Attributes
    ----------
    digest
        Of its bytes.
    features, error
        Its features, or why there are none.
    depends
        What decided this beside the bytes and the network: of features, options of the experiment, or None;
        of an error, the decoder's version.
    highest, white, lowest
        Its highest value, what stands for white and its lowest value, if that is below 0, in its own units;
        None with an error.
    """

    digest: str
    features: np.ndarray | None
    error: str | None
    depends: str | None = None
    highest: float | None = None
    white: float | None = None
    lowest: float | None = None


class Matrix(Protocol):
    """What features are read into: an array, in memory or mapped, or a file of rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """How many rows of how many features."""

    def __setitem__(self, places: np.ndarray, values: np.ndarray, /) -> None:
        """Write float32 rows at these places."""

    def __getitem__(self, places: np.ndarray, /) -> np.ndarray:
        """Read rows."""


Outcomes = Collection[str | None]  # what `depends` may be, for a row to count


def counting(outcomes: Outcomes) -> pc.Expression:
    """The rows that count: those that came of the options, and the decoder, of today."""
    depends = pc.field("depends")
    some = depends.isin([outcome for outcome in outcomes if outcome is not None])
    return some | (depends.is_null() & pc.field("error").is_null()) if None in outcomes else some


def writing_to(root: Path | str) -> AbstractContextManager[None]:
    """Turn the system's refusal to write to the cache into one sentence."""
    advice = "free it or choose another folder with cache; what was extracted so far is kept"
    return writing("The feature cache", root, advice)


def parts(folder: Path) -> list[str]:
    """The files of one network's features, by name."""
    return sorted(str(path) for path in folder.glob("part-*.parquet"))


def counts(part: str) -> tuple[int, int]:
    """The rows and the bad images of a part, which its name tells: part-<rows>-<bad>-<digest>.parquet."""
    _, rows, bad, _ = Path(part).name.split("-", 3)
    return int(rows), int(bad)


def part_path(folder: Path, rows: int, bad: int, written: Path) -> Path:
    """What a part is called, once it is written."""
    return folder / f"part-{rows}-{bad}-{file_digest(written)[:_DIGITS]}.parquet"


def repeats(files: Sequence[str], outcomes: Outcomes) -> bool:
    """Whether an image counts in parts twice, as after a task that was tried again."""
    digests = read_columns(files, ["digest"], outcomes)["digest"]
    return pc.count_distinct(digests).as_py() < len(digests)


def read_columns(files: Sequence[str], columns: Sequence[str], outcomes: Outcomes) -> pa.Table:
    """Some columns of the rows that count, of all parts.

    Raises
    ------
    CacheError
        A part is damaged.
    """
    try:
        return ds.dataset(list(files), schema=SCHEMA).to_table(
            columns=list(columns), filter=counting(outcomes)
        )
    except (pa.ArrowException, OSError) as error:
        raise _damaged(error) from error


def read_features(
    files: Sequence[str],
    digests: Sequence[str],
    matrix: Matrix,
    outcomes: Outcomes,
    advance: Callable[[int], object] = lambda _: None,
    *,
    ahead: bool = True,
) -> None:
    """Read the features of images into the rows of a matrix, in the order of their digests.

    Parameters
    ----------
    files
        Parts of one network's features.
    digests
        Of n images; one may stand there several times.
    matrix
        float32 of shape (n, width), which is overwritten.
    outcomes
        What must have decided a row, for it to count.
    advance
        Told how many distinct images more were read.
    ahead
        False: slower, in less memory, and no more of many files than of one.

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
    for found, features in _batches(files, outcomes, matrix.shape[1], ahead):
        # A task that was tried again may have written an image twice.
        known, places = np.unique(distinct.get_indexer(pd.Index(found)), return_index=True)
        new = (known >= 0) & missing[known]
        matrix[first[known[new]]] = features[places[new]]
        missing[known[new]] = False
        advance(int(new.sum()))
    if missing.any():
        raise CacheError(
            f"{missing.sum()} images have lost their features in the feature cache: start again, and they "
            "are extracted again."
        )
    copies = np.flatnonzero(first[rows] != np.arange(len(wanted)))
    matrix[copies] = matrix[first[rows[copies]]]


def _batches(
    files: Sequence[str], outcomes: Outcomes, width: int, ahead: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Digests and features of images that have some."""
    if not files:
        return
    try:
        scanner = ds.dataset(list(files), schema=SCHEMA).scanner(
            columns=["digest", "features"],
            filter=pc.field("features").is_valid() & counting(outcomes),
            batch_size=max(1, min(_BATCH_ROWS, _BATCH_BYTES // (4 * max(1, width)))),
            **(_AHEAD if ahead else _BY_PIECES),
        )
        for batch in scanner.to_batches():
            if batch.num_rows:
                values = batch.column("features").flatten().to_numpy(zero_copy_only=False)
                yield (
                    batch.column("digest").to_numpy(zero_copy_only=False),
                    values.reshape(batch.num_rows, -1),
                )
    except (pa.ArrowException, OSError) as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> CacheError:
    return CacheError(
        f"A file of the feature cache is damaged ({first_line(error)}): remove it, and its images are "
        "extracted again."
    )


def write_part(folder: Path, rows: Sequence[Row]) -> int:
    """Write one part aside, then rename it, so that a reader sees whole parts alone; gives its rows."""
    if not rows:
        return 0
    table = pa.table([list(column) for column in zip(*rows, strict=True)], schema=SCHEMA)
    bad = sum(row.error is not None for row in rows)
    aside = folder / f".part-{uuid.uuid4().hex}.tmp"
    with writing_to(folder.parent.parent):
        try:
            pq.write_table(table, aside)
            aside.replace(part_path(folder, len(rows), bad, aside))
        finally:
            aside.unlink(missing_ok=True)  # half a file would keep a full disk full
    return len(rows)


def keep_part(folder: Path, name: str, content: bytes) -> None:
    """Write a part that was written elsewhere."""
    with writing_to(folder.parent.parent):
        write_aside(folder / name, lambda aside: aside.write_bytes(content))


def remove_damaged(folder: Path) -> int:
    """Remove the parts whose content is not what their names say; gives how many there were."""
    damaged = [part for part in map(Path, parts(folder)) if not is_sound(part)]
    for part in damaged:
        part.unlink(missing_ok=True)
    return len(damaged)


def is_sound(part: Path) -> bool:
    """Whether a part's content is what its name says."""
    try:
        status = part.stat()
        state = (status.st_size, status.st_mtime_ns)  # a process reads a file once, unless it changes
        if _checked.get(part) != state and file_digest(part)[:_DIGITS] == part.stem.split("-")[-1]:
            _checked[part] = state
        return _checked.get(part) == state
    except OSError:
        return False
