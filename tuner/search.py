"""A search from end to end: prepare the images, run the trials, log what they show, finish the winner."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from hyperopt import STATUS_FAIL, STATUS_OK, SparkTrials
from mlflow.data.pandas_dataset import from_pandas
from rich.console import Console

from tuner import charts, tracking
from tuner.cluster import check_workers
from tuner.errors import SearchError
from tuner.experiment import Experiment
from tuner.feature_cache import FeatureCache
from tuner.interrupts import Interrupted, StopRequests, stop_requests
from tuner.pages import figure_html, plotly_js
from tuner.preparation import (
    PreparedImages,
    check_names,
    data_digest,
    first_image,
    open_cache,
    prepare_images,
    publish_tables,
    weights_files,
)
from tuner.progress import search_progress
from tuner.registry import holder_of
from tuner.resume import EarlierSearch, check_same, check_same_images, ended_trials, held, resumable
from tuner.runs import answers, close_trials_left_running, fail_trials, parent_run
from tuner.search_space import NUMBER, TrialParams, point_of_values
from tuner.sessions import DriverSession, driver_session, too_long
from tuner.spark_trials import TrialLimit, make_trials, run_trials
from tuner.splits import TEST, TRAIN, VALIDATION
from tuner.tracking import RunLog, Tracking, open_tracking, without_credentials
from tuner.trial import Trial
from tuner.unsent import UNSENT
from tuner.winner import Winner, choose, finish_winner

_GRACE_SECONDS = 15  # for a trial's start, and to end by itself
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
    resume: EarlierSearch | None = None,
    master: str | None = None,
    connect_port: int = 0,
    console: Console | None = None,
) -> SearchResult:
    """Run a search and register its winner.

    Parameters
    ----------
    experiment
        What to search, and how.
    resume
        An earlier search to go on with (`tuner.resume.find_search`): its finished trials count.
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
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        if resume:  # before its run is touched: another process may be at work on it
            stack.enter_context(held(cache.root, resume.run_id))
        run = stack.enter_context(
            parent_run(store, experiment.name, "search", resume.run_id if resume else None)
        )
        stack.enter_context(resumable(run.run_id))
        if not resume:
            stack.enter_context(held(cache.root, run.run_id))
        console.print(f"search {experiment.name} · MLflow run {run.run_id}", soft_wrap=True, markup=False)
        run.json(experiment.to_yaml_dict(), tracking.EXPERIMENT_FILE)
        session = stack.enter_context(
            driver_session(
                f"tuner {experiment.name}", experiment.search.parallelism, master=master, port=connect_port
            )
        )
        stop.listen()
        hosts = check_workers(
            session, cache=cache.root, images=experiment.images, store=store, run_id=run.run_id
        )
        if hosts:
            console.print(f"{session.slots} task slots on {', '.join(hosts)}", markup=False)
        search = _Search(experiment, store, run, cache, session, console, stop)
        return search.go_on_with(resume) if resume else search.start()


@dataclass(frozen=True)
class _Search:
    """What a search works with, once its run and its session are there."""

    experiment: Experiment
    store: Tracking
    run: RunLog
    cache: FeatureCache
    session: DriverSession
    console: Console
    stop: StopRequests

    def start(self) -> SearchResult:
        prepared = prepare_images(self.session, self.experiment, self.cache, self.console)
        _log_data(self.run, self.experiment, prepared)
        return self._search(prepared, [])

    def go_on_with(self, earlier: EarlierSearch) -> SearchResult:
        close_trials_left_running(self.store, self.run.run_id)
        prepared = prepare_images(self.session, self.experiment, self.cache, self.console)
        check_same_images(earlier, prepared.digest)
        _log_data(self.run, self.experiment, prepared)  # again: it may have ended in the midst of it
        ended = ended_trials(earlier)
        self.console.print(f"{len(ended)} trials ended before and count")
        return self._search(prepared, ended)

    def _search(self, prepared: PreparedImages, ended: Sequence[Mapping[str, Any]]) -> SearchResult:
        staging = self.cache.root / "staging" / self.run.run_id
        shutil.rmtree(staging, ignore_errors=True)  # of a driver that was killed
        staging.mkdir(parents=True)
        try:
            trial = self._trial(prepared, staging)
            trials = self._run_trials(trial, ended)
            frame = log_trials(self.run, trials, self.experiment)
            winner = finish_winner(
                self.session,
                self.experiment,
                self.cache,
                prepared,
                choose(_scored(trials), self.experiment),
                tables=trial.tables,
                run=self.run,
                store=self.store,
                example=trial.example,
                staging=staging,
            )
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return SearchResult(self.run.run_id, self.store.experiment_id, frame, winner, prepared.extracted)

    def _trial(self, prepared: PreparedImages, staging: Path) -> Trial:
        return Trial(
            endpoint=self.session.endpoint,
            tracking=self.store,
            parent_id=self.run.run_id,
            tables=publish_tables(self.session, self.cache, prepared),
            backbones=prepared.backbones,
            labels=prepared.labels,
            folds=self.experiment.split.folds,
            metric=self.experiment.search.metric,
            staging=staging,
            example=first_image(prepared),
            unsent=self.cache.root / UNSENT / self.run.run_id,
            timeout=self.experiment.search.trial_timeout,
        )

    def _run_trials(self, trial: Trial, ended: Sequence[Mapping[str, Any]]) -> SparkTrials:
        search = self.experiment.search
        trials = make_trials(self.session.spark, search, finished=ended, limit=self._limit())

        def cancel() -> None:
            trials.timeout = 1e-3  # SparkTrials then cancels what runs and starts no more

        try:
            with (
                self.stop.handled_by(cancel),
                search_progress(self.console, trials, search.max_evals, search.metric),
            ):
                run_trials(trials, trial, search, ends=lambda result: UNSENT in result)
        except Interrupted:
            context = self.session.spark.sparkContext
            context.setLogLevel("OFF")  # a cancelled job is not an error here
            context.cancelAllJobs()  # what MLlib still does for these trials
            raise
        finally:
            if answers(self.store):
                close_trials_left_running(self.store, self.run.run_id)
        unsent = sum(UNSENT in doc["result"] for doc in trials.trials)
        if unsent:
            raise SearchError(
                f"The MLflow server {without_credentials(self.store.uri)} does not answer any more, so the "
                f"search was stopped. {unsent} finished trials wait on disk; when the server is back, send "
                f"them with: tuner push {trial.unsent}"
            )
        return trials

    def _limit(self) -> TrialLimit | None:
        """Where a trial does not end itself in time, its process is ended."""
        search = self.experiment.search
        if search.trial_timeout is None:
            return None
        reason = too_long(search.trial_timeout)

        def late(values: Mapping[str, Any]) -> dict[str, Any]:
            point = point_of_values(values, search)
            number, params = int(point[NUMBER]), TrialParams.from_point(point).to_dict()
            fail_trials(self.store, self.run.run_id, number, reason)
            return {"trial": number, "params": params, "status": STATUS_FAIL, "reason": reason}

        return TrialLimit(search.trial_timeout + _GRACE_SECONDS, late)


def _log_data(run: RunLog, experiment: Experiment, prepared: PreparedImages) -> None:
    """Log what the search reads, before its first trial."""
    search = experiment.search
    space = {name: str(getattr(search, name)) for name in ("regParam", "elasticNetParam", "maxIter")}
    space["backbone"] = ",".join(prepared.backbones)
    run.json(dict(enumerate(prepared.labels)), tracking.LABELS_FILE)
    run.json(space, tracking.SPACE_FILE)
    run.parquet(prepared.index[["path", "label", "digest", "part"]], tracking.SPLIT_FILE)
    run.text(plotly_js(), tracking.PLOTLY_FILE)
    run.csv(prepared.quarantine, tracking.QUARANTINE_FILE)
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
