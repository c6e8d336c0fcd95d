"""Fill the feature cache for an experiment, and nothing else: what `tuner features` does."""

from __future__ import annotations

import time

from rich.console import Console

from tuner.checks.cluster import check_workers
from tuner.experiment.schema import Experiment
from tuner.networks.table import check_names
from tuner.preparation.images import open_cache, prepare_images
from tuner.reports.search import log_extraction
from tuner.spark.sessions import driver_session
from tuner.tracking.runs import parent_run
from tuner.tracking.store import open_tracking


def fill_cache(experiment: Experiment, *, master: str | None = None, console: Console | None = None) -> int:
    """Extract what the cache misses of every network's features, after the same checks as a search's.

    Parameters
    ----------
    experiment
        Its images and networks.
    master
        A Spark master URL; None: this machine.
    console
        Where progress is shown; None: standard output.

    Returns
    -------
    int
        The images extracted, each counted once for each network that it went through.

    Raises
    ------
    InvalidInput
        Something about the experiment, the images, the cache, Spark or MLflow cannot work.
    """
    console = console or Console()
    check_names(experiment)
    store = open_tracking(experiment.name)
    cache = open_cache(experiment, store)
    with parent_run(store, f"{experiment.name}-features", "features") as run:
        started = time.monotonic()
        with driver_session(f"tuner {experiment.name}", 1, master=master) as session:
            check_workers(session, cache=cache.root, images=experiment.images)
            prepared = prepare_images(session, experiment, cache, console)
        log_extraction(run, prepared, time.monotonic() - started)
    return prepared.extracted
