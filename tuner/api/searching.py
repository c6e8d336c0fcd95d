"""`tuner.search`: a search of images or of an experiment, or an earlier search gone on with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tuner.api.earlier import earlier_run
from tuner.api.given import Names, Source, Values, given_experiment
from tuner.api.guest import as_it_was
from tuner.api.results import SearchResult
from tuner.base.errors import ExperimentError
from tuner.experiment.file import OVERRIDES
from tuner.experiment.schema import Experiment
from tuner.networks.table import check_names

if TYPE_CHECKING:
    from tuner.searches.search import SearchOutcome


@as_it_was()
def search(
    images_or_experiment: Source | None = None,
    *,
    name: str | None = None,
    images: str | os.PathLike[str] | None = None,
    backbone: Names | None = None,
    classifier: Names | None = None,
    regParam: Values | None = None,
    elasticNetParam: Values | None = None,
    maxIter: Values | None = None,
    max_evals: int | str | None = None,
    parallelism: int | str | None = None,
    seed: int | str | None = None,
    validation: str | None = None,
    algorithm: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    deterministic: bool | str | None = None,
    class_weight: str | list[str] | None = None,
    fit: str | None = None,
    timeout: float | str | None = None,
    trial_timeout: float | str | None = None,
    early_stop: int | str | None = None,
    precision: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    resume: str | None = None,
    force: bool = False,
    master: str | None = None,
    connect_port: int = 0,
    console: Console | None = None,
) -> SearchResult:
    """Search for the best model, log every trial to MLflow, test the winner once and register it.

    The words are those of the experiment file and of the command line. Of a parameter, a tuple is a range
    and a list is values: ``regParam=(1e-4, 1)``, ``maxIter=[10, 20]``. An MLflow run that is active becomes
    the parent of the search's run, and a Spark session that is running is used, and stays. Environment,
    tracking URI, levels of logs and signal handlers are as before when the call returns.

    Parameters
    ----------
    images_or_experiment
        A folder of class folders, a Parquet, ``table:NAME`` or ``builtin:digits``; or an experiment: its
        file (``*.yaml``), the same as a dict, or an `Experiment`. Of a folder alone, split and networks
        are those that `tuner new` would write. None: the experiment of the search that is resumed.
    name
        Of the MLflow experiment and of the registered model; None: the experiment's, or the folder's.
    images
        Other images than the experiment's.
    backbone, classifier
        A list of names, or of descriptions as in the file.
    regParam, elasticNetParam, maxIter
        Of logistic regression: a value, a list, or a range ``(low, high)``; with ``"log"`` or ``"linear"``
        as its third item, how it is drawn.
    max_evals, parallelism
        How many trials, and how many at once.
    seed
        Of splits and proposals.
    validation
        ``holdout`` or ``cv:5``.
    algorithm
        ``tpe``, ``random`` or ``anneal``.
    metric
        What trials are ranked by.
    select
        ``best`` or ``one-standard-error``.
    deterministic
        Whether the trials are the same at any timing.
    class_weight
        ``none``, ``balanced``, or both in a list.
    fit
        Where trials fit: ``auto``, ``worker`` or ``spark``.
    timeout, trial_timeout
        Seconds after which no new trial starts, and for one trial.
    early_stop
        Start no trial after so many without gain.
    precision
        ``float32`` or ``bfloat16``.
    cache
        The folder of the feature cache.
    resume
        A search to go on with: its run's id, or ``last``.
    force
        Go on with it even if a process seems to be at work on it.
    master
        A Spark master URL; None: the session that is running, or this machine.
    connect_port
        The port of the Spark Connect endpoint; 0: a free one.
    console
        Where progress is shown; None: standard output.

    Returns
    -------
    SearchResult
        With at least one trial that succeeded.

    Raises
    ------
    InvalidInput
        Something about the experiment, the images, the cache, Spark or MLflow cannot work.
    SearchError
        No trial succeeded, or the MLflow server went away for good.
    StoreError
        The MLflow store stopped answering.
    """
    keys = {key: value for key, value in locals().items() if key in OVERRIDES}
    console = console or Console()
    if resume is not None:
        done = _resume(resume, images_or_experiment, name, keys, master, connect_port, force, console)
    elif force:
        raise ExperimentError("--force is for a search that another process has: give --resume, too.")
    elif images_or_experiment is None:
        raise ExperimentError("There is nothing to search: give a folder of images, or an experiment.")
    else:
        done = _search(
            given_experiment(images_or_experiment, name=name, **keys), master, connect_port, console
        )
    return SearchResult.of(done)


def _search(
    experiment: Experiment, master: str | None, connect_port: int, console: Console
) -> SearchOutcome:
    check_names(experiment)
    # Now that the experiment is known to be good: imports take seconds, and Spark starts meanwhile.
    from tuner.spark.launch import launch_spark
    from tuner.spark.worker_daemon import FOR_TRIALS

    launch = launch_spark(
        f"tuner {experiment.name}",
        experiment.search.parallelism,
        master=master,
        port=connect_port,
        preload=FOR_TRIALS,
    )
    try:
        from tuner.searches.search import run_search

        return run_search(experiment, launch=launch, console=console)
    except BaseException:
        launch.close()
        raise


def _resume(
    which: str,
    source: Source | None,
    name: str | None,
    keys: Mapping[str, Any],
    master: str | None,
    connect_port: int,
    force: bool,
    console: Console,
) -> SearchOutcome:
    """Go on with a search, by its own experiment unless one is given."""
    given = None if source is None else given_experiment(source, name=name, **keys)
    from tuner.searches.search import run_search

    earlier = earlier_run(which, "search", given, name, force=force, console=console)
    if given is None:
        given = given_experiment(earlier.experiment, **keys)
    return run_search(given, resume=earlier, master=master, connect_port=connect_port, console=console)
