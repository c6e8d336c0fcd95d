"""Learn images a batch at a time, test and register what was learned; later, go on with it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from rich.console import Console

from tuner.base.errors import ExperimentError
from tuner.base.interrupts import advising, uninterrupted
from tuner.checks.cluster import check_workers
from tuner.experiment.schema import Experiment
from tuner.networks.table import check_names
from tuner.preparation.images import open_cache, prepare_images
from tuner.registry.versions import holder_of
from tuner.searches.incremental.earlier import check_same_learning, claim
from tuner.searches.incremental.work import LearnOutcome, Work
from tuner.searches.resume import EarlierSearch
from tuner.spark.sessions import driver_session
from tuner.tracking import names
from tuner.tracking.heartbeat import Heartbeat
from tuner.tracking.runs import parent_run
from tuner.tracking.store import open_tracking


def run_learning(
    experiment: Experiment,
    *,
    resume: EarlierSearch | None = None,
    force: bool = False,
    master: str | None = None,
    console: Console | None = None,
) -> LearnOutcome | None:
    """Learn images a batch at a time, test and register the model.

    The parts are those of a search: with folds, the first validates. Validation images are never learned,
    so that they judge this run and those that go on with it.

    Parameters
    ----------
    experiment
        Its images, split, and `learn`.
    resume
        An earlier run to go on with (`tuner.searches.resume.find_search`): what it has not learned is
        learned. Images that it used keep their part; new ones are learned.
    force
        Go on with it even if another process does.
    master
        A Spark master URL; None: this machine.
    console
        Where progress is shown; None: standard output.

    Returns
    -------
    LearnOutcome
        None: nothing was new.

    Raises
    ------
    InvalidInput
        Something about the experiment, the images, the cache, Spark or MLflow cannot work.
    SearchError
        The numbers of the classifier grew beyond all bounds.
    Interrupted
        By Ctrl-C or SIGTERM.
    """
    console = console or Console()
    try:
        experiment = experiment.for_learning()
    except ValueError as error:
        raise ExperimentError(f"The experiment {experiment.name} cannot be learned: {error}.") from None
    check_names(experiment)
    if resume:
        check_same_learning(resume.experiment, experiment, resume.run_id)
    store = resume.store if resume else open_tracking(experiment.name)
    holder_of(store, experiment.model_name, experiment.registry.alias)  # a registry that is away: said now
    cache = open_cache(experiment, store)
    heartbeat, tags = Heartbeat(store, "run"), {names.EXPERIMENT: experiment.name}
    if resume:
        claim(resume, heartbeat, force=force)
        tags[names.LEARNED_BEFORE] = resume.run_id
    with (
        parent_run(store, f"{experiment.name}-learn", "learn") as run,
        _advice(run.run_id),
        heartbeat.beating(run.run_id),
    ):
        console.print(f"learn {experiment.name} · MLflow run {run.run_id}", soft_wrap=True, markup=False)
        with uninterrupted():
            run.batch(tags=tags)
            run.yaml(experiment.to_yaml_dict(), names.EXPERIMENT_FILE)
        with driver_session(f"tuner {experiment.name}", 1, master=master) as session:
            cache.place.connect(session.spark)
            seen = cache.place.seen_by_workers(session.spark)
            check_workers(session, cache=seen, images=experiment.images)
            prepared = prepare_images(session, experiment, cache, console)
            work = Work(experiment, store, run, cache, session, prepared, console)
            return work.go_on(resume) if resume else work.start()


def _advice(run_id: str) -> AbstractContextManager[None]:
    return advising(
        "The features that were extracted are kept and, after half a minute of learning, what was learned.",
        f"Go on with: tuner learn --resume {run_id}",
    )
