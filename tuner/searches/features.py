"""Fill the feature cache for an experiment, and write it for other tools: what `tuner features` does."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console

from tuner.checks.cluster import check_workers
from tuner.experiment.schema import Experiment
from tuner.extraction.cache import FeatureCache
from tuner.networks.table import check_names
from tuner.preparation.feature_files import export_features, export_files
from tuner.preparation.images import PreparedImages, open_cache, prepare_images
from tuner.reports.search import log_extraction
from tuner.spark.sessions import driver_session
from tuner.tracking.runs import parent_run
from tuner.tracking.store import open_tracking


@dataclass(frozen=True)
class FilledCache:
    """What a cache holds of an experiment, and where: features of `prepared`'s images and networks."""

    cache: FeatureCache
    prepared: PreparedImages


def fill_cache(
    experiment: Experiment,
    *,
    master: str | None = None,
    export: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> FilledCache:
    """Extract what the cache misses of every network's features, after the same checks as a search's.

    Parameters
    ----------
    experiment
        Its images and networks.
    master
        A Spark master URL; None: this machine.
    export
        A file to write the features to, ``*.h5``, ``*.npz`` or ``*.parquet``; of several networks, each has
        its own (``features-VGG16.h5``). It holds `features` (float32 of shape (n, width)), `labels` (int64
        of shape (n,)), `label_names`, `paths` and `parts`; as Parquet, one row an image.
    overwrite
        Whether a file that is there may be replaced.
    console
        Where progress is shown; None: standard output.

    Returns
    -------
    FilledCache
        The cache stays open, and is not pruned, as long as this is held.

    Raises
    ------
    InvalidInput
        Something about the experiment, the images, the cache, the export, Spark or MLflow cannot work.
    """
    console = console or Console()
    check_names(experiment)
    backbones = [spec.name for spec in experiment.search.backbone]
    files = export_files(export, backbones, overwrite) if export else {}
    store = open_tracking(experiment.name)
    cache = open_cache(experiment, store)
    with parent_run(store, f"{experiment.name}-features", "features") as run:
        started = time.monotonic()
        with driver_session(f"tuner {experiment.name}", 1, master=master) as session:
            cache.place.connect(session.spark)
            seen = cache.place.seen_by_workers(session.spark)
            check_workers(session, cache=seen, images=experiment.images)
            prepared = prepare_images(session, experiment, cache, console)
        log_extraction(run, prepared, time.monotonic() - started)
        for name, file in files.items():
            export_features(cache, prepared, prepared.networks[name], file, console)
    return FilledCache(cache, prepared)
