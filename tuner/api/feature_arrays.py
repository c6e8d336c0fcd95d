"""`tuner.features`: what networks make of images, as arrays with labels, or in files for other tools."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich.console import Console

from tuner.api.given import Names, Source, given_experiment
from tuner.api.guest import as_it_was
from tuner.base.columns import LABEL_INDEX, PART, PATH
from tuner.base.interrupts import advising

if TYPE_CHECKING:
    from tuner.searches.features import FilledCache


class _Arrays(Mapping[str, np.ndarray]):
    """Each network's features, read from the cache when they are asked for."""

    def __init__(self, filled: FilledCache, digests: list[str]) -> None:
        self._filled = filled
        self._digests = digests

    def __getitem__(self, network: str) -> np.ndarray:
        return self._filled.cache.load(self._filled.prepared.networks[network], self._digests)

    def __iter__(self) -> Iterator[str]:
        return iter(self._filled.prepared.networks)

    def __len__(self) -> int:
        return len(self._filled.prepared.networks)


@dataclass(frozen=True, eq=False)
class Features:
    """Features of n images, with their labels; the images stand in an order that is as good as shuffled.

    Attributes
    ----------
    arrays
        By network, float32 of shape (n, width), read from the feature cache each time they are asked for.
    labels
        int64 of shape (n,): places in `label_names`.
    label_names
        The classes.
    paths
        Of the images, text of shape (n,).
    parts
        ``train``, ``validation`` or ``test``, or a fold (``fold-0``), text of shape (n,).
    extracted
        The images that were not cached, each counted once for each network.
    """

    arrays: Mapping[str, np.ndarray] = field(repr=False)
    labels: np.ndarray = field(repr=False)
    label_names: tuple[str, ...]
    paths: np.ndarray = field(repr=False)
    parts: np.ndarray = field(repr=False)
    extracted: int


@as_it_was()
def features(
    images_or_experiment: Source,
    *,
    name: str | None = None,
    images: str | os.PathLike[str] | None = None,
    backbone: Names | None = None,
    precision: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    export: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    master: str | None = None,
    console: Console | None = None,
) -> Features:
    """Bring images through networks, each once, and give what comes out with the labels.

    A search on the same cache starts at once. An active MLflow run, a running Spark session and what is set
    in this process are treated as by `tuner.search`.

    Parameters
    ----------
    images_or_experiment, name, images
        As of `tuner.search`.
    backbone
        A list of networks' names, or of descriptions as in the file.
    precision
        ``float32`` or ``bfloat16``.
    cache
        The folder of the feature cache.
    export
        A file to write the features to, too: ``*.h5``, ``*.npz`` or ``*.parquet``; of several networks,
        each has its own (``features-VGG16.h5``).
    overwrite
        Whether a file that is there may be replaced.
    master
        A Spark master URL; None: the session that is running, or this machine.
    console
        Where progress is shown; None: standard output.

    Returns
    -------
    Features
        By network, with labels, paths and parts.

    Raises
    ------
    InvalidInput
        Something about the experiment, the images, the cache, the export, Spark or MLflow cannot work.
    StoreError
        The MLflow store stopped answering.
    """
    read = given_experiment(
        images_or_experiment, name=name, images=images, backbone=backbone, precision=precision, cache=cache
    )
    from tuner.preparation.feature_files import in_order
    from tuner.searches.features import fill_cache  # imports take seconds

    with advising("The features that were extracted are kept: the same command goes on from there."):
        filled = fill_cache(
            read,
            master=master,
            export=os.fspath(export) if export else None,
            overwrite=overwrite,
            console=console or Console(),
        )
    return _of(filled, in_order(filled.prepared.index))


def _of(filled: FilledCache, rows: pd.DataFrame) -> Features:
    return Features(
        arrays=_Arrays(filled, list(rows["digest"])),
        labels=rows[LABEL_INDEX].to_numpy(np.int64),
        label_names=filled.prepared.labels,
        paths=rows[PATH].to_numpy(str),
        parts=rows[PART].to_numpy(str),
        extracted=filled.prepared.extracted,
    )
