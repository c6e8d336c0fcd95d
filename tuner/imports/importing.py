"""Import images into Parquet on any Hadoop filesystem: what `tuner import-images` does. On the driver."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import SparkSession
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from tuner.base.choices import GivenSplit
from tuner.base.errors import ImageSourceError
from tuner.base.files import writing
from tuner.base.uris import local_path
from tuner.images.index import sorted_labels
from tuner.imports.listing import Content, Image, Source, digest_of, list_sources
from tuner.imports.shards import Shard, deal, write_shards
from tuner.spark.sessions import driver_session
from tuner.storage.filesystem import HadoopFolder

SHARD_MIB = 128
_MANIFEST, _ASIDE, _DONE = "_import.json", "_importing", "_SUCCESS"  # Spark reads over names like these
_FORMAT = 1


@dataclass(frozen=True)
class Import:
    """What an import came to.

    Attributes
    ----------
    place
        The target's URI: an experiment's `images`.
    images, labels, files
        How many images, classes and Parquet files it holds.
    written
        How many of the files this import wrote; the others were there.
    left_out
        What could not be imported, with the reason.
    damaged
        What stands there without content, for its archive or file is damaged: a search lists it.
    notes
        Sentences on what is no part of a class, or unusual.
    """

    place: str
    images: int
    labels: tuple[str, ...]
    files: int
    written: int
    left_out: tuple[tuple[str, str], ...]
    damaged: tuple[str, ...]
    notes: tuple[str, ...]


def import_images(
    images: Sequence[str],
    to: str,
    *,
    given: GivenSplit | None = None,
    shard_mib: int = SHARD_MIB,
    console: Console | None = None,
) -> Import:
    """Import folders and archives of class folders into Parquet files of `content`, `label` and `path`.

    An import that was stopped goes on where it was; a reader sees nothing of it until it is whole.

    Parameters
    ----------
    images
        Folders, zip and tar files of this machine, each with a folder of images for each class.
    to
        The folder to make, as a path or the URI of any Hadoop filesystem (``hdfs://host/photos``).
    given
        `folders`: the images are split already, into folders called train, test and so on.
    shard_mib
        How many MiB of images a Parquet file holds.
    console
        Where progress is shown; None: standard output.

    Returns
    -------
    Import
        What there is now, and what is left out.

    Raises
    ------
    ImageSourceError
        A source cannot be read, is not what it looks like, or changed meanwhile; the target holds something
        else.
    CacheError
        The target cannot be written.
    SessionError
        Spark, whose Hadoop is used, does not start.
    """
    _check_target(to)
    sources = list_sources(images, given)
    with driver_session("tuner import-images", 1, master="local[2]") as session:
        return write_import(session.spark, sources, to, shard_mib * 2**20, console or Console())


def write_import(
    spark: SparkSession, sources: Sequence[Source], to: str, shard_bytes: int, console: Console
) -> Import:
    """Write listed sources as Parquet; errors are those of `import_images`."""
    digest = hashlib.sha256(f"{digest_of(sources)} {shard_bytes}".encode()).hexdigest()
    shards = deal(sources, digest, shard_bytes)
    damaged: list[str] = []
    with writing(
        "The folder", to, "give another --to (docs/how-to/own-images.md says what filesystems need)"
    ):
        target = HadoopFolder(spark, to)
        missing = _missing(target, digest, shards)
        with _bar(console, missing) as done, tempfile.TemporaryDirectory() as folder:

            def advance(image: Image, content: Content) -> None:
                done()
                if content is None:
                    damaged.append(image.path)

            for shard, file in write_shards(sources, missing, Path(folder), advance):
                target.upload(file, f"{_ASIDE}/{shard.name}")
        _finish(target, shards)
    return _result(target, sources, shards, len(missing), damaged)


def _check_target(to: str) -> None:
    try:
        local_path(to)
    except ValueError as error:
        raise ImageSourceError(f"Images cannot be imported to {to}: {error}.") from error


def _missing(target: HadoopFolder, digest: str, shards: Sequence[Shard]) -> list[Shard]:
    """The shards that no earlier import of the same images wrote, once the target is seen to be fit."""
    manifest = target.read_text(_MANIFEST)
    if manifest is None:
        if any(not entry.name.startswith(("_", ".")) for entry in target.entries()):
            raise ImageSourceError(
                f"{target.uri} holds something that no import wrote: give another --to, or empty it."
            )
        target.write_text(_MANIFEST, json.dumps({"format": _FORMAT, "digest": digest}))
        return list(shards)
    if f'"{digest}"' not in manifest:
        raise ImageSourceError(
            f"{target.uri} holds an import of other images, or these have changed since it began: give "
            "another --to, or remove it."
        )
    there = {entry.name for folder in ("", _ASIDE) for entry in target.entries(folder)}
    return [shard for shard in shards if shard.name not in there]


def _finish(target: HadoopFolder, shards: Sequence[Shard]) -> None:
    """Let readers see the shards, now that all are there."""
    waiting = {entry.name for entry in target.entries(_ASIDE)}
    for shard in shards:
        if shard.name in waiting:
            target.rename(f"{_ASIDE}/{shard.name}", shard.name)
    target.remove(_ASIDE)
    target.write_text(_DONE, "")


def _result(
    target: HadoopFolder,
    sources: Sequence[Source],
    shards: Sequence[Shard],
    written: int,
    damaged: list[str],
) -> Import:
    return Import(
        place=target.uri,
        images=sum(shard.images for shard in shards),
        labels=sorted_labels(set().union(*(source.labels for source in sources))),
        files=len(shards),
        written=written,
        left_out=tuple(left for source in sources for left in source.left_out),
        damaged=tuple(damaged),
        notes=tuple(note for source in sources for note in source.notes),
    )


@contextmanager
def _bar(console: Console, shards: Sequence[Shard]) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=sum(shard.images for shard in shards))
        yield lambda: bar.advance(task)
