"""The part of an experiment that says how a network is trained: base, head, augmentation, two phases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tuner.base.choices import ClassWeight, Metric
from tuner.classifiers.space import Frozen, ParamSpace, Space, parse_space, shown
from tuner.experiment.networks import NetworkSpec

SMALL_CNN = "small-cnn"  # a base that is trained from nothing
ALL, NONE = "all", "none"
TrainingPrecision = Literal["float32", "bfloat16", "float16"]
Optimizer = Literal["rmsprop", "sgd", "adam"]

# Of a network that has learned nothing yet there is nothing to keep, and no block to begin with.
_FROM_SCRATCH: Mapping[str, Any] = {
    "units": 128,
    "batch_normalization": False,
    "warm_up_epochs": 0,
    "unfreeze": ALL,
    "optimizer": "adam",
}
_SMALL_SIDE = 32


class Augment(Frozen):
    """How training images are changed at random, each time they are seen.

    `rotation` is in degrees to either side; `shift` (down and across), `shear` and `zoom` are shares; what
    comes in at an edge is filled as `fill` says.
    """

    rotation: float = Field(default=0, ge=0, le=180)
    flip: bool = False
    shift: float = Field(default=0, ge=0, lt=1)
    shear: float = Field(default=0, ge=0, lt=1)
    zoom: float = Field(default=0, ge=0, lt=1)
    fill: Literal["nearest", "reflect", "wrap", "constant"] = "nearest"

    @property
    def changes(self) -> bool:
        """Whether anything is changed at all."""
        return self.flip or any((self.rotation, self.shift, self.shear, self.zoom))

    def times(self, strength: float) -> Augment:
        """The same with all ranges multiplied; 0: no change at all."""
        names = ("rotation", "shift", "shear", "zoom")
        ranges = {name: getattr(self, name) * strength for name in names}
        return self.model_copy(update={**ranges, "flip": self.flip and strength > 0})


PRESETS: Mapping[str, Augment] = {
    "none": Augment(),
    "strong": Augment(rotation=30, flip=True, shift=0.1, shear=0.2, zoom=0.2),
}
"""Augmentations by name; `strong` has the values of the source, which classifies flowers."""


def _read_base(value: object) -> object:
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, dict) and value.get("name") == SMALL_CNN:
        side = (_SMALL_SIDE, _SMALL_SIDE)
        return {"input_size": side, "preprocessing": "unit", **value}
    return value


def _read_augment(value: object) -> object:
    if isinstance(value, str):
        if value not in PRESETS:
            raise ValueError(
                f"augment is {shown(value)}: write {' or '.join(PRESETS)}, or its ranges, such as "
                "{rotation: 30, flip: true}"
            )
        return PRESETS[value]
    return value


def _read_numbers(value: object) -> object:
    return parse_space(value, log_by_default=False)


def _read_rates(value: object) -> object:
    return parse_space(value, log_by_default=True)


def _read_unfreeze(value: object) -> object:
    """One or several of a number, a layer's name, `all` and `none`; text with commas is several."""
    items = value.split(",") if isinstance(value, str) else value
    items = items if isinstance(items, list | tuple) else [items]
    return tuple(dict.fromkeys(_layer(item) for item in items))


def _layer(item: object) -> int | str:
    text = str(item).strip()
    if isinstance(item, bool) or not isinstance(item, int | str) or not text:
        raise ValueError(
            f"unfreeze is {shown(item)}: write a number of layers, the name of one, {ALL} or {NONE}"
        )
    try:
        return int(text)
    except ValueError:
        return text


Numbers = Annotated[Space, BeforeValidator(_read_numbers)]
Rates = Annotated[Space, BeforeValidator(_read_rates)]


def _one(value: float) -> ParamSpace:
    return ParamSpace(values=(value,))


class FineTune(Frozen):
    """How a network is trained: first its new head alone, then the last of its layers with it.

    `unfreeze` counts layers as Python slices a list: 15 is all from the sixteenth on, -15 the last fifteen.
    `learning_rate`, `warm_up_learning_rate`, `unfreeze`, `dropout` and `augment_strength` may have several
    values: then `max_evals` trials are drawn, and after each rung of epochs the best of each `reduction` go
    on.
    """

    base: Annotated[NetworkSpec, BeforeValidator(_read_base)] | None = None
    units: int = Field(default=256, ge=0)
    batch_normalization: bool = True
    dropout: Numbers = _one(0.5)
    augment: Annotated[Augment, BeforeValidator(_read_augment)] = PRESETS["none"]
    augment_strength: Numbers = _one(1.0)
    batch_size: int = Field(default=32, ge=1)
    warm_up_epochs: int = Field(default=20, ge=0)
    warm_up_optimizer: Optimizer = "rmsprop"
    warm_up_learning_rate: Rates = _one(1e-3)
    unfreeze: Annotated[tuple[int | str, ...], BeforeValidator(_read_unfreeze)] = Field(
        default=15, validate_default=True
    )
    epochs: int = Field(default=50, ge=0)
    optimizer: Optimizer = "sgd"
    learning_rate: Rates = _one(1e-3)
    early_stop: int | None = Field(default=None, ge=1)
    class_weight: ClassWeight = "none"
    precision: TrainingPrecision = "float32"
    max_evals: int = Field(default=8, ge=2)
    parallelism: int | None = Field(default=None, ge=1, le=128)
    reduction: int = Field(default=2, ge=2)
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    metric: Metric | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_scratch(cls, data: Any) -> Any:
        base = data.get("base") if isinstance(data, dict) else None
        name = base.get("name") if isinstance(base, dict) else base
        return {**_FROM_SCRATCH, **data} if name == SMALL_CNN else data

    @field_validator("learning_rate", "warm_up_learning_rate")
    @classmethod
    def _learns(cls, value: ParamSpace) -> ParamSpace:
        if value.bounds[0] <= 0:
            raise ValueError(f"the learning rate is {value}, and must be above 0 to learn at all")
        return value

    @field_validator("dropout")
    @classmethod
    def _keeps_something(cls, value: ParamSpace) -> ParamSpace:
        if value.bounds[0] < 0 or value.bounds[1] >= 1:
            raise ValueError(f"dropout is {value}: it must be 0 or more, and less than 1")
        return value

    @field_validator("augment_strength")
    @classmethod
    def _within_reason(cls, value: ParamSpace) -> ParamSpace:
        if value.bounds[0] < 0 or value.bounds[1] > 1:
            raise ValueError(f"augment_strength is {value}: it must lie between 0 and 1")
        return value

    @model_validator(mode="after")
    def _trains_at_all(self) -> FineTune:
        if self.warm_up_epochs + self.epochs == 0:
            raise ValueError("warm_up_epochs and epochs are both 0, so nothing would be trained: raise one")
        if self.base is not None and self.base.name == SMALL_CNN:
            if self.base.file is not None or self.base.weights is not None:
                raise ValueError(f"{SMALL_CNN} is trained from nothing: leave out its file and its weights")
            if self.warm_up_epochs or self.unfreeze != (ALL,):
                raise ValueError(
                    f"{SMALL_CNN} has learned nothing that could be kept frozen: leave out "
                    f"warm_up_epochs, and unfreeze or set it to {ALL}"
                )
        return self

    @property
    def spaces(self) -> dict[str, ParamSpace]:
        """The numbers that may be searched, by name; `unfreeze` is beside them."""
        names = ("warm_up_learning_rate", "learning_rate", "dropout", "augment_strength")
        return {name: getattr(self, name) for name in names}

    @property
    def searched(self) -> tuple[str, ...]:
        """What has several values."""
        several = [name for name, space in self.spaces.items() if len(space.values) != 1]
        return (*several, *(["unfreeze"] if len(self.unfreeze) > 1 else []))

    @property
    def all_epochs(self) -> int:
        """The epochs of both phases."""
        return self.warm_up_epochs + self.epochs
