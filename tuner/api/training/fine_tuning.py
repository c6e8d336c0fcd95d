"""`tuner.fine_tune`: a network trained on images, or an earlier training gone on with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tuner.api.earlier import earlier_run
from tuner.api.given import Source, Values, given_tuning
from tuner.api.guest import as_it_was
from tuner.base.errors import ExperimentError
from tuner.experiment.file import FINE_TUNE_OVERRIDES

if TYPE_CHECKING:
    from tuner.searches.tuning.fine_tune import FineTuning


@as_it_was()
def fine_tune(
    images_or_experiment: Source | None = None,
    *,
    name: str | None = None,
    images: str | os.PathLike[str] | None = None,
    base: str | Mapping[str, Any] | None = None,
    augment: str | Mapping[str, Any] | None = None,
    unfreeze: int | str | list[int | str] | None = None,
    warm_up_epochs: int | str | None = None,
    epochs: int | str | None = None,
    warm_up_learning_rate: Values | None = None,
    learning_rate: Values | None = None,
    batch_size: int | str | None = None,
    early_stop: int | str | None = None,
    max_evals: int | str | None = None,
    parallelism: int | str | None = None,
    seed: int | str | None = None,
    metric: str | None = None,
    validation: str | None = None,
    precision: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    resume: str | None = None,
    force: bool = False,
    master: str | None = None,
    console: Console | None = None,
) -> FineTuning:
    """Train a network on images, test it once and register it; several values of a key are searched.

    The words are those of `fine_tune` in the experiment file. An active MLflow run, a running Spark session
    and what is set in this process are treated as by `tuner.search`.

    Parameters
    ----------
    images_or_experiment, name, images
        As of `tuner.search`.
    base
        The network to begin with: a name, ``small-cnn``, or a description as in the file.
    augment
        ``none``, ``strong``, or ranges: ``{"rotation": 30, "flip": True}``.
    unfreeze
        The layers that learn after the warm-up: 15, -15, a layer's name, ``all``, ``none``, or a list.
    warm_up_epochs, epochs
        Epochs of the head alone, and with those layers.
    warm_up_learning_rate, learning_rate
        A value, a list, or a range ``(low, high)``.
    batch_size
        Images a step.
    early_stop
        End a phase after so many epochs without a gain.
    max_evals, parallelism
        Where something is searched: how many trials, and how many at once.
    seed
        Of the split and of all that is drawn.
    metric
        What epochs and trials are ranked by in validation.
    validation
        ``holdout`` or ``cv:5``, whose first fold validates.
    precision
        What layers compute in while they are trained: ``float32``, ``bfloat16`` or, on a GPU, ``float16``.
    cache
        The folder of images and checkpoints.
    resume
        A fine-tuning to go on with: its run's id, or ``last``.
    force
        Go on with it even if a process seems to be at work on it.
    master
        A Spark master URL; None: the session that is running, or this machine.
    console
        Where progress is shown; None: standard output.

    Returns
    -------
    FineTuning
        The best epoch, its test, the registered version, and the network as a backbone.

    Raises
    ------
    InvalidInput
        Something about the experiment, the base, the images, the cache, Spark or MLflow cannot work.
    TunerError
        The loss is no number any more, no trial succeeded, or the MLflow store stopped answering.
    """
    keys = {key: value for key, value in locals().items() if key in FINE_TUNE_OVERRIDES}
    source, console = images_or_experiment, console or Console()
    given = None if source is None else given_tuning(source, name=name, **keys)
    if force and resume is None:
        raise ExperimentError("--force is for a fine-tuning that another process has: give --resume, too.")
    if resume is None and given is None:
        raise ExperimentError("There is nothing to train on: give a folder of images, or an experiment.")
    from tuner.searches.tuning.fine_tune import run_fine_tuning  # imports take seconds

    earlier = None
    if resume is not None:
        earlier = earlier_run(resume, "fine-tune", given, name, force=force, console=console)
        given = given or given_tuning(earlier.experiment, **keys)
    assert given is not None
    return run_fine_tuning(given, resume=earlier, master=master, console=console)
