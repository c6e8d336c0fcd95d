"""One training, with every value decided: what a trial's parameters make of an experiment's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.base.choices import ClassWeight, Metric
from tuner.experiment.training.fine_tuning import NONE, Augment, FineTune, Optimizer, TrainingPrecision

WARM_UP, TUNING = "warm-up", "tuning"


@dataclass(frozen=True)
class Phase:
    """Epochs with one optimizer and one choice of layers that learn.

    `first` and `last` are numbers of epochs, from 1 over both phases; `rate_key` is what an experiment
    calls the learning rate.
    """

    name: str
    first: int
    last: int
    optimizer: Optimizer
    learning_rate: float
    rate_key: str
    unfreeze: int | str


@dataclass(frozen=True)
class Plan:
    """What decides a training but for its base and its images.

    `values` are the numbers and layers that an experiment may search, by its keys; the other attributes are
    named as in the experiment.
    """

    values: Mapping[str, Any]
    phases: tuple[Phase, ...]
    units: int
    batch_normalization: bool
    dropout: float
    augment: Augment
    batch_size: int
    early_stop: int | None
    class_weight: ClassWeight
    precision: TrainingPrecision
    metric: Metric
    seed: int

    @property
    def epochs(self) -> int:
        """The epochs of all phases."""
        return self.phases[-1].last

    def phase_of(self, epoch: int) -> Phase:
        """The phase that an epoch is in."""
        return next(phase for phase in self.phases if epoch <= phase.last)


def plan_of(settings: FineTune, values: Mapping[str, Any], metric: Metric, seed: int) -> Plan:
    """Decide a training.

    Parameters
    ----------
    settings
        What an experiment says.
    values
        By key, those that were drawn; what is not there has the experiment's one value.
    metric, seed
        As of a search.
    """
    fixed = {name: float(space.values[0]) for name, space in settings.spaces.items() if space.values}
    chosen = {**fixed, "unfreeze": settings.unfreeze[0], **values}
    warm_up, last = settings.warm_up_epochs, settings.all_epochs
    phases = (
        Phase(
            WARM_UP,
            1,
            warm_up,
            settings.warm_up_optimizer,
            float(chosen["warm_up_learning_rate"]),
            "warm_up_learning_rate",
            NONE,
        ),
        Phase(
            TUNING,
            warm_up + 1,
            last,
            settings.optimizer,
            float(chosen["learning_rate"]),
            "learning_rate",
            chosen["unfreeze"],
        ),
    )
    return Plan(
        values=chosen,
        phases=tuple(phase for phase in phases if phase.first <= phase.last),
        units=settings.units,
        batch_normalization=settings.batch_normalization,
        dropout=float(chosen["dropout"]),
        augment=settings.augment.times(float(chosen["augment_strength"])),
        batch_size=settings.batch_size,
        early_stop=settings.early_stop,
        class_weight=settings.class_weight,
        precision=settings.precision,
        metric=metric,
        seed=seed,
    )
