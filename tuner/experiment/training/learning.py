"""The part of an experiment that says what learns a batch at a time, and how."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tuner.base.choices import LearnStep, Metric
from tuner.classifiers.rows.row import COMPONENTS, PRESTEP
from tuner.classifiers.space import Frozen, Value, shown
from tuner.classifiers.table import INCREMENTAL
from tuner.experiment.choices import ClassifierSpec
from tuner.experiment.networks import NetworkSpec, parse_backbones

_DEFAULT = "river.LogisticRegression"


def _one_network(value: object) -> object:
    if value is None:
        return None
    networks = parse_backbones(value)
    if not isinstance(networks, tuple) or len(networks) != 1:
        raise ValueError(f"{shown(value)} is not one network, and one is learned on: name it")
    return networks[0]


def _one_classifier(value: object) -> object:
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise ValueError(f"{shown(value)} is not one classifier, and one learns: name it")
        return value[0]
    return value


class LearnSettings(Frozen):
    """What `tuner learn` learns, and how."""

    backbone: Annotated[NetworkSpec | None, BeforeValidator(_one_network)] = None
    classifier: Annotated[ClassifierSpec, BeforeValidator(_one_classifier)] = ClassifierSpec.model_validate(
        _DEFAULT
    )
    batch: int = Field(default=64, ge=1, le=2**20)
    epochs: int = Field(default=1, ge=1, le=10_000)
    step: LearnStep = "batch"
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    metric: Metric | None = None

    @field_validator("classifier")
    @classmethod
    def _learns(cls, value: ClassifierSpec) -> ClassifierSpec:
        if not value.row.incremental:
            raise ValueError(
                f"{value.name} fits on all images at once, and cannot learn a batch at a time: there are "
                f"{', '.join(INCREMENTAL)}"
            )
        for name, space in value.spaces.items():
            if name in (PRESTEP, COMPONENTS):
                raise ValueError(
                    f"{name} of {value.name} is for a search: before what learns a batch at a time there "
                    "is a running StandardScaler, unless it takes counts"
                )
            if len(space.values) != 1:
                raise ValueError(
                    f"{name} of {value.name} is {space}, and nothing is searched: give one value"
                )
        return value

    @model_validator(mode="after")
    def _rows_are_river_s(self) -> LearnSettings:
        if self.step == "row" and self.classifier.row.library != "river":
            raise ValueError(
                f"step is row, which is River's, and {self.classifier.name} makes its own steps: leave "
                "step out"
            )
        return self

    @property
    def values(self) -> dict[str, Value]:
        """The classifier's parameters by name, as far as they are given."""
        rows = self.classifier.row.by_name
        return {name: rows[name].typed(space.values[0]) for name, space in self.classifier.spaces.items()}
