"""Sources of images, made by code: Parquet files, and what is told of contents."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Tree = Callable[..., Path]

BINARY = pa.array([b"one", b"two", b"one"])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def parquet(path: Path, rows: Mapping[str, pa.Array], metadata: Mapping[bytes, bytes] | None = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows).replace_schema_metadata(metadata), path)
    return str(path)
