"""The files of the feature cache: written aside and renamed, named after their content, checked by it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from tuner.base.errors import CacheError
from tuner.base.files import file_digest, writing
from tuner.base.wording import first_line

SCHEMA = pa.schema([("digest", pa.string()), ("features", pa.list_(pa.float32())), ("error", pa.string())])
_DIGITS = 32  # of the sha256 of a file, in its name

_checked: dict[Path, tuple[int, int]] = {}

Row = tuple[str, np.ndarray | None, str | None]  # an image's digest, its features, or why there are none


def writing_to(root: Path) -> AbstractContextManager[None]:
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


def repeats(files: Sequence[str]) -> bool:
    """Whether an image stands in parts twice, as after a task that was tried again."""
    digests = read_columns(files, ["digest"])["digest"]
    return pc.count_distinct(digests).as_py() < len(digests)


def read_columns(files: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """Some columns of all parts.

    Raises
    ------
    CacheError
        A part is damaged.
    """
    try:
        return ds.dataset(list(files), schema=SCHEMA).to_table(columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise CacheError(
            f"A file of the feature cache is damaged ({first_line(error)}): remove it, and its images are "
            "extracted again."
        ) from error


def write_part(folder: Path, rows: Sequence[Row]) -> int:
    """Write one part aside, then rename it, so that a reader sees whole parts alone; gives its rows."""
    if not rows:
        return 0
    digests, features, errors = zip(*rows, strict=True)
    table = pa.table([list(digests), list(features), list(errors)], schema=SCHEMA)
    bad = sum(error is not None for error in errors)
    aside = folder / f".part-{uuid.uuid4().hex}.tmp"
    with writing_to(folder.parent.parent):
        try:
            pq.write_table(table, aside)
            aside.replace(folder / f"part-{len(rows)}-{bad}-{file_digest(aside)[:_DIGITS]}.parquet")
        finally:
            aside.unlink(missing_ok=True)  # half a file would keep a full disk full
    return len(rows)


def remove_damaged(folder: Path) -> int:
    """Remove the parts whose content is not what their names say; gives how many there were."""
    damaged = [part for part in map(Path, parts(folder)) if not _is_sound(part)]
    for part in damaged:
        part.unlink(missing_ok=True)
    return len(damaged)


def _is_sound(part: Path) -> bool:
    try:
        status = part.stat()
        state = (status.st_size, status.st_mtime_ns)  # a process reads a file once, unless it changes
        if _checked.get(part) != state and file_digest(part)[:_DIGITS] == part.stem.split("-")[-1]:
            _checked[part] = state
        return _checked.get(part) == state
    except OSError:
        return False
