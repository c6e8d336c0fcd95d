"""`tuner.fine_tune`: a network trained on images, or an earlier training gone on with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tuner.api.given import Source, Values, given_experiment, plain
from tuner.api.guest import as_it_was
from tuner.base.errors import ExperimentError
from tuner.experiment.file import experiment_of
from tuner.experiment.schema import Experiment
from tuner.networks.table import check_names

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
    max_evals: int | str | None = None,
    parallelism: int | str | None = None,
    seed: int | str | None = None,
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
    max_evals, parallelism
        Where something is searched: how many trials, and how many at once.
    seed
        Of the split and of all that is drawn.
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
    keys = {"images": images, "parallelism": parallelism, "seed": seed, "cache": cache}
    told = {
        "base": base,
        "augment": augment,
        "unfreeze": unfreeze,
        "warm_up_epochs": warm_up_epochs,
        "epochs": epochs,
        "warm_up_learning_rate": warm_up_learning_rate,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "max_evals": max_evals,
    }
    console = console or Console()
    given: Experiment | None = None
    if images_or_experiment is not None:
        given = _with_keys(given_experiment(images_or_experiment, name=name, **keys), told)
    if resume is not None:
        return _resume(resume, given, name, keys, told, master, force, console)
    if force:
        raise ExperimentError("--force is for a fine-tuning that another process has: give --resume, too.")
    if given is None:
        raise ExperimentError("There is nothing to train on: give a folder of images, or an experiment.")
    check_names(given)
    from tuner.searches.tuning.fine_tune import run_fine_tuning

    return run_fine_tuning(given, master=master, console=console)


def _with_keys(experiment: Experiment, keys: Mapping[str, Any]) -> Experiment:
    """An experiment with some of the keys of `fine_tune` as they are given; text that is empty is none."""
    told = {key: plain(key, value) for key, value in keys.items() if value is not None and value != ""}
    if not told:
        return experiment
    data = experiment.to_yaml_dict()
    if "base" in told:  # another base has defaults of its own
        given = experiment.fine_tune.model_fields_set
        data["fine_tune"] = {key: value for key, value in data["fine_tune"].items() if key in given}
    data["fine_tune"] |= told
    return experiment_of(data, f"The fine-tuning of {experiment.name}")


def _resume(
    which: str,
    given: Experiment | None,
    name: str | None,
    keys: Mapping[str, Any],
    told: Mapping[str, Any],
    master: str | None,
    force: bool,
    console: Console,
) -> FineTuning:
    """Go on with a fine-tuning, by its own experiment unless one is given."""
    from tuner.searches.resume import find_search
    from tuner.searches.tuning.fine_tune import run_fine_tuning
    from tuner.tracking.store import named_experiment

    name = given.name if given else name
    earlier = find_search(which, named_experiment(name), name, force=force, kind="fine-tune")
    console.print(f"resuming {earlier}", markup=False, soft_wrap=True)
    if given is None:
        given = _with_keys(given_experiment(earlier.experiment, **keys), told)
    return run_fine_tuning(given, resume=earlier, master=master, console=console)
