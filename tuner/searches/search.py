"""A search from end to end: prepare the images, run the trials, log what they show, finish the winner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console

from tuner.classifiers.parameters import TrialParams
from tuner.experiment.schema import Experiment
from tuner.networks.table import check_names
from tuner.preparation.images import PreparedImages, open_cache
from tuner.registry.versions import holder_of
from tuner.reports.search import log_data, log_trials
from tuner.searches.opening import Opened, opened
from tuner.searches.resume import (
    EarlierSearch,
    check_same,
    check_same_images,
    ended_trials,
    resumable,
)
from tuner.searches.winner import Winner, choose, finish_winner
from tuner.spark.launch import SparkLaunch
from tuner.tracking.results import TrialResult
from tuner.tracking.store import Tracking, open_tracking
from tuner.tracking.views import name_search
from tuner.trials.space import NUMBER, point_of_values
from tuner.trials.spark_trials import make_trials, run_trials
from tuner.trials.trial import Trial


@dataclass(frozen=True)
class SearchOutcome:
    """What a search came to.

    Attributes
    ----------
    experiment
        What was searched.
    store
        Where MLflow has it.
    run_id
        The MLflow run that holds the trials' runs.
    trials
        One row a trial: trial, run_id, status, parameters, metrics, seconds.
    winner
        The best trial, fitted anew, tested and registered.
    extracted
        The images that were not cached, each counted once for each network.
    """

    experiment: Experiment
    store: Tracking
    run_id: str
    trials: pd.DataFrame
    winner: Winner
    extracted: int


def run_search(
    experiment: Experiment,
    *,
    resume: EarlierSearch | None = None,
    master: str | None = None,
    connect_port: int = 0,
    launch: SparkLaunch | None = None,
    console: Console | None = None,
) -> SearchOutcome:
    """Run a search and register its winner.

    Parameters
    ----------
    experiment
        What to search, and how.
    resume
        An earlier search to go on with (`tuner.searches.resume.find_search`): its finished trials count.
    master
        A Spark master URL; None: this machine.
    connect_port
        The port of the Spark Connect endpoint; 0: a free one.
    launch
        Spark, if it starts already (`tuner.spark.launch.launch_spark`); then it knows master and port.
    console
        Where progress is shown; None: standard output.

    Returns
    -------
    SearchOutcome
        With at least one trial that succeeded.

    Raises
    ------
    InvalidInput
        Something about the experiment, the images, the cache, Spark or MLflow cannot work.
    SearchError
        No trial succeeded, or the MLflow server went away for good.
    Interrupted
        By Ctrl-C or SIGTERM.
    """
    console = console or Console()
    check_names(experiment)
    if resume:
        check_same(resume, experiment)
    store = resume.store if resume else open_tracking(experiment.name)
    holder_of(store, experiment.model_name, experiment.registry.alias)  # a registry that is away: said now
    cache = open_cache(experiment, store)
    with opened(
        experiment,
        "search",
        rows=[choice.row for choice in experiment.search.choices],
        store=store,
        cache=cache,
        advice=resumable,
        resume=resume,
        master=master,
        connect_port=connect_port,
        launch=launch,
        console=console,
    ) as found:
        return _go_on_with(found, resume) if resume else _start(found)


def _start(found: Opened) -> SearchOutcome:
    prepared = found.prepare()
    log_data(found.run, found.experiment, prepared)
    return _search(found, prepared, [])


def _go_on_with(found: Opened, earlier: EarlierSearch) -> SearchOutcome:
    found.left.close()
    prepared = found.prepare()
    check_same_images(earlier, prepared.digest)
    log_data(found.run, found.experiment, prepared)  # again: it may have ended in the midst of it
    ended = ended_trials(earlier)
    found.console.print(f"{len(ended)} trials ended before and count")
    return _search(found, prepared, ended)


def _search(found: Opened, prepared: PreparedImages, ended: Sequence[TrialResult]) -> SearchOutcome:
    with found.trial(prepared) as trial:
        with found.timed("trials"):
            results, lost = _run_trials(found, trial, ended)
        frame = log_trials(found.run, results, found.experiment.search.metric, lost)
        with found.timed("winner"), found.said("fitting, testing and registering the winner"):
            winner = finish_winner(
                found.session,
                found.experiment,
                found.cache,
                prepared,
                choose([result for result in results if result.finished], found.experiment),
                trial=trial,
                run=found.run,
                store=found.store,
                console=found.console,
            )
    metric, params = found.experiment.search.metric, winner.params
    won = params.backbone + (f" + {params.classifier}" if params.classifier else "")
    result = f"{len(frame)} trials · {won} {winner.metrics[metric]:.3f}"
    name_search(found.store, found.run.run_id, found.experiment.name, result)
    return SearchOutcome(found.experiment, found.store, found.run.run_id, frame, winner, prepared.extracted)


def _run_trials(
    found: Opened, trial: Trial, ended: Sequence[TrialResult]
) -> tuple[list[TrialResult], list[str]]:
    """Give the trials' results, and what Spark said of those that came to none."""
    search = found.experiment.search

    def read(values: Mapping[str, object]) -> tuple[int, TrialParams]:
        point = point_of_values(values, search)
        return int(point[NUMBER]), TrialParams.from_point(point)

    trials = make_trials(found.session.spark, search, ended=ended, limit=found.limit(read))

    def run() -> None:
        run_trials(trials, trial, search, ends=lambda result: result.unsent)

    return found.watch(trials, trial, search.max_evals, run)
