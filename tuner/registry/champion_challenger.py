"""Two registered versions on the champion's test images, each in the class that it is in today."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from pyspark.errors import PySparkException

from tuner.base.choices import GivenSplit, Metric
from tuner.base.errors import ImageSourceError, ModelError
from tuner.evaluation.comparison import Comparison, compare
from tuner.experiment.file import read_experiment
from tuner.experiment.schema import Experiment
from tuner.extraction.cache import FeatureCache
from tuner.images.splits import TEST
from tuner.registry.lookup import Lookup, Sessions, Source, look_up
from tuner.registry.scores import Scores, score_images
from tuner.tracking import names
from tuner.tracking.answering import reason
from tuner.tracking.run_log import read_artifact
from tuner.tracking.store import Tracking


@dataclass(frozen=True)
class VersionComparison:
    """A comparison of two versions.

    `notes` are sentences on the test images: which are no part of it, which have another class now.
    `computed` is how many images went through a network, for their features were in no cache.
    """

    champion: str
    challenger: str
    comparison: Comparison
    notes: tuple[str, ...]
    computed: int = 0


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


def version_uri(version: ModelVersion) -> str:
    """The URI of exactly this version, whatever alias it has."""
    return f"models:/{version.name}/{version.version}"


def compare_versions(
    session: Sessions,
    store: Tracking,
    champion: ModelVersion,
    challenger: ModelVersion,
    metric: Metric,
    *,
    images: str | None = None,
    sources: Mapping[str, Source] | None = None,
    caches: Collection[FeatureCache] = (),
) -> VersionComparison:
    """Score two versions on the champion's test images, found by their content.

    An image counts with the class that it is in now, in the source of the challenger's search or else of
    the champion's: a label that was corrected since does not count for the champion. Left out are images
    that the challenger was trained on and those that are gone, in several classes now, in a class that the
    models do not know, or cannot be decoded; each kind is counted in the notes.

    Parameters
    ----------
    session
        Starts Spark, where it is needed: for images that this process cannot read, and for many whose
        features are in no cache.
    store
        Where the versions are.
    champion, challenger
        Versions that searches of tuner registered.
    metric
        What to compare them by.
    images
        Where the images are now; None: where the searches found them.
    sources
        Sources that were read already.
    caches
        Where features may be found.

    Raises
    ------
    ModelError, ImageSourceError, TrackingError, CacheError, NetworkError
        The versions have other classes, no image to compare them on can be had, or a model or features
        cannot be read.
    """
    before, after = read_split(store, champion), read_split(store, challenger)
    _check_classes(champion, before, challenger, after)
    wanted, learnt = _images_to_compare_on(before, after)
    if wanted.empty:
        raise ModelError(
            f"Version {challenger.version} was trained on every test image of version {champion.version}: "
            "search with the seed and the split of the champion's search."
        )
    splits: dict[str, pd.DataFrame] = {}
    given: dict[str, GivenSplit | None] = {}
    if images is None:
        for version, split in ((challenger, after), (champion, before)):
            searched = search_experiment(store, version)
            splits.setdefault(searched.images, split)
            given.setdefault(searched.images, searched.split.given)
    places = [images] if images else list(splits)
    try:
        found = look_up(
            list(wanted["digest"]), places, session, known=sources or {}, splits=splits, given=given
        )
        test = _classes_now(wanted, found, after, set(before["label"]))
        _check_found(champion, test, found, places, given=images is not None)
        digests = list(test.loc[test["problem"].isna(), "digest"])
        scores = [
            score_images(version_uri(version), digests, caches, found) for version in (champion, challenger)
        ]
    except PySparkException as error:
        raise ImageSourceError(
            f"The test images in {places[-1]} could not be scored: {reason(error)}."
        ) from error
    return _compare(champion, challenger, test, scores, metric, learnt, found)


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


_GONE = "are not there any more, or cannot be used"
_SEVERAL = "stand in several classes now"
_UNKNOWN = "are in a class now that the models do not know"
_UNDECODED = "cannot be decoded"


def _classes_now(
    wanted: pd.DataFrame, found: Lookup, challenger: pd.DataFrame, classes: set[str]
) -> pd.DataFrame:
    """The wanted images with their class now, `now`, and why they cannot take part, `problem`."""
    known = dict(zip(wanted["digest"], wanted["label"], strict=True))
    if not found.certain:
        known |= dict(zip(challenger["digest"], challenger["label"], strict=True))
    rows: list[tuple[str | None, str | None]] = []
    for digest in wanted["digest"]:
        now = found.labels.get(digest) or ([] if found.certain else [known[digest]])
        if not now:
            rows.append((None, _GONE))
        elif len(now) > 1:
            rows.append((None, _SEVERAL))
        else:
            rows.append((now[0], None if now[0] in classes else _UNKNOWN))
    return wanted.assign(now=[now for now, _ in rows], problem=[problem for _, problem in rows])


def _check_found(
    champion: ModelVersion, test: pd.DataFrame, found: Lookup, places: list[str], *, given: bool
) -> None:
    """Refuse to go on without any image."""
    if given and found.unread:
        raise found.unread[places[0]]
    if (test["problem"] == _GONE).all():
        raise ImageSourceError(
            f"None of the {len(test)} test images of version {champion.version} is in "
            f"{' or '.join(places)} any more: say with tuner promote --images where they are."
        )
    if test["problem"].notna().all():
        raise ImageSourceError(
            f"None of the {len(test)} test images of version {champion.version} can be compared on: "
            f"{_counted(test['problem'])}."
        )


def _counted(problems: pd.Series) -> str:
    counts = problems.value_counts()
    return ", ".join(f"{count} {problem}" for problem, count in counts.items())


def _compare(
    champion: ModelVersion,
    challenger: ModelVersion,
    test: pd.DataFrame,
    scores: list[Scores],
    metric: Metric,
    learnt: int,
    found: Lookup,
) -> VersionComparison:
    labels = list(scores[0].table.columns)
    tables = [score.table[labels] for score in scores]
    for table in tables:
        asked = test["problem"].isna()
        test.loc[asked & ~test["digest"].isin(table.index), "problem"] = _GONE
        asked = test["problem"].isna()
        test.loc[asked & ~test["digest"].isin(table.dropna().index), "problem"] = _UNDECODED
    usable = test[test["problem"].isna()]
    if usable.empty:
        why = "".join(f"; {error}" for error in found.unread.values())
        raise ImageSourceError(
            f"None of the {len(test)} test images of version {champion.version} can be compared on: "
            f"{_counted(test['problem'])}{why.rstrip('.')}."
        )
    comparison = compare(
        list(usable["path"]),
        usable["now"].map({label: i for i, label in enumerate(labels)}).to_numpy(),
        tables[0].loc[usable["digest"]].to_numpy(),
        tables[1].loc[usable["digest"]].to_numpy(),
        labels,
        metric=metric,
        gives=(scores[0].gives, scores[1].gives),
    )
    return VersionComparison(
        str(champion.version),
        str(challenger.version),
        comparison,
        _notes(test, usable, learnt, found),
        max(score.computed for score in scores),
    )


def _notes(test: pd.DataFrame, usable: pd.DataFrame, learnt: int, found: Lookup) -> tuple[str, ...]:
    counts = {"were left out because the challenger was trained on them": learnt}
    counts |= {
        problem: int((test["problem"] == problem).sum())
        for problem in (_GONE, _SEVERAL, _UNKNOWN, _UNDECODED)
    }
    counts["have another class now than in the champion's search: the one that they have now counts"] = int(
        (usable["now"] != usable["label"]).sum()
    )
    notes = [f"{count} of its test images {what}." for what, count in counts.items() if count]
    for source, error in found.unread.items():
        notes.append(f"The images {source} cannot be read now: {str(error).rstrip('.')}.")
    remembered = int((~usable["digest"].isin(list(found.labels))).sum())
    if remembered:
        notes.append(f"{remembered} of its test images count with the class that they had in the searches.")
    return tuple(notes)
