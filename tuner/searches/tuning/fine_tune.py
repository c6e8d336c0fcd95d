"""A fine-tuning: images, base, epochs or trials of them; the network is tested once and registered."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console

from tuner.base.errors import ExperimentError
from tuner.evaluation.metrics import Evaluation
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.schema import Experiment
from tuner.networks.files import check_precision
from tuner.networks.store import TUNED_FOLDER
from tuner.preparation.images import PreparedImages, open_cache
from tuner.preparation.pixels import prepare_pixels
from tuner.registry.versions import RegisteredVersion, holder_of
from tuner.reports.search import log_prepared
from tuner.searches.opening import Opened, opened
from tuner.searches.resume import (
    EarlierSearch,
    check_same,
    check_same_images,
    check_unfinished,
    resumable,
)
from tuner.searches.tuning.halving import search_trainings
from tuner.searches.tuning.winner import finish_tuned
from tuner.spark.launch import SparkLaunch
from tuner.spark.worker_daemon import FOR_TRAINING
from tuner.tracking import names
from tuner.tracking.store import open_tracking
from tuner.training.bases import Base, check_unfreeze, find_base
from tuner.training.checkpoints import Epoch
from tuner.training.images import PIXELS_FILE, TrainingImages, write_rows
from tuner.training.loop import Training, check_gpu
from tuner.training.plan import plan_of
from tuner.trials.fine_tuning import log_epoch

_FOLDER = "training"  # of a cache: a folder for each run, with its images and checkpoints
_KEPT = "The epochs that ended are kept."


@dataclass(frozen=True)
class FineTuning:
    """What a fine-tuning came to.

    Attributes
    ----------
    run_id, experiment_id
        The MLflow run, and the experiment that holds it.
    base
        The network that it began with.
    metric
        What its epochs are ranked by.
    best
        The epoch whose weights are kept, and what it showed.
    values
        Learning rates, layers, dropout and strength, by the experiment's keys: the ones that won.
    epochs
        One row an epoch of the training that won: number, phase, seconds and metrics.
    trials
        Where something was searched: one row a trial; else None.
    test
        What the network is worth on the test part.
    version
        It, registered.
    network
        The network as a backbone of a search: ``runs:/<id>/network``.
    """

    run_id: str
    experiment_id: str
    base: str
    metric: str
    best: Epoch
    values: Mapping[str, object]
    epochs: pd.DataFrame
    trials: pd.DataFrame | None
    test: Evaluation
    version: RegisteredVersion
    network: str


def run_fine_tuning(
    experiment: Experiment,
    *,
    resume: EarlierSearch | None = None,
    master: str | None = None,
    launch: SparkLaunch | None = None,
    console: Console | None = None,
) -> FineTuning:
    """Train a network on an experiment's images, test it once, and register it.

    With one value for everything the network is trained in this process, on all cores; else SparkTrials
    trains several, and after each rung of epochs only the best go on.

    Parameters
    ----------
    experiment
        Its images, split, `fine_tune`, `registry` and `gate`.
    resume
        An earlier one to go on with (`find_search` with the kind `fine-tune`).
    master
        A Spark master URL; None: this machine.
    launch
        Spark, if it starts already; then it knows the master.
    console
        Where progress is shown; None: standard output.

    Raises
    ------
    InvalidInput
        Something about the experiment, the base, the images, the cache, Spark or MLflow cannot work.
    TrialError
        The loss is no number any more; it says at which epoch.
    SearchError
        No trial succeeded.
    Interrupted
        By Ctrl-C or SIGTERM.
    """
    console = console or Console()
    try:
        experiment = experiment.for_tuning()
    except ValueError as error:
        raise ExperimentError(f"The experiment {experiment.name} trains no network: {error}.") from None
    if resume:
        check_unfinished(resume)
        check_same(resume, experiment, tunes=True)
    store = resume.store if resume else open_tracking(experiment.name)
    holder_of(store, experiment.model_name, experiment.registry.alias)
    cache = open_cache(experiment, store)
    spec = experiment.search.backbone[0]
    base = find_base(spec, cache.networks)
    if base.file is not None:
        check_precision(base.file, experiment.precision)
    check_unfreeze(base, experiment.fine_tune.unfreeze)
    check_gpu(experiment.fine_tune.precision)
    with opened(
        experiment,
        "fine-tune",
        rows=[],
        store=store,
        cache=cache,
        advice=partial(resumable, command="fine-tune", kept=_KEPT),
        resume=resume,
        master=master,
        launch=launch,
        preload=FOR_TRAINING if experiment.fine_tune.searched else (),
        console=console,
    ) as found:
        found.left.close()
        with _folder(found) as folder:
            return _tune(found, spec, base, folder, resume)


@contextmanager
def _folder(found: Opened) -> Iterator[Path]:
    """Give the run's folder in the cache; its images go in any case, its checkpoints if it succeeds."""
    folder = found.cache.root / _FOLDER / found.run.run_id
    try:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        found.cache.place.discard(folder / "images")


def _tune(
    found: Opened, spec: NetworkSpec, base: Base, folder: Path, resume: EarlierSearch | None
) -> FineTuning:
    experiment, settings = found.experiment, found.experiment.fine_tune
    with found.timed("prepare"):
        prepared = prepare_pixels(
            found.session,
            experiment,
            found.cache,
            spec,
            base.input_size,
            folder / "images" / PIXELS_FILE,
            found.console,
        )
    if resume:
        check_same_images(resume, prepared.digest, tunes=True)
    images = _images(found, prepared, folder / "images")
    _log_data(found, prepared, base)
    if settings.searched:
        with found.timed("trials"):
            training, trials = search_trainings(found, base, images, prepared.labels, folder)
    else:
        training, trials = _train(found, base, images, prepared, folder), None
    with found.timed("winner"):
        done = finish_tuned(found, spec, base, prepared, training, folder / "images" / PIXELS_FILE)
    return FineTuning(
        run_id=found.run.run_id,
        experiment_id=found.store.experiment_id,
        base=base.name,
        metric=experiment.search.metric,
        best=done.best,
        values=training.plan.values,
        epochs=done.epochs,
        trials=trials,
        test=done.test,
        version=done.version,
        network=f"runs:/{found.run.run_id}/{TUNED_FOLDER}",
    )


def _images(found: Opened, prepared: PreparedImages, folder: Path) -> TrainingImages:
    """Tell trainings of all images but the test part; of folds, the first one validates."""
    images = write_rows(folder, prepared.index)
    learned = int((~prepared.index["part"].isin(["test", images.validation])).sum())
    size = found.experiment.fine_tune.batch_size
    if learned < size:
        raise ExperimentError(
            f"fine_tune.batch_size is {size}, and there are {learned} images to learn from: set it to "
            f"{learned} or less."
        )
    if found.experiment.split.folds:
        found.console.print("fold-0 validates, and all other folds are learned from", markup=False)
    return images


def _log_data(found: Opened, prepared: PreparedImages, base: Base) -> None:
    experiment = found.experiment
    settings = experiment.fine_tune.model_dump(mode="json", exclude={"base"})
    told = {"base": base.name, **settings}
    log_prepared(found.run, prepared)
    found.run.batch(
        params={f"fine_tune.{name}": value for name, value in told.items()}
        | {"fine_tune.images": experiment.images},
        metrics={"images": len(prepared.index), "quarantined": len(prepared.quarantine)},
        tags={names.DATA_DIGEST: prepared.digest},
    )


def _train(
    found: Opened, base: Base, images: TrainingImages, prepared: PreparedImages, folder: Path
) -> Training:
    """Train in this process, on all cores."""
    search = found.experiment.search
    plan = plan_of(found.experiment.fine_tune, {}, search.metric, search.seed)
    metric = f"validation_{search.metric}"

    def tell(epoch: Epoch) -> None:
        log_epoch(found.run, epoch)
        numbers = {name: epoch.metrics[name] for name in ("loss", "train_accuracy", metric)}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        found.console.print(
            f"epoch {epoch.number}/{plan.epochs} · {epoch.phase} · {shown} · {epoch.seconds:.1f} s",
            markup=False,
            soft_wrap=True,
        )

    training = Training(
        base,
        plan,
        images,
        prepared.labels,
        folder,
        threads=found.session.cores,
        on_epoch=tell,
        on_note=partial(found.console.print, markup=False, soft_wrap=True),
    )
    ended = len(training.progress.history)
    if ended:
        found.console.print(f"{ended} epochs ended before and count")
    with found.timed("training"):
        training.run()
    return training
