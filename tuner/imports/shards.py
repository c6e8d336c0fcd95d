"""Shards: the Parquet files that images are dealt to, each written row group by row group."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tuner.imports.listing import Content, Image, Source

SCHEMA = pa.schema([("path", pa.string()), ("label", pa.string()), ("content", pa.binary())])
_GROUP_BYTES = 8 * 2**20  # of a row group, which a reader holds at once


@dataclass(frozen=True)
class Shard:
    """A file to be made.

    Attributes
    ----------
    name
        Its place in the target; with a split, it begins with its part, by which readers know it.
    members
        How many images of each source, by its place among the sources, it holds.
    """

    name: str
    members: Mapping[int, frozenset[int]]

    @property
    def images(self) -> int:
        """How many images it holds."""
        return sum(map(len, self.members.values()))


def deal(sources: Sequence[Source], digest: str, shard_bytes: int) -> list[Shard]:
    """Deal the images of sources to shards of so many bytes, in the order in which they are read.

    The same listing gives the same shards of the same names, `digest` standing for it.
    """
    open_: dict[str | None, tuple[int, dict[int, set[int]]]] = {}
    dealt: list[tuple[str | None, dict[int, set[int]]]] = []
    for place, source in enumerate(sources):
        for image in source.images:
            size, members = open_.get(image.part, (shard_bytes, {}))
            if size >= shard_bytes:
                size, members = 0, {}
                dealt.append((image.part, members))
            members.setdefault(place, set()).add(image.number)
            open_[image.part] = size + image.size, members
    return [
        Shard(_name(part, number, digest), {place: frozenset(some) for place, some in members.items()})
        for number, (part, members) in enumerate(dealt)
    ]


def _name(part: str | None, number: int, digest: str) -> str:
    own = hashlib.sha256(f"{digest}-{number}".encode()).hexdigest()[:16]
    return f"{part or 'images'}-{number:05d}-{own}.parquet"


@dataclass
class _Writer:
    """A shard that is being written: a row group at once is held."""

    file: Path
    missing: int
    writer: pq.ParquetWriter
    rows: list[tuple[str, str, Content]] = field(default_factory=list)
    held: int = 0

    def add(self, image: Image, content: Content) -> bool:
        """Add an image; gives whether it was the last."""
        self.rows.append((image.path, image.label, content))
        self.held += len(content or b"")
        self.missing -= 1
        if self.held >= _GROUP_BYTES or not self.missing:
            columns = [list(column) for column in zip(*self.rows, strict=True)]
            self.writer.write_table(pa.table(columns, schema=SCHEMA))
            self.rows, self.held = [], 0
        if not self.missing:
            self.writer.close()
        return not self.missing


def write_shards(
    sources: Sequence[Source],
    shards: Sequence[Shard],
    folder: Path,
    advance: Callable[[Image, Content], object],
) -> Iterator[tuple[Shard, Path]]:
    """Read what the shards hold, source after source, and write them; gives each as it is whole.

    Parameters
    ----------
    sources, shards
        What is listed, and what is still to be made of it.
    folder
        Where to write; a file in it is removed once the next is asked for.
    advance
        Told of each image that was read; None for what is damaged.

    Raises
    ------
    ImageSourceError
        A source changed, or an archive is damaged.
    """
    with ExitStack() as stack:
        writers: dict[str, _Writer] = {}
        for place, source in enumerate(sources):
            holders = {number: shard for shard in shards for number in shard.members.get(place, ())}
            if not holders:
                continue
            for image, content in source.contents(frozenset(holders)):
                shard = holders[image.number]
                if shard.name not in writers:
                    file = folder / shard.name
                    opened = stack.enter_context(pq.ParquetWriter(file, SCHEMA))
                    writers[shard.name] = _Writer(file, shard.images, opened)
                advance(image, content)
                if writers[shard.name].add(image, content):
                    yield shard, writers[shard.name].file
                    writers.pop(shard.name).file.unlink()
