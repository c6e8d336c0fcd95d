"""What a feature cache holds, network by network, and how it is pruned; on this machine or elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark.sql import SparkSession

from tuner.base.errors import CacheError
from tuner.base.wording import first_line
from tuner.extraction.files import counts, writing_to
from tuner.extraction.occupancy import alone_in
from tuner.extraction.place import LAST_USE, CachePlace
from tuner.networks.resolution import Network
from tuner.storage.disk import DiskFolder, Entry, Folder

_DAY = 24 * 3600
_FEATURES, _STAGING, _NETWORKS = "features", "staging", "networks"


@dataclass(frozen=True)
class HeldFeatures:
    """The features of one network in a cache.

    Attributes
    ----------
    key
        The folder's name: `Network.key`.
    network
        The network, as the folder describes it; None where nothing legible does.
    images
        Of how many images there is an outcome, features or the reason why there are none; one that two
        tasks extracted counts twice.
    bytes
        The size of its files.
    last_use
        When features were read or written last, in seconds since 1970.
    """

    key: str
    network: Network | None
    images: int
    bytes: int
    last_use: float

    @property
    def name(self) -> str:
        """What experiments call the network; a question mark where that is not known."""
        return self.network.name if self.network else "?"

    def is_called(self, word: str) -> bool:
        """Whether a name, or the beginning of a key of six letters or more, means these."""
        return word in (self.name, self.key) or (len(word) >= 6 and self.key.startswith(word))


class CacheContents:
    """What is in the folder of a feature cache.

    Parameters
    ----------
    place
        Where the cache is; one on a Hadoop filesystem is connected.
    """

    def __init__(self, place: CachePlace, spark: SparkSession | None = None) -> None:
        if spark is not None:
            place.connect(spark)
        self._place = place
        self._folder: Folder = place.there or DiskFolder(place.root)

    def features(self) -> list[HeldFeatures]:
        """The features of each network, the one that was used last first.

        Raises
        ------
        CacheError
            The cache cannot be read.
        """
        with self._reading():
            found = [self._held(entry) for entry in self._folder.entries(_FEATURES) if entry.is_folder]
        return sorted(found, key=lambda held: held.last_use, reverse=True)

    def network_files(self) -> tuple[int, int]:
        """How many files of networks there are, and their bytes."""
        with self._reading():
            entries = self._folder.entries(_NETWORKS)
        files = [entry for entry in entries if not (entry.is_folder or entry.name.endswith(".lock"))]
        return len(files), sum(entry.size for entry in files)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place, reason = self._place.uri or self._place.root, error.strerror or first_line(error)
            raise CacheError(f"The feature cache {place} cannot be read: {reason}.") from error

    def prune(self, chosen: Sequence[HeldFeatures]) -> None:
        """Remove features, and what searches that were killed left.

        Raises
        ------
        CacheError
            A search is at work on the cache, or it cannot be written.
        """
        with self._alone(), writing_to(self._place.uri or self._place.root):
            for folder in {id(one): one for one in (self._folder, DiskFolder(self._place.root))}.values():
                for held in chosen:
                    folder.remove(f"{_FEATURES}/{held.key}")
                    folder.remove(f"{_FEATURES}/{held.key}.lock")
                folder.remove(_STAGING)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with alone_in(self._place.root):
            # Elsewhere there are no locks; but what a cluster's workers read lies there while they do.
            working = self._folder.entries(_STAGING) if self._place.there else []
            if working:
                raise CacheError(
                    f"The feature cache {self._place.uri} may be in use by the search {working[0].name}: "
                    "prune it when that has ended or, if its driver was killed, remove "
                    f"{_STAGING}/{working[0].name} there."
                )
            yield

    def _held(self, entry: Entry) -> HeldFeatures:
        files = self._folder.entries(f"{_FEATURES}/{entry.name}")
        parts = [file for file in files if file.name.startswith("part-") and file.name.endswith(".parquet")]
        noted = [file.changed for file in files if file.name == LAST_USE]
        return HeldFeatures(
            key=entry.name,
            network=_described(self._folder.read_text(f"{_FEATURES}/{entry.name}/network.json")),
            images=sum(counts(part.name)[0] for part in parts),
            bytes=sum(file.size for file in files if not file.is_folder),
            last_use=max([*noted, *(part.changed for part in parts)], default=entry.changed),
        )


def chosen_of(
    features: Sequence[HeldFeatures], networks: Sequence[str], older_than: float | None
) -> list[HeldFeatures]:
    """Those of the networks named, if any are, that were not used for so many days, if that is given.

    Raises
    ------
    CacheError
        There are no features of a network that is named.
    """
    for word in networks:
        if not any(held.is_called(word) for held in features):
            names = ", ".join(dict.fromkeys(held.name for held in features)) or "none"
            raise CacheError(
                f"There are no features of a network {word} in the cache; of these there are: {names}."
            )
    before = time.time() - (older_than or 0) * _DAY
    return [
        held
        for held in features
        if (not networks or any(map(held.is_called, networks)))
        and (older_than is None or held.last_use <= before)
    ]


def _described(text: str | None) -> Network | None:
    try:
        return Network.from_dict(json.loads(text or ""))
    except (ValueError, TypeError, KeyError):
        return None
