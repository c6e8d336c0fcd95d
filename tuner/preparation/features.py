"""Features that the cache misses, extracted network by network or, of few images, several at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from pyspark.sql import SparkSession
from rich.console import Console

from tuner.extraction.cache import Extraction, FeatureCache
from tuner.extraction.job import ExtractionProgress
from tuner.images.index import ImageSet
from tuner.networks.resolution import Network
from tuner.spark.sessions import DriverSession
from tuner.spark.settings import is_local

# Up to so many images a worker takes a whole network: to load and trace it takes seconds, which each worker
# would else spend on each network. With more, the last network would keep one worker waiting for the other.
FEW_IMAGES = 1_000
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
    spark = session.spark
    missing = {network.name: _missing(spark, cache, network, index, console) for network in networks}
    asked = [network for network in networks if missing[network.name]]
    few = all(missing[network.name] <= FEW_IMAGES for network in asked)
    side_by_side = few and len(asked) > 1 and is_local(spark.sparkContext)
    at_once = min(session.cores, len(asked)) if side_by_side else 1
    with ExtractionProgress(console) as progress:

        def extract(network: Network) -> Extraction:
            count = missing[network.name]
            if not count:
                return Extraction(0, 0, 0.0)
            tasks = 1 if at_once > 1 else min(session.cores, count)
            with progress.of(network.name, count) as on_progress:
                return cache.extract(
                    spark,
                    network,
                    images,
                    index,
                    tasks=tasks,
                    threads=max(1, session.cores // (tasks * at_once)),
                    on_progress=on_progress,
                    on_wait=lambda: console.print(f"{network.name}: {_WAITING}", markup=False),
                    fail_on_bad_image=fail_on_bad_image,
                )

        return _each(extract, networks, at_once)


def _each(
    extract: Callable[[Network], Extraction], networks: Sequence[Network], at_once: int
) -> list[Extraction]:
    if at_once == 1:
        return [extract(network) for network in networks]
    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(extract, network) for network in networks]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
