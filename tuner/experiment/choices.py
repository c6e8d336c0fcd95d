"""The part of an experiment that says which classifiers are searched, and over which parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, SerializationInfo, model_serializer, model_validator

from tuner.classifiers.rows.mllib import MODEL_TYPE, NOT_NEGATIVE
from tuner.classifiers.rows.row import NONE, PRESTEP, Classifier
from tuner.classifiers.space import Frozen, Parameter, ParamSpace, Value, nearest, shown
from tuner.classifiers.table import CLASSIFIERS, DEFAULT, SPOTS, find_classifier


@dataclass(frozen=True)
class Dimension:
    """One searched parameter of a classifier.

    `label` is hyperopt's name for it, `condition` another parameter and those of its values with which this
    one is there.
    """

    label: str
    parameter: Parameter
    space: ParamSpace

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.parameter.name

    @property
    def condition(self) -> tuple[str, tuple[str, ...]] | None:
        """Another parameter, and those of its values with which this one is there; None: it always is."""
        return self.parameter.only_with

    def is_there(self, values: Mapping[str, Value]) -> bool:
        """Whether a trial with these values has this parameter."""
        if self.condition is None:
            return True
        name, wanted = self.condition
        return values.get(name) in wanted


@dataclass(frozen=True)
class Choice:
    """One classifier of a search, with the dimensions of its space.

    `name` is None where the experiment names no classifier: trials then do not name it either.
    """

    name: str | None
    dimensions: tuple[Dimension, ...]

    @property
    def row(self) -> Classifier:
        """Its row of the table."""
        return CLASSIFIERS[self.name or DEFAULT]

    def check_point(self, values: Mapping[str, Value]) -> None:
        """Refuse values by name that are not in the space; raises ValueError.

        Those that the space fixes may be left out.
        """
        known = {dimension.name: dimension for dimension in self.dimensions}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"has {name}, which is no parameter of {self.row.name} here")
            if value not in known[name].space:
                text = known[name].parameter.shown(value) if isinstance(value, str) else f"{value:g}"
                raise ValueError(
                    f"has {name} {text}, which is not in {known[name].space}: "
                    "widen the space or leave the point out"
                )
        whole = {d.name: d.space.values[0] for d in self.dimensions if len(d.space.values) == 1} | dict(
            values
        )
        missing = [d.name for d in self.dimensions if d.is_there(whole) and d.name not in whole]
        if missing:
            raise ValueError(f"lacks {missing[0]}: state it")


class ClassifierSpec(Frozen):
    """A classifier as an experiment names it: alone, or with values of some of its parameters.

    `{name: RandomForest, numTrees: 50:300, maxDepth: 3:12}`; parameters that are not named have their row's
    values. The name of one that a spot-check tries (`sklearn.KNeighbors-5`) stands for its values.
    """

    name: str = Field(min_length=1)
    spaces: dict[str, ParamSpace] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _of_the_table(cls, data: Any) -> Any:
        given = {"name": data} if isinstance(data, str) else data
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            raise ValueError(
                f"a classifier is a name, or {{name: …}} with its parameters, not {shown(data)}"
            )
        name = given["name"].strip()
        values: dict[str, Any] = {}
        if name in SPOTS and name not in CLASSIFIERS:
            name, fixed = SPOTS[name]
            values |= fixed
        row = find_classifier(name)
        values |= {key: value for key, value in given.items() if key != "name"}
        return {"name": name, "spaces": {key: _space(row, key, value) for key, value in values.items()}}

    @model_validator(mode="after")
    def _conditions_are_met(self) -> ClassifierSpec:
        spaces = {name: row.default for name, row in self.row.by_name.items()} | self.spaces
        for name in self.spaces:
            condition = self.row.by_name[name].only_with
            if condition and not set(spaces[condition[0]].values) & set(condition[1]):
                raise ValueError(
                    f"{name} of {self.name} goes with {condition[0]} {' or '.join(condition[1])} only: "
                    f"give {condition[0]}, too"
                )
        kinds, steps = spaces.get(MODEL_TYPE), [name for name in spaces[PRESTEP].values if name != NONE]
        counts = [kind for kind in NOT_NEGATIVE if kinds is not None and kind in kinds.values]
        if counts and steps:
            raise ValueError(
                f"{self.name} with {MODEL_TYPE} {counts[0]} takes features for counts, which "
                f"{steps[0]} does not leave them: set {PRESTEP} to {NONE}, or {MODEL_TYPE} to gaussian"
            )
        return self

    @property
    def row(self) -> Classifier:
        """Its row of the table."""
        return CLASSIFIERS[self.name]

    @model_serializer(mode="plain")
    def _plain(self, _: SerializationInfo) -> dict[str, str]:
        return {"name": self.name, **{name: str(space) for name, space in self.spaces.items()}}

    def choice(self, defaults: Mapping[str, ParamSpace], *, prefix: bool) -> Choice:
        """Its space; `defaults` stand in for its row's, `prefix`: labels begin with its name."""
        spaces = {
            **{name: row.default for name, row in self.row.by_name.items()},
            **defaults,
            **self.spaces,
        }
        return Choice(self.name, dimensions(self.row, spaces, f"{self.name}." if prefix else ""))


def dimensions(
    row: Classifier, spaces: Mapping[str, ParamSpace], prefix: str = ""
) -> tuple[Dimension, ...]:
    """The dimensions of a classifier's space: of what has one, less those whose condition is never met."""
    found = []
    for name, parameter in row.by_name.items():
        if name not in spaces:
            continue
        condition = parameter.only_with
        if condition is None or set(spaces[condition[0]].values) & set(condition[1]):
            found.append(Dimension(prefix + name, parameter, spaces[name]))
    return tuple(found)


def _space(row: Classifier, name: str, value: object) -> ParamSpace:
    """Read the values of a row's parameter; raises ValueError."""
    if name not in row.by_name:
        raise ValueError(f"{row.name} has no parameter {shown(name)}: {nearest(str(name), row.by_name)}")
    parameter = row.by_name[name]
    space = ParamSpace.model_validate(parameter.read(value))
    parameter.check(space, row.name)
    return space


def read_classifiers(value: object) -> object:
    """Read a list of classifiers, or their names separated by commas."""
    if value is None:
        return None
    items = value.split(",") if isinstance(value, str) else value
    if isinstance(items, dict | ClassifierSpec):
        items = [items]
    if not isinstance(items, list | tuple) or not items:
        raise ValueError(f"{shown(value)} is no list of classifiers: there are {', '.join(CLASSIFIERS)}")
    return tuple(items)
