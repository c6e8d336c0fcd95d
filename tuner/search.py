"""A search from end to end: prepare the images, run the trials, log what they show, finish the winner."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import mlflow
import pandas as pd
from hyperopt import STATUS_OK, SparkTrials
from mlflow.data.pandas_dataset import from_pandas
from rich.console import Console

from tuner import charts, tracking
from tuner.errors import SearchError
from tuner.experiment import Experiment
from tuner.feature_cache import FeatureCache
from tuner.pages import figure_html, plotly_js
from tuner.preparation import (
    PreparedImages,
    check_names,
    data_digest,
    first_image,
    prepare_images,
    publish_tables,
    weights_files,
)
from tuner.progress import search_progress
from tuner.sessions import driver_session
from tuner.spark_trials import make_trials, run_trials
from tuner.splits import TEST, TRAIN, VALIDATION
from tuner.tracking import RunLog, close_trials_left_running, open_tracking, parent_run
from tuner.trial import Trial
from tuner.winner import Winner, choose, finish_winner

_SETTINGS = ("algorithm", "max_evals", "parallelism", "seed", "metric", "select", "deterministic")


@dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    `trials` has one row a trial: trial, run_id, status, parameters, metrics, seconds.
    """

    run_id: str
    experiment_id: str
    trials: pd.DataFrame
    winner: Winner
    extracted: int


def run_search(
    experiment: Experiment,
    *,
    master: str | None = None,
    connect_port: int = 0,
    console: Console | None = None,
) -> SearchResult:
    """Run a search and register its winner.

    Parameters
    ----------
    experiment
        What to search, and how.
    master
        A Spark master URL; None: this machine.
    connect_port
        The port of the Spark Connect endpoint; 0: a free one.
    console
        Where progress is shown; None: standard output.

    Raises
    ------
    InvalidInput
        Something about the experiment, the images, the cache, Spark or MLflow cannot work.
    SearchError
        No trial succeeded.
    """
    console = console or Console()
    check_names(experiment)
    store = open_tracking(experiment.name)
    cache = FeatureCache(experiment.cache)
    with parent_run(store, experiment.name, "search") as run:
        console.print(f"search {experiment.name} · MLflow run {run.run_id}", soft_wrap=True)
        run.json(experiment.to_yaml_dict(), tracking.EXPERIMENT_FILE)
        parallelism = experiment.search.parallelism
        app_name = f"tuner {experiment.name}"
        with driver_session(app_name, parallelism, master=master, port=connect_port) as session:
            prepared = prepare_images(session, experiment, cache, console)
            _log_data(run, experiment, prepared)
            tables = publish_tables(session, cache, prepared)
            staging = cache.root / "staging" / run.run_id
            staging.mkdir(parents=True)
            try:
                trial = Trial(
                    endpoint=session.endpoint,
                    tracking=store,
                    parent_id=run.run_id,
                    tables=tables,
                    backbones=prepared.backbones,
                    labels=prepared.labels,
                    folds=experiment.split.folds,
                    metric=experiment.search.metric,
                    staging=staging,
                    example=first_image(prepared),
                )
                trials = make_trials(session.spark, experiment.search)
                with search_progress(
                    console, trials, experiment.search.max_evals, experiment.search.metric
                ):
                    run_trials(trials, trial, experiment.search)
                frame = log_trials(run, trials, experiment)
                winner = finish_winner(
                    session,
                    experiment,
                    cache,
                    prepared,
                    choose(_scored(trials), experiment),
                    tables=tables,
                    run=run,
                    store=store,
                    example=trial.example,
                    staging=staging,
                )
            finally:
                close_trials_left_running(store, run.run_id)
                shutil.rmtree(staging, ignore_errors=True)
        return SearchResult(run.run_id, store.experiment_id, frame, winner, prepared.extracted)


def _log_data(run: RunLog, experiment: Experiment, prepared: PreparedImages) -> None:
    """Log what the search reads, before its first trial."""
    search = experiment.search
    space = {name: str(getattr(search, name)) for name in ("regParam", "elasticNetParam", "maxIter")}
    space["backbone"] = ",".join(prepared.backbones)
    run.json(dict(enumerate(prepared.labels)), tracking.LABELS_FILE)
    run.json(space, tracking.SPACE_FILE)
    run.text(plotly_js(), tracking.PLOTLY_FILE)
    run.text(prepared.quarantine.to_csv(index=False), tracking.QUARANTINE_FILE)
    settings = {name: getattr(search, name) for name in _SETTINGS}
    settings |= {"images": experiment.images, "validation": experiment.split.validation}
    run.batch(
        # Prefixed: `mlflow run` logs its own parameters, by the bare names, as they were given.
        params={f"search.{name}": value for name, value in (space | settings).items()},
        metrics={"images": len(prepared.index), "quarantined": len(prepared.quarantine)},
        tags={
            tracking.DATA_DIGEST: prepared.digest,
            **{f"tuner.{name}_version": version(name) for name in ("pyspark", "tensorflow", "keras")},
        },
    )
    for part in (TRAIN, VALIDATION, TEST):
        _log_input(experiment, prepared, part)
    for file in weights_files(prepared):
        run.file(file, tracking.BACKBONES_FOLDER)


def _log_input(experiment: Experiment, prepared: PreparedImages, part: str) -> None:
    in_part = prepared.index["part"].str.replace(r"fold-\d+", TRAIN, regex=True) == part
    rows = prepared.index[in_part][["path", "label", "digest", "part"]]
    if rows.empty:  # folds take the place of one validation part
        return
    named = experiment.images.startswith(("builtin:", "table:"))  # no place that MLflow could open
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow's, that several of its classes take a path
        dataset = from_pandas(
            rows.reset_index(drop=True),
            source=None if named else experiment.images,  # type: ignore[arg-type]  # None: code
            targets="label",
            name=f"{experiment.name}-{part}",
            digest=data_digest(rows),
        )
    mlflow.log_input(dataset, context={TRAIN: "training"}.get(part, part))


def _scored(trials: SparkTrials) -> list[Mapping[str, Any]]:
    return [doc["result"] for doc in trials.trials if doc["result"].get("status") == STATUS_OK]


def log_trials(run: RunLog, trials: SparkTrials, experiment: Experiment) -> pd.DataFrame:
    """Log what the trials show together; raise `SearchError` if none of them succeeded."""
    results = [doc["result"] for doc in trials.trials if "trial" in doc["result"]]
    if not _scored(trials):
        reasons: Sequence[str] = sorted({result["reason"] for result in results if "reason" in result})
        raise SearchError(
            f"None of the {len(results)} trials succeeded: "
            f"{'; '.join(reasons[:3]) or 'their workers died'} (see error.txt in the trials' runs)."
        )
    metric = experiment.search.metric
    frame = pd.DataFrame([_trial_row(result) for result in results]).sort_values("trial")
    run.table(charts.leaderboard(frame, metric), tracking.LEADERBOARD_FILE)
    figures = (charts.optimisation_history, charts.parallel_coordinates, charts.score_by_backbone)
    run.text(figure_html(*(figure(frame, metric) for figure in figures)), tracking.CHARTS_FILE)
    return frame


def _trial_row(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trial": result["trial"],
        "run_id": result.get("run_id"),
        **result["params"],
        "status": "FINISHED" if result["status"] == STATUS_OK else "FAILED",
        **result.get("metrics", {}),
        "seconds": result.get("seconds"),
    }
