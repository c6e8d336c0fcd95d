"""Features that the cache misses, extracted network by network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
from pyspark.sql import SparkSession
from rich.console import Console

from tuner.extraction.cache import Extraction, FeatureCache
from tuner.extraction.job import ExtractionProgress
from tuner.images.index import ImageSet
from tuner.networks.resolution import Network
from tuner.spark.sessions import DriverSession

_WAITING = "waiting for another process to extract"


def extract_features(
    session: DriverSession,
    cache: FeatureCache,
    networks: Sequence[Network],
    images: ImageSet,
    index: pd.DataFrame,
    console: Console,
    *,
    fail_on_bad_image: bool = False,
) -> list[Extraction]:
    """Extract what the cache misses of each network's features, with a progress bar for each.

    Raises
    ------
    ImageSourceError, CacheError
        As `FeatureCache.extract`.
    """
    done = []
    with ExtractionProgress(console) as progress:
        # One after the other, on all cores: of several at once, the slowest would keep one core alone.
        for network in networks:
            missing = _missing(session.spark, cache, network, index, console)
            if not missing:
                done.append(Extraction(0, 0, 0.0))
                continue
            tasks = min(session.cores, missing)
            with progress.of(network.name, missing) as on_progress:
                extraction = cache.extract(
                    session.spark,
                    network,
                    images,
                    index,
                    tasks=tasks,
                    threads=max(1, session.cores // tasks),
                    on_progress=on_progress,
                    on_wait=partial(console.print, f"{network.name}: {_WAITING}", markup=False),
                    fail_on_bad_image=fail_on_bad_image,
                )
            done.append(extraction)
    return done


def _missing(
    spark: SparkSession, cache: FeatureCache, network: Network, index: pd.DataFrame, console: Console
) -> int:
    """How many images have no features yet; what is damaged is removed, and said."""
    damaged = cache.remove_damaged(network)
    cache.exchange(spark, network)
    if damaged:
        console.print(
            f"{network.name}: {damaged} file(s) of the feature cache were damaged and are removed; their "
            "images are extracted again",
            markup=False,
            soft_wrap=True,
        )
    missing = len(cache.missing(network, list(index["digest"])))
    if not missing:
        console.print(
            f"{network.name}: features of {index['digest'].nunique()} images are cached", markup=False
        )
    return missing
