"""What a search and a spot-check open and share: run, session, checked workers, features, and trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from tuner.base.choices import WhereToFit
from tuner.base.errors import SearchError
from tuner.base.interrupts import StopRequests, at_last, stop_requests, uninterrupted
from tuner.checks.cluster import check_workers
from tuner.classifiers.parameters import BACKBONE, CLASSIFIER, TrialParams
from tuner.classifiers.rows.row import Classifier
from tuner.experiment.schema import Experiment
from tuner.extraction.cache import FeatureCache
from tuner.models.flavor import write_model_files
from tuner.preparation.images import PreparedImages, first_image, prepare_images
from tuner.preparation.matrices import matrix_bytes, write_matrices
from tuner.preparation.tables import publish_tables
from tuner.searches.resume import EarlierSearch
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
from tuner.tracking.store import Tracking
from tuner.tracking.unsent_trials import UNSENT
from tuner.tracking.views import write_view
from tuner.trials.progress import search_progress
from tuner.trials.spark_trials import EndingTrials, TrialLimit, lost_reasons, results_of
from tuner.trials.trial import Trial

WORKER_BYTES = 2 * 2**30  # of a network's features as float32: up to so many, a worker fits by itself
_GRACE_SECONDS = 15  # for a trial's start, and to end by itself


def fits_in_workers(asked: WhereToFit, size: int) -> bool:
    """Whether a worker fits by itself or MLlib on the cluster, for tables that one should not hold.

    `size` is that of the widest network's features, in bytes.
    """
    return asked == "worker" or (asked == "auto" and size <= WORKER_BYTES)


def fitted_on_spark(rows: Collection[Classifier], asked: WhereToFit, size: int) -> frozenset[str]:
    """The classifiers that MLlib fits on the cluster: for nobody else can, or the tables are large.

    `size` is that of the widest network's features, in bytes.
    """
    inside = fits_in_workers(asked, size)
    return frozenset(
        row.name for row in rows if "worker" not in row.fits or ("spark" in row.fits and not inside)
    )


@dataclass(frozen=True)
class Opened:
    """What a search works with, once its run and its session are there.

    `rows` are the classifiers that its trials fit.
    """

    experiment: Experiment
    rows: Sequence[Classifier]
    store: Tracking
    run: RunLog
    cache: FeatureCache
    session: DriverSession
    console: Console
    stop: StopRequests
    workers: Future[None]
    left: CutOffTrials

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Log the seconds that a phase takes."""
        started = time.monotonic()
        yield
        self.run.batch(metrics={f"{phase}_seconds": time.monotonic() - started})

    def said(self, phase: str) -> AbstractContextManager[object]:
        """Say at a terminal what is done meanwhile."""
        return self.console.status(phase) if self.console.is_terminal else nullcontext()

    def prepare(self, combinations: Collection[TrialParams] = ()) -> PreparedImages:
        """Bring the images to features; `combinations` as `prepare_images` takes them."""
        with self.timed("prepare"):
            return prepare_images(self.session, self.experiment, self.cache, self.console, combinations)

    @contextmanager
    def trial(self, prepared: PreparedImages, *, keeps_model: bool = True) -> Iterator[Trial]:
        """Make what trials do, with what they need in a folder of the cache, which is gone afterwards."""
        staging = self.cache.root / "staging" / self.run.run_id
        self.cache.place.discard(staging)  # of a driver that was killed
        staging.mkdir(parents=True)
        try:
            trial = self._trial(prepared, staging, keeps_model=keeps_model)
            self.workers.result()
            yield trial
        finally:
            self.cache.place.discard(staging)

    def _trial(self, prepared: PreparedImages, staging: Path, *, keeps_model: bool) -> Trial:
        search, cores, spark = self.experiment.search, self.session.cores, self.session.spark
        sklearn = any(row.library == "sklearn" for row in self.rows)
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
            saved=self.cache.place.for_saving(spark, staging / "saved"),
            unsent=self.cache.root / UNSENT / self.run.run_id,
            on_spark=self._on_spark(prepared),
            threads=max(1, cores // search.parallelism),
            at_once=search.parallelism,
            timeout=search.trial_timeout,
            keeps_model=keeps_model,
        )
        if any(row.name not in trial.on_spark for row in self.rows):
            matrices = write_matrices(self.cache, prepared, staging / "features")
            folder = self.cache.place.for_workers(spark, matrices.folder)
            trial = replace(trial, matrices=replace(matrices, folder=folder))
        if trial.on_spark:
            tables = publish_tables(self.session, self.cache, prepared, copies=search.parallelism)
            trial = replace(trial, tables=tables, endpoint=self.session.endpoint)
        return trial

    def _on_spark(self, prepared: PreparedImages) -> frozenset[str]:
        """Decide which classifiers are fitted on the cluster, and say it."""
        asked, size = self.experiment.search.fit, matrix_bytes(prepared)
        outside = fitted_on_spark(self.rows, asked, size)
        inside = {row.name for row in self.rows} - outside
        where = "in the workers" if not outside else "by MLlib on Spark"
        if inside and outside:
            where += f" ({', '.join(sorted(outside))}) and in the workers ({', '.join(sorted(inside))})"
        self.console.print(
            f"trials fit {where} (fit: {asked}; {size / 2**20:,.0f} MiB of features)",
            markup=False,
            soft_wrap=True,
        )
        both = "worker, spark" if inside else "spark"
        self.run.batch(params={"search.fits_in": both if outside else "worker"})
        return outside

    def limit(self, read: Callable[[Mapping[str, object]], tuple[int, TrialParams]]) -> TrialLimit | None:
        """Where a trial does not end itself in time, its process is ended.

        `read` gives the number and the parameters of a trial that hyperopt has by its labels.
        """
        search = self.experiment.search
        if search.trial_timeout is None:
            return None
        reason = too_long(search.trial_timeout)

        def late(values: Mapping[str, object]) -> TrialResult:
            number, params = read(values)
            finished = finished_trial(self.store, self.run.run_id, number, search.metric)
            if finished is not None:  # it came to its end meanwhile
                return finished
            run_id = fail_trial(self.store, self.run.run_id, number, params.to_dict(), reason)
            name = trial_name(number, params.backbone)
            return TrialResult(number, params, name, run_id, reason=reason)

        return TrialLimit(search.trial_timeout + _GRACE_SECONDS, search.metric, late)

    def watch(
        self, trials: EndingTrials, trial: Trial, total: int, run: Callable[[], None]
    ) -> tuple[list[TrialResult], list[str]]:
        """Show the trials while they run; gives their results, and what Spark said of those without one.

        Raises
        ------
        SearchError
            The MLflow server went away, or no trial came to its end.
        """

        def cancel() -> None:
            trials.timeout = 1e-3  # SparkTrials then cancels what runs and starts no more

        try:
            with (
                self.stop.handled_by(cancel),
                preloading(self.session.spark.sparkContext, FOR_TRIALS),
                search_progress(self.console, trials, total, self.experiment.search.metric),
            ):
                run()
        finally:
            self.left.know(result.run_id for result in results_of(trials))
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


@contextmanager
def opened(
    experiment: Experiment,
    kind: str,
    *,
    rows: Sequence[Classifier],
    store: Tracking,
    cache: FeatureCache,
    advice: Callable[[str], AbstractContextManager[None]],
    resume: EarlierSearch | None = None,
    master: str | None = None,
    connect_port: int = 0,
    launch: SparkLaunch | None = None,
    preload: Sequence[str] = FOR_TRIALS,
    console: Console,
) -> Iterator[Opened]:
    """Begin a run, start Spark and check its workers, in the order in which all of it ends again.

    Parameters
    ----------
    kind
        Of the run: `search`, `spot-check` or `fine-tune`; it is also said to the person.
    rows
        The classifiers that trials fit.
    advice
        Says how to go on with what is stopped, given the run's id.
    resume, master, connect_port, launch, console
        As `tuner.searches.search.run_search` takes them.
    preload
        What workers import that are started ahead; nothing: none are.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        heartbeat = Heartbeat(store, "fine-tuning" if kind == "fine-tune" else "search")
        if resume:  # before its run is touched: another process may do the same
            heartbeat.claim(resume.run_id)
        run_name = experiment.name if kind == "search" else f"{experiment.name}-{kind}"
        run = stack.enter_context(parent_run(store, run_name, kind, resume.run_id if resume else None))
        stack.enter_context(advice(run.run_id))
        stack.enter_context(heartbeat.beating(run.run_id))
        console.print(f"{kind} {experiment.name} · MLflow run {run.run_id}", soft_wrap=True, markup=False)
        with uninterrupted():  # without them it cannot be resumed
            run.batch(tags={names.EXPERIMENT: experiment.name})
            run.yaml(experiment.to_yaml_dict(), names.EXPERIMENT_FILE)
        searched = experiment.search.parameters if kind == "search" else (BACKBONE, CLASSIFIER)
        write_view(store, kind, experiment.search.metric, searched)
        name, parallelism = f"tuner {experiment.name}", experiment.search.parallelism
        launch = launch or launch_spark(
            name, parallelism, master=master, port=connect_port, preload=preload
        )
        left = CutOffTrials(store, run.run_id)
        stack.callback(left.close)  # once Spark has stopped
        stack.enter_context(at_last(left.close))
        session = stack.enter_context(launched_session(launch))
        connects = bool(fitted_on_spark(rows, experiment.search.fit, 0))
        if connects and session.borrowed:
            _ = session.endpoint  # refuses, before anything is extracted
        cache.place.connect(session.spark)
        hosts = check_workers(
            session,
            cache=cache.place.seen_by_workers(session.spark),
            images=experiment.images,
            store=store,
            run_id=run.run_id,
            connects=connects,
        )
        if hosts:
            console.print(f"{session.slots} task slots on {', '.join(hosts)}", markup=False)
        workers = launch.wait().workers
        yield Opened(experiment, rows, store, run, cache, session, console, stop, workers, left)
