"""`tuner.learn`: images learned a batch at a time, and later those that are new; and what that came to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tuner.api.earlier import earlier_run
from tuner.api.given import Source, given_learning
from tuner.api.guest import as_it_was
from tuner.api.results import open_model
from tuner.base.errors import ExperimentError
from tuner.classifiers.parameters import TrialParams
from tuner.experiment.file import LEARN_OVERRIDES

if TYPE_CHECKING:  # imports take seconds
    from tuner.api.models import Model
    from tuner.evaluation.comparison import Comparison
    from tuner.evaluation.metrics import Evaluation
    from tuner.registry.versions import RegisteredVersion
    from tuner.tracking.store import Tracking


@dataclass(frozen=True, eq=False)
class LearnResult:
    """What learning came to; it knows where MLflow has it, whatever the working folder is later.

    Attributes
    ----------
    name
        The experiment's.
    metric
        What it is judged by in validation.
    run_id
        The MLflow run.
    params
        The network, the classifier and its parameters.
    new, learned
        How many images this run learned, and how many have been learned in all.
    progressive
        The share of images whose class was predicted before they were learned; None: there was none.
    validation
        Metrics on the validation images.
    test
        What it is worth on the test part: `metrics`, `confusion`, `report`, `labels`.
    comparison
        What it was worth before (`champion`) and is now (`challenger`), on the same test images; None for a
        run that went on with none.
    version
        The registered version.
    extracted
        The images that were not cached.
    tracking
        The MLflow store, and the experiment that holds the run.
    """

    name: str
    metric: str
    run_id: str
    params: TrialParams
    new: int
    learned: int
    progressive: float | None
    validation: Mapping[str, float]
    test: Evaluation
    comparison: Comparison | None
    version: RegisteredVersion
    extracted: int
    tracking: Tracking = field(repr=False)

    @cached_property
    def model(self) -> Model:
        """The model, loaded without Spark."""
        return open_model(f"models:/{self.version.name}/{self.version.version}", self.tracking)


@as_it_was()
def learn(
    images_or_experiment: Source | None = None,
    *,
    name: str | None = None,
    images: str | os.PathLike[str] | None = None,
    backbone: str | Mapping[str, Any] | None = None,
    classifier: str | Mapping[str, Any] | None = None,
    batch: int | str | None = None,
    epochs: int | str | None = None,
    step: str | None = None,
    seed: int | str | None = None,
    metric: str | None = None,
    validation: str | None = None,
    precision: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    resume: str | None = None,
    force: bool = False,
    master: str | None = None,
    console: Console | None = None,
) -> LearnResult | None:
    """Learn images a batch at a time, in little memory; test and register what was learned.

    The words are those of the experiment's `learn` and of `tuner learn`. With `resume`, what an earlier run
    has not learned is learned, and compared with what there was before.

    Parameters
    ----------
    images_or_experiment
        As `tuner.search` takes it; None: the experiment of the run that is gone on with.
    name
        Of the MLflow experiment and of the registered model; None: the experiment's, or the folder's.
    images
        Other images than the experiment's.
    backbone
        The one network: a name, or a description as in the file.
    classifier
        What learns: a name, or a description with one value for each parameter.
    batch, epochs
        How many images at once, and how many passes over all of them.
    step
        Of River's: ``batch`` or ``row``.
    seed
        Of the split and of the order of images.
    metric
        What it is judged by in validation.
    validation
        ``holdout`` or ``cv:5``, whose first fold validates.
    precision
        ``float32`` or ``bfloat16``.
    cache
        The folder of the feature cache.
    resume
        A run to go on with: its id, or ``last``.
    force
        Go on with it even if a process seems to be at work on it.
    master
        A Spark master URL; None: the session that is running, or this machine.
    console
        Where progress is shown; None: standard output.

    Returns
    -------
    LearnResult
        None: nothing was new.

    Raises
    ------
    InvalidInput
        Something about the experiment, the images, the cache, Spark or MLflow cannot work.
    SearchError
        The numbers of the classifier grew beyond all bounds.
    StoreError
        The MLflow store stopped answering.
    """
    keys = {key: value for key, value in locals().items() if key in LEARN_OVERRIDES}
    source, console = images_or_experiment, console or Console()
    given = None if source is None else given_learning(source, name=name, **keys)
    if resume is None and given is None:
        raise ExperimentError("There is nothing to learn: give a folder of images, or an experiment.")
    if force and resume is None:
        raise ExperimentError("--force is for a run that another process has: give --resume, too.")
    from tuner.searches.incremental.learn import run_learning  # imports take seconds

    earlier = None
    if resume is not None:
        earlier = earlier_run(resume, "learn", given, name, force=force, console=console)
        given = given or given_learning(earlier.experiment, **keys)
    assert given is not None
    done = run_learning(given, resume=earlier, force=force, master=master, console=console)
    if done is None:
        return None
    shared = {key: value for key, value in vars(done).items() if key in LearnResult.__annotations__}
    experiment = done.experiment
    return LearnResult(experiment.name, experiment.search.metric, tracking=done.store, **shared)
