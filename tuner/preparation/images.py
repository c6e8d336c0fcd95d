"""From images to index, cached features, quarantine and split. Runs on the driver."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from rich.console import Console

from tuner.base.errors import CacheError
from tuner.classifiers.parameters import TrialParams
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.schema import Experiment
from tuner.extraction.cache import FeatureCache
from tuner.images.files import read_file
from tuner.images.index import ImageSet, contents, index_images
from tuner.images.sources import read_images
from tuner.images.splits import GIVEN, TEST, split_images
from tuner.networks.resolution import Network, recall_network, resolve_network
from tuner.networks.store import is_tuned
from tuner.preparation.classifiers import check_sizes
from tuner.preparation.features import extract_features
from tuner.preparation.findings import (
    about_labels,
    about_split,
    about_values,
    keep_apart,
    left_out,
    mark_conflicts,
    usable,
    with_outcomes,
)
from tuner.spark.sessions import DriverSession
from tuner.spark.settings import is_local
from tuner.spark.worker_daemon import FOR_EXTRACTION, start_workers
from tuner.tracking.store import Tracking, local_artifacts


@dataclass(frozen=True)
class PreparedImages:
    """The images of an experiment, with the features of every network in the cache.

    `index` has one row a usable image: path, label, label_index, digest, bytes, part.
    `quarantine` has one row an image left out: path, label, reason.
    """

    images: ImageSet
    index: pd.DataFrame
    quarantine: pd.DataFrame
    networks: Mapping[str, Network]
    extracted: int

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names; their positions are the label indices."""
        return self.images.labels

    @property
    def digest(self) -> str:
        """What stands for these images, their labels and their split."""
        return data_digest(self.index)

    def rows(self, part: str) -> pd.DataFrame:
        """The images of one part: `train`, `validation`, `fold-…` or `test`."""
        return self.index[self.index["part"] == part]


def data_digest(rows: pd.DataFrame) -> str:
    """Give 16 hex digits for images, labels and parts; paths and order do not matter."""
    content = rows[["digest", "label", "part"]].sort_values(["digest", "label"])
    return hashlib.sha256(content.to_csv(index=False).encode()).hexdigest()[:16]


def split_of(index: pd.DataFrame, experiment: Experiment) -> pd.Series:
    """The parts of images, once those that leave their part are gone (`leaked`)."""
    split = experiment.split
    return split_images(index, split.test, split.validation, split.validation_ratio, experiment.search.seed)


def open_cache(experiment: Experiment, store: Tracking) -> FeatureCache:
    """Open the experiment's feature cache.

    Raises
    ------
    CacheError
        It cannot be written, or lies among MLflow's artifacts.
    """
    artifacts = local_artifacts(store)
    cache = FeatureCache(experiment.cache)
    if artifacts and cache.root.resolve().is_relative_to(artifacts):
        raise CacheError(
            f"The cache {experiment.cache} lies among MLflow's artifacts, in {artifacts}: choose another "
            "folder with cache."
        )
    return cache


def is_filled(cache: FeatureCache, experiment: Experiment) -> bool:
    """Whether there are features of each of the networks, be it of other images."""
    return _all_filled(cache, _recalled(cache, experiment))


def _recalled(cache: FeatureCache, experiment: Experiment) -> list[Network | None]:
    """The networks that were resolved before; a network of one's own is read whole to know it."""
    asked = experiment.search.backbone
    return [
        recall_network(spec, experiment.precision, cache.networks, experiment.decoding) for spec in asked
    ]


def _all_filled(cache: FeatureCache, recalled: Sequence[Network | None]) -> bool:
    return all(network and cache.folder(network).exists() for network in recalled)


def prepare_images(
    session: DriverSession,
    experiment: Experiment,
    cache: FeatureCache,
    console: Console,
    combinations: Collection[TrialParams] = (),
) -> PreparedImages:
    """Read, index, extract, quarantine and split the images of an experiment.

    `combinations` are what a spot-check tries of it, in place of the search's spaces.

    Out of the search, and in the quarantine, are images that cannot be read or decoded, those whose copies
    stand in several classes and, of a split that is given, those whose copies are held back.

    Raises
    ------
    ImageSourceError, NetworkError, CacheError
        What is wrong with the images, the networks or the cache, in one sentence; as early as it shows.
    """
    images = read_images(session.spark, experiment.images, given=experiment.split.given)
    networks = _networks(session, experiment, cache)
    index = index_images(images, memory=cache.root / "digests")
    for note in (*images.notes, *about_labels(images.labels)):
        console.print(note, markup=False, soft_wrap=True)
    fail = experiment.on_bad_image == "fail"
    # What is wrong is said before the first image is decoded, as far as it shows.
    kept = keep_apart(usable(mark_conflicts(index), images.labels, fail), experiment.split)[0]
    parts = split_of(kept, experiment)
    check_tuned(experiment.search.backbone, cache, kept, parts)
    check_sizes(experiment, parts, networks.values(), combinations)
    done = extract_features(
        session,
        cache,
        list(networks.values()),
        images,
        index[index["error"].isna()],
        console,
        fail_on_bad_image=fail,
    )
    known = [cache.known(network) for network in networks.values()]
    undecided = {digest: error for extraction in done for digest, error in extraction.undecided.items()}
    outcome = mark_conflicts(with_outcomes(index, known, undecided))
    prepared = split_outcome(images, outcome, undecided, experiment, console)
    for note in about_values(prepared.index, known[0], experiment.max_value):
        console.print(note, markup=False, soft_wrap=True)
    return replace(prepared, networks=networks, extracted=sum(extraction.extracted for extraction in done))


def check_tuned(
    specs: Iterable[NetworkSpec], cache: FeatureCache, index: pd.DataFrame, parts: pd.Series
) -> None:
    """Refuse tuned networks that learned from what would judge them; raises `NetworkError`."""
    for spec in specs:
        if is_tuned(spec.file):
            tuned, _ = cache.networks.tuned(spec.name, str(spec.file))
            tuned.check_split(spec.name, index, parts)


def split_outcome(
    images: ImageSet,
    outcome: pd.DataFrame,
    undecided: Mapping[str, str],
    experiment: Experiment,
    console: Console,
) -> PreparedImages:
    """Split what can be used of decoded images, and say what is left out; no network has seen them.

    `outcome` is their index with the reason, if any, why an image cannot be used; `undecided` has those, by
    digest, that say nothing of the image itself.
    """
    fail = experiment.on_bad_image == "fail"
    good, copies = keep_apart(usable(outcome, images.labels, fail), experiment.split)
    bad = outcome[outcome["error"].notna()].rename(columns={"error": "reason"})
    quarantine = pd.concat([bad, copies]).sort_index()[["path", "label", "reason"]]
    parts = split_of(good, experiment)
    for note in (
        *left_out(quarantine, len(outcome), undecided),
        *about_split(good, parts, experiment.split),
    ):
        console.print(note, markup=False, soft_wrap=True)
    return PreparedImages(
        images=images,
        index=good.drop(columns=GIVEN, errors="ignore").assign(part=parts).reset_index(drop=True),
        quarantine=quarantine.reset_index(drop=True),
        networks={},
        extracted=0,
    )


def _networks(session: DriverSession, experiment: Experiment, cache: FeatureCache) -> dict[str, Network]:
    """Resolve the networks; where one has no features yet, the workers that extract start meanwhile."""
    recalled = _recalled(cache, experiment)
    context = session.spark.sparkContext
    if is_local(context) and not _all_filled(cache, recalled):
        start_workers(context, session.cores, FOR_EXTRACTION)
    found = (
        known or resolve_network(spec, experiment.precision, cache.networks, experiment.decoding)
        for known, spec in zip(recalled, experiment.search.backbone, strict=True)
    )
    return {network.name: network for network in found}


def first_image(prepared: PreparedImages) -> bytes:
    """The bytes of the smallest training image, as an example of what the model reads."""
    smallest = prepared.index.sort_values(["bytes", "path"]).head(1)
    if prepared.images.listing is not None:  # files of a folder, which this process sees
        content, _ = read_file(smallest["path"].iloc[0])
        if content is not None:
            return content
    if prepared.images.held is not None:
        return bytes(prepared.images.held.set_index("path")["content"][smallest["path"].iloc[0]])
    row = contents(prepared.images, smallest, partitions=1).first()
    assert row is not None
    return bytes(row["content"])


def some_images(prepared: PreparedImages, count: int) -> dict[str, bytes]:
    """Bytes of at most `count` images by their digests, spread over all but the test part.

    None where a Spark job would have to read all images for them.
    """
    rows = prepared.index[prepared.index["part"] != TEST].drop_duplicates("digest").sort_values("path")
    count = min(count, len(rows))
    rows = rows.iloc[[place * len(rows) // count for place in range(count)]]
    found: Sequence[bytes | None] = []
    if prepared.images.held is not None:
        held = prepared.images.held.set_index("path")["content"]
        found = [bytes(held[path]) for path in rows["path"]]
    elif prepared.images.listing is not None:
        found = [read_file(path)[0] for path in rows["path"]]
    read = zip(rows["digest"], found, strict=False)  # none where none were read
    return {digest: content for digest, content in read if content is not None}


def weights_files(prepared: PreparedImages) -> list[Path]:
    """The networks' files, to be stored once with the search."""
    return [Path(network.file) for network in prepared.networks.values()]
