"""What a version says of images: from cached features, or by its network, in this process or with Spark."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as F

from tuner.base.choices import ScoreKind
from tuner.extraction.cache import FeatureCache
from tuner.models.loading import fetch_head, load_model
from tuner.models.pipeline import REASON, load_pipeline
from tuner.networks.resolution import Network
from tuner.registry.lookup import Lookup

_FEW = 256  # images that this process takes through a network, rather than let Spark's workers load it


@dataclass(frozen=True, eq=False)
class Scores:
    """A version's scores, for the images that it could be asked about.

    `table` has one row an image, by digest, and one column a class; NaN in the rows of images that cannot
    be decoded. `computed` is how many images went through the network, `gives` what the scores are.
    """

    table: pd.DataFrame
    computed: int
    gives: ScoreKind


def score_images(
    uri: str, digests: Sequence[str], caches: Collection[FeatureCache], images: Lookup
) -> Scores:
    """Ask a version about images.

    Parameters
    ----------
    uri
        The version.
    digests
        The images.
    caches
        Where features may be; those of images that are in none of them are computed, if `images` has the
        bytes.
    images
        Where the images are.

    Raises
    ------
    ModelError, CacheError, NetworkError
        The model, a file of a cache or the network cannot be read.
    PySparkException
        An image changed while it was read.
    """
    network, head, labels = fetch_head(uri)
    rows: dict[str, np.ndarray] = {}
    for cache in caches:
        good, bad = _cached(cache, network, [digest for digest in digests if digest not in rows])
        if good:
            rows |= dict(zip(good, head.score(cache.load(network, good)), strict=True))
        rows |= dict.fromkeys(bad, np.full(len(labels), np.nan))
    missing = [digest for digest in digests if digest not in rows and digest in images.labels]
    computed = _compute(uri, missing, images) if missing else pd.DataFrame(columns=list(labels))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(labels), dtype=np.float64)
    whole = pd.concat([table, computed[list(labels)]]) if missing else table
    return Scores(whole, len(missing), head.gives)


def _cached(cache: FeatureCache, network: Network, digests: Sequence[str]) -> tuple[list[str], list[str]]:
    """The images of which the cache has features, and those that could not be decoded."""
    cache.remove_damaged(network)
    known = cache.known(network)
    known = known[known["digest"].isin(digests)]
    bad = known["error"].notna()
    return known["digest"][~bad].tolist(), known["digest"][bad].tolist()


def _compute(uri: str, digests: Sequence[str], images: Lookup) -> pd.DataFrame:
    contents = images.files(digests) if len(digests) <= _FEW else None
    if contents is None:
        return _with_spark(uri, digests, images)
    there = [place for place, content in enumerate(contents) if content is not None]
    scorer = load_model(uri)
    scores, _ = scorer.score([contents[place] for place in there])
    return pd.DataFrame(scores, [digests[place] for place in there], list(scorer.labels))


def _with_spark(uri: str, digests: Sequence[str], images: Lookup) -> pd.DataFrame:
    frame = images.frame(digests)
    loaded = load_pipeline(uri)
    labels = loaded.labels
    scores = F.when(F.col(REASON).isNull(), vector_to_array(F.col(loaded.scores)))
    answers = loaded.pipeline.transform(frame).select("digest", scores.alias(loaded.scores))
    found: pd.DataFrame = answers.toPandas()
    none = np.full(len(labels), np.nan)
    values = [none if row is None else row for row in found[loaded.scores]]
    return pd.DataFrame(np.reshape(values, (-1, len(labels))), found["digest"].tolist(), list(labels))
