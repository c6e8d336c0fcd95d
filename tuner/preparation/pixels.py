"""From images to index, quarantine, split and decoded pixels: what trains networks. Runs on the driver."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from tuner.base.choices import Decoding
from tuner.base.errors import ImageError, ImageSourceError, UndecidedImageError
from tuner.base.machine import machine_cores
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.schema import Experiment
from tuner.extraction.cache import FeatureCache, refuse_bad_images
from tuner.extraction.files import writing_to
from tuner.extraction.job import ExtractionProgress, Progress
from tuner.images.decoding import load_input
from tuner.images.files import CHANGED, read_file
from tuner.images.index import ImageSet, contents, index_images
from tuner.images.sources import read_images
from tuner.preparation.findings import (
    about_labels,
    keep_apart,
    mark_conflicts,
    usable,
)
from tuner.preparation.images import PreparedImages, check_tuned, split_of, split_outcome
from tuner.preparation.matrices import map_new_file
from tuner.spark.sessions import DriverSession

_IN_FLIGHT = 4  # images a thread that are read and wait: of large ones few are held
_ROWS_OF_PARTITION = 512


def prepare_pixels(
    session: DriverSession,
    experiment: Experiment,
    cache: FeatureCache,
    base: NetworkSpec,
    input_size: tuple[int, int],
    file: Path,
    console: Console,
) -> PreparedImages:
    """Read, index, decode, quarantine and split the images of an experiment, as a search does.

    Parameters
    ----------
    session, experiment, cache, console
        As `prepare_images` takes them.
    base
        The network that is to learn from them.
    input_size
        Height and width in pixels of what is written.
    file
        Where to write the pixels: uint8 of shape (n, height, width, 3), RGB. Which of them are an image's
        is the column `row` of the index.

    Returns
    -------
    PreparedImages
        Without networks.

    Raises
    ------
    ImageSourceError, CacheError
        What is wrong with the images or the cache, in one sentence.
    """
    images = read_images(session.spark, experiment.images, given=experiment.split.given)
    index = index_images(images, memory=cache.root / "digests")
    for note in (*images.notes, *about_labels(images.labels)):
        console.print(note, markup=False, soft_wrap=True)
    fail = experiment.on_bad_image == "fail"
    kept = keep_apart(usable(mark_conflicts(index), images.labels, fail), experiment.split)[0]
    parts = split_of(kept, experiment)  # what is wrong with it is said before the first image is decoded
    check_tuned([base], cache, kept, parts)
    wanted = index[index["error"].isna()].drop_duplicates("digest")
    with ExtractionProgress(console) as progress, progress.of("decoded", len(wanted)) as report:
        errors, undecided = _decode(images, wanted, experiment.decoding, input_size, file, report)
    if fail:
        refuse_bad_images(wanted, wanted.assign(error=wanted["digest"].map(errors)).dropna(subset="error"))
    outcome = mark_conflicts(
        index.assign(error=index["error"].where(index["error"].notna(), index["digest"].map(errors)))
    )
    prepared = split_outcome(images, outcome, undecided, experiment, console)
    rows = {digest: row for row, digest in enumerate(wanted["digest"])}
    return replace(prepared, index=prepared.index.assign(row=prepared.index["digest"].map(rows)))


def _decode(
    images: ImageSet,
    wanted: pd.DataFrame,
    decoding: Decoding,
    size: tuple[int, int],
    file: Path,
    report: Progress,
) -> tuple[dict[str, str], dict[str, str]]:
    """Write the pixels of images in their order; gives the reasons, by digest, of those without.

    The second reasons are of those that could not be decoded this time.
    """
    places = {digest: place for place, digest in enumerate(wanted["digest"])}
    errors, undecided = dict[str, str](), dict[str, str]()
    with writing_to(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = map_new_file(file, (len(wanted), *size, 3), np.uint8)

    def decode(image: tuple[str, bytes | None]) -> None:
        digest, content = image
        try:
            pixels[places[digest]] = load_input(content, size, "none", decoding)
        except ImageError as error:
            (undecided if isinstance(error, UndecidedImageError) else errors)[digest] = str(error)

    threads, done = machine_cores(), 0
    found = _contents(images, wanted)
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(found, threads * _IN_FLIGHT)):
            list(pool.map(decode, some))
            done += len(some)
            report(done, len(wanted))
    pixels.flush()
    return errors | undecided, undecided


def _contents(images: ImageSet, wanted: pd.DataFrame) -> Iterator[tuple[str, bytes | None]]:
    """The bytes of images, by digest: read here if they are here, else by Spark, few at a time."""
    if images.listing is not None:
        for path, digest in zip(wanted["path"], wanted["digest"], strict=True):
            yield digest, _unchanged(path, digest)
    elif images.held is not None:
        rows = wanted.merge(images.held[["path", "content"]], on="path")
        yield from zip(rows["digest"], rows["content"], strict=True)
    else:
        partitions = max(1, len(wanted) // _ROWS_OF_PARTITION)
        for row in contents(images, wanted, partitions).toLocalIterator():
            yield row["digest"], bytes(row["content"])


def _unchanged(path: str, digest: str) -> bytes | None:
    content, _ = read_file(path)
    if content is None or sha256(content).hexdigest() != digest:
        raise ImageSourceError(CHANGED % path)
    return content
