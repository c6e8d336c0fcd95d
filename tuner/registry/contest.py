"""Two registered versions on the champion's test images, found by their content; scored with Spark."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from pyspark.errors import PySparkException
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tuner.base.choices import Metric
from tuner.base.columns import PROBABILITY
from tuner.base.errors import ImageSourceError, ModelError
from tuner.evaluation.comparison import Comparison, compare
from tuner.experiment.file import read_experiment
from tuner.experiment.schema import Experiment
from tuner.images.index import contents, index_images
from tuner.images.sources import ImageSet, read_images
from tuner.images.splits import TEST
from tuner.models.pipeline import REASON, load_pipeline
from tuner.spark.sessions import DriverSession
from tuner.tracking import names
from tuner.tracking.run_log import read_artifact
from tuner.tracking.store import Tracking, reason

Source = tuple[ImageSet, pd.DataFrame]  # images, and their index


@dataclass(frozen=True)
class Contest:
    """A comparison of two versions; `notes` are sentences on the test images that are not part of it."""

    champion: str
    challenger: str
    comparison: Comparison
    notes: tuple[str, ...]


# Which images -------------------------------------------------------------------------------------


def _search_artifact(store: Tracking, version: ModelVersion, file: str, folder: str) -> Path:
    run_id = version.tags.get(names.SEARCH_RUN)
    if run_id is None:
        raise ModelError(
            f"Version {version.version} of {version.name} was not registered by a search of tuner, so its "
            "experiment and its test images are not known."
        )
    return read_artifact(store, run_id, file, Path(folder))


def search_experiment(store: Tracking, version: ModelVersion) -> Experiment:
    """Read the experiment of the search that made a version.

    Raises
    ------
    ModelError, TrackingError, ExperimentError
        No search of tuner made it, or its experiment cannot be read any more.
    """
    with tempfile.TemporaryDirectory() as folder:
        return read_experiment(_search_artifact(store, version, names.EXPERIMENT_FILE, folder))


def read_split(store: Tracking, version: ModelVersion) -> pd.DataFrame:
    """Read which images the search that made a version used for what: path, label, digest, part.

    Raises
    ------
    ModelError, TrackingError
        No search of tuner made it, or its split cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        return pd.read_parquet(_search_artifact(store, version, names.SPLIT_FILE, folder))


def _images_to_compare_on(champion: pd.DataFrame, challenger: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The champion's test images that the challenger has not learnt from; and how many it has."""
    test = champion[champion["part"] == TEST].drop_duplicates("digest")
    learnt = test["digest"].isin(challenger.loc[challenger["part"] != TEST, "digest"])
    return test[~learnt], int(learnt.sum())


# Scores -------------------------------------------------------------------------------------------


def _scores(frame: DataFrame, uri: str) -> pd.DataFrame:
    """What a version says of images: `digest`, and a column for each class; NaN if it cannot be decoded."""
    pipeline, labels = load_pipeline(uri)
    probability = F.when(F.col(REASON).isNull(), vector_to_array(F.col(PROBABILITY)))
    answers = pipeline.transform(frame).select("digest", probability.alias(PROBABILITY))
    found: pd.DataFrame = answers.toPandas()
    none = np.full(len(labels), np.nan)
    values = [none if row is None else row for row in found[PROBABILITY]]
    return pd.DataFrame(np.reshape(values, (-1, len(labels))), index=found["digest"], columns=list(labels))


def version_uri(version: ModelVersion) -> str:
    """The URI of exactly this version, whatever alias it has."""
    return f"models:/{version.name}/{version.version}"


def compare_versions(
    session: DriverSession,
    store: Tracking,
    champion: ModelVersion,
    challenger: ModelVersion,
    metric: Metric,
    *,
    images: str | None = None,
    sources: Mapping[str, Source] | None = None,
) -> Contest:
    """Score two versions on the champion's test images, found by their content.

    Images that the challenger was trained on are left out, and so are those that are gone or cannot be
    decoded; each kind is counted in the notes.

    Parameters
    ----------
    session, store
        Where to score, and where the versions are.
    champion, challenger
        Versions that searches of tuner registered.
    metric
        What to compare them by.
    images
        Where the images are now; None: where the champion's search found them.
    sources
        Sources that were read already.

    Raises
    ------
    ModelError, ImageSourceError, TrackingError
        The versions have other classes, or no image to compare them on can be had.
    """
    before, after = read_split(store, champion), read_split(store, challenger)
    _check_classes(champion, before, challenger, after)
    wanted, learnt = _images_to_compare_on(before, after)
    source = images or search_experiment(store, champion).images
    if wanted.empty:
        raise ModelError(
            f"Version {challenger.version} was trained on every test image of version {champion.version}: "
            "search with the seed and the split of the champion's search."
        )
    try:
        known = (sources or {}).get(source)
        image_set, index = known or _read_source(session, source)
        found = index[index["digest"].isin(wanted["digest"])]
        if found.empty:
            raise ImageSourceError(
                f"None of the {len(wanted)} test images of version {champion.version} is in {source} any "
                "more: say with tuner promote --images where they are."
            )
        frame = contents(image_set, found, session.cores)
        scores = [_scores(frame, version_uri(version)) for version in (champion, challenger)]
    except PySparkException as error:
        raise ImageSourceError(
            f"The test images in {source} could not be scored: {reason(error)}."
        ) from error
    return _contest(champion, challenger, wanted, scores, metric, learnt)


def _read_source(session: DriverSession, source: str) -> Source:
    image_set = read_images(session.spark, source)
    return image_set, index_images(image_set)


def _check_classes(
    champion: ModelVersion, before: pd.DataFrame, challenger: ModelVersion, after: pd.DataFrame
) -> None:
    old, new = set(before["label"]), set(after["label"])
    if old == new:
        return
    changes = [
        f"{what} {', '.join(sorted(classes))}"
        for what, classes in (("has no", old - new), ("adds", new - old))
        if classes
    ]
    raise ModelError(
        f"Version {challenger.version} of {champion.name} has other classes than the champion, version "
        f"{champion.version}: it {' and '.join(changes)}; models of other classes cannot be compared."
    )


def _contest(
    champion: ModelVersion,
    challenger: ModelVersion,
    wanted: pd.DataFrame,
    scores: list[pd.DataFrame],
    metric: Metric,
    learnt: int,
) -> Contest:
    labels = list(scores[0].columns)
    scored = [table[labels].dropna() for table in scores]
    seen = wanted["digest"].isin(scores[0].index)
    usable = wanted[wanted["digest"].isin(scored[0].index) & wanted["digest"].isin(scored[1].index)]
    counts = {
        "were left out because the challenger was trained on them": learnt,
        "are not there any more": int((~seen).sum()),
        "cannot be decoded": int(seen.sum()) - len(usable),
    }
    if usable.empty:
        raise ImageSourceError(f"None of the {len(wanted)} test images of the champion can be decoded.")
    comparison = compare(
        list(usable["path"]),
        usable["label"].map({label: i for i, label in enumerate(labels)}).to_numpy(),
        scored[0].loc[usable["digest"]].to_numpy(),
        scored[1].loc[usable["digest"]].to_numpy(),
        labels,
        metric=metric,
    )
    notes = tuple(f"{count} of its test images {what}." for what, count in counts.items() if count)
    return Contest(str(champion.version), str(challenger.version), comparison, notes)
