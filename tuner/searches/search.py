"""A search from end to end: prepare the images, run the trials, log what they show, finish the winner."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from tuner.base.choices import WhereToFit
from tuner.base.errors import SearchError
from tuner.base.interrupts import StopRequests, at_last, stop_requests, uninterrupted
from tuner.checks.cluster import check_workers
from tuner.classifiers.parameters import TrialParams
from tuner.experiment.schema import Experiment, SearchSettings
from tuner.extraction.cache import FeatureCache
from tuner.models.flavor import write_model_files
from tuner.networks.table import check_names
from tuner.preparation.images import (
    PreparedImages,
    first_image,
    open_cache,
    prepare_images,
)
from tuner.preparation.matrices import matrix_bytes, write_matrices
from tuner.preparation.tables import publish_tables
from tuner.registry.versions import holder_of
from tuner.reports.search import log_data, log_trials
from tuner.searches.resume import (
    EarlierSearch,
    check_same,
    check_same_images,
    ended_trials,
    resumable,
)
from tuner.searches.winner import Winner, choose, finish_winner
from tuner.spark.endpoint import too_long
from tuner.spark.launch import SparkLaunch, launch_spark
from tuner.spark.sessions import DriverSession, launched_session
from tuner.spark.worker_daemon import FOR_TRIALS, preloading
from tuner.tracking import names
from tuner.tracking.answering import without_credentials
from tuner.tracking.heartbeat import Heartbeat
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import RunLog
from tuner.tracking.runs import CutOffTrials, fail_trial, finished_trial, parent_run, trial_name
from tuner.tracking.store import Tracking, open_tracking
from tuner.tracking.unsent_trials import UNSENT
from tuner.trials.progress import search_progress
from tuner.trials.space import NUMBER, point_of_values
from tuner.trials.spark_trials import TrialLimit, lost_reasons, make_trials, results_of, run_trials
from tuner.trials.trial import Trial

WORKER_BYTES = 2 * 2**30  # of a network's features as float32: up to so many, a worker fits by itself
_GRACE_SECONDS = 15  # for a trial's start, and to end by itself


@dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    Attributes
    ----------
    run_id, experiment_id
        The MLflow run that holds the trials' runs, and the experiment that holds it.
    trials
        One row a trial: trial, run_id, status, parameters, metrics, seconds.
    winner
        The best trial, fitted anew, tested and registered.
    extracted
        The images that were not cached, each counted once for each network.
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
    launch: SparkLaunch | None = None,
    console: Console | None = None,
) -> SearchResult:
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
    SearchResult
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
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        heartbeat = Heartbeat(store)
        if resume:  # before its run is touched: another process may do the same
            heartbeat.claim(resume.run_id)
        run = stack.enter_context(
            parent_run(store, experiment.name, "search", resume.run_id if resume else None)
        )
        stack.enter_context(resumable(run.run_id))
        stack.enter_context(heartbeat.beating(run.run_id))
        console.print(f"search {experiment.name} · MLflow run {run.run_id}", soft_wrap=True, markup=False)
        with uninterrupted():  # without them it cannot be resumed
            run.batch(tags={names.EXPERIMENT: experiment.name})
            run.yaml(experiment.to_yaml_dict(), names.EXPERIMENT_FILE)
        name, parallelism = f"tuner {experiment.name}", experiment.search.parallelism
        launch = launch or launch_spark(
            name, parallelism, master=master, port=connect_port, preload=FOR_TRIALS
        )
        left = CutOffTrials(store, run.run_id)
        stack.callback(left.close)  # once Spark has stopped
        stack.enter_context(at_last(left.close))
        session = stack.enter_context(launched_session(launch))
        cache.place.connect(session.spark)
        hosts = check_workers(
            session,
            cache=cache.place.seen_by_workers(session.spark),
            images=experiment.images,
            store=store,
            run_id=run.run_id,
            connects=_connects(experiment),
        )
        if hosts:
            console.print(f"{session.slots} task slots on {', '.join(hosts)}", markup=False)
        search = _Search(experiment, store, run, cache, session, console, stop, launch.wait().workers, left)
        return search.go_on_with(resume) if resume else search.start()


def _connects(experiment: Experiment) -> bool:
    """Whether it is certain that some trials fit on the cluster."""
    search = experiment.search
    return search.fit == "spark" or any("worker" not in choice.row.fits for choice in search.choices)


def fitted_on_spark(search: SearchSettings, size: int) -> frozenset[str]:
    """The classifiers that MLlib fits on the cluster: for nobody else can, or the tables are large.

    `size` is that of the widest network's features, in bytes.
    """
    inside = fits_in_workers(search.fit, size)
    rows = [choice.row for choice in search.choices]
    return frozenset(
        row.name for row in rows if "worker" not in row.fits or ("spark" in row.fits and not inside)
    )


def fits_in_workers(asked: WhereToFit, size: int) -> bool:
    """Whether a worker fits by itself or MLlib on the cluster, for tables that one should not hold.

    `size` is that of the widest network's features, in bytes.
    """
    return asked == "worker" or (asked == "auto" and size <= WORKER_BYTES)


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
    workers: Future[None]
    left: CutOffTrials

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.run.batch(metrics={f"{phase}_seconds": time.monotonic() - started})

    def _prepare(self) -> PreparedImages:
        with self._timed("prepare"):
            return prepare_images(self.session, self.experiment, self.cache, self.console)

    def start(self) -> SearchResult:
        prepared = self._prepare()
        log_data(self.run, self.experiment, prepared)
        return self._search(prepared, [])

    def go_on_with(self, earlier: EarlierSearch) -> SearchResult:
        self.left.close()
        prepared = self._prepare()
        check_same_images(earlier, prepared.digest)
        log_data(self.run, self.experiment, prepared)  # again: it may have ended in the midst of it
        ended = ended_trials(earlier)
        self.console.print(f"{len(ended)} trials ended before and count")
        return self._search(prepared, ended)

    def _search(self, prepared: PreparedImages, ended: Sequence[TrialResult]) -> SearchResult:
        staging = self.cache.root / "staging" / self.run.run_id
        self.cache.place.discard(staging)  # of a driver that was killed
        staging.mkdir(parents=True)
        try:
            trial = self._trial(prepared, staging)
            self.workers.result()
            with self._timed("trials"):
                results, lost = self._run_trials(trial, ended)
            frame = log_trials(self.run, results, self.experiment.search.metric, lost)
            with self._timed("winner"):
                winner = finish_winner(
                    self.session,
                    self.experiment,
                    self.cache,
                    prepared,
                    choose([result for result in results if result.finished], self.experiment),
                    trial=trial,
                    run=self.run,
                    store=self.store,
                    console=self.console,
                )
        finally:
            self.cache.place.discard(staging)
        return SearchResult(self.run.run_id, self.store.experiment_id, frame, winner, prepared.extracted)

    def _trial(self, prepared: PreparedImages, staging: Path) -> Trial:
        search, cores, spark = self.experiment.search, self.session.cores, self.session.spark
        rows = [choice.row for choice in search.choices]
        sklearn = any(row.library == "sklearn" for row in rows)
        write_model_files(staging / "model", first_image(prepared), sklearn=sklearn)
        trial = Trial(
            tracking=self.store,
            parent_id=self.run.run_id,
            networks=prepared.networks,
            labels=prepared.labels,
            folds=self.experiment.split.folds,
            metric=search.metric,
            class_weight=search.class_weight_of_all,
            seed=search.seed,
            model_files=self.cache.place.for_workers(spark, staging / "model"),
            saved=staging / "saved",
            on_spark=self._on_spark(prepared),
            unsent=self.cache.root / UNSENT / self.run.run_id,
            threads=max(1, cores // search.parallelism),
            at_once=search.parallelism,
            timeout=search.trial_timeout,
        )
        if any(row.name not in trial.on_spark for row in rows):
            matrices = write_matrices(self.cache, prepared, staging / "features")
            folder = self.cache.place.for_workers(spark, matrices.folder)
            trial = replace(trial, matrices=replace(matrices, folder=folder))
        if trial.on_spark:
            tables = publish_tables(self.session, self.cache, prepared, copies=search.parallelism)
            trial = replace(trial, tables=tables, endpoint=self.session.endpoint)
        return trial

    def _on_spark(self, prepared: PreparedImages) -> frozenset[str]:
        """Decide which classifiers are fitted on the cluster, and say it."""
        search, size = self.experiment.search, matrix_bytes(prepared)
        outside = fitted_on_spark(search, size)
        inside = {choice.row.name for choice in search.choices} - outside
        where = "in the workers" if not outside else "by MLlib on Spark"
        if inside and outside:
            where += f" ({', '.join(sorted(outside))}) and in the workers ({', '.join(sorted(inside))})"
        self.console.print(
            f"trials fit {where} (fit: {search.fit}; {size / 2**20:,.0f} MiB of features)",
            markup=False,
            soft_wrap=True,
        )
        both = "worker, spark" if inside else "spark"
        self.run.batch(params={"search.fits_in": both if outside else "worker"})
        return outside

    def _run_trials(
        self, trial: Trial, ended: Sequence[TrialResult]
    ) -> tuple[list[TrialResult], list[str]]:
        """Give the trials' results, and what Spark said of those that came to none."""
        search = self.experiment.search
        trials = make_trials(self.session.spark, search, ended=ended, limit=self._limit())

        def cancel() -> None:
            trials.timeout = 1e-3  # SparkTrials then cancels what runs and starts no more

        try:
            with (
                self.stop.handled_by(cancel),
                preloading(self.session.spark.sparkContext, FOR_TRIALS),
                search_progress(self.console, trials, search.max_evals, search.metric),
            ):
                run_trials(trials, trial, search, ends=lambda result: result.unsent)
        finally:
            self.left.know(results_of(trials))
            self.left.close()
        results = results_of(trials)
        unsent = sum(result.unsent for result in results)
        if unsent:
            raise SearchError(
                f"The MLflow store {without_credentials(self.store.uri)} does not answer any more, so the "
                f"search was stopped. {unsent} finished trials wait on {self._disk()}; when it is back, "
                f"send them with: tuner push {trial.unsent}"
            )
        lost = lost_reasons(trials)
        if not results and not lost:
            raise SearchError(f"No trial came to its end: {trials.reason or 'each lost its worker'}.")
        return results, lost

    def _disk(self) -> str:
        """Where trials leave what MLflow did not take."""
        seen = self.cache.place.seen_by_workers(self.session.spark)
        return "disk" if seen else "the disks of the workers"

    def _limit(self) -> TrialLimit | None:
        """Where a trial does not end itself in time, its process is ended."""
        search = self.experiment.search
        if search.trial_timeout is None:
            return None
        reason = too_long(search.trial_timeout)

        def late(values: Mapping[str, Any]) -> TrialResult:
            point = point_of_values(values, search)
            number, params = int(point[NUMBER]), TrialParams.from_point(point)
            finished = finished_trial(self.store, self.run.run_id, number, search.metric)
            if finished is not None:  # it came to its end meanwhile
                return finished
            run_id = fail_trial(self.store, self.run.run_id, number, params.to_dict(), reason)
            name = trial_name(number, params.backbone)
            return TrialResult(number, params, name, run_id, reason=reason)

        return TrialLimit(search.trial_timeout + _GRACE_SECONDS, search.metric, late)
