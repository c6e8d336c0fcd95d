"""What one trial fits with: a network, a classifier, its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from tuner.base.choices import ClassWeight
from tuner.classifiers.rows.row import COMPONENTS, NONE, PRESTEP, Classifier
from tuner.classifiers.space import Parameter, Value
from tuner.classifiers.table import CLASSIFIERS, DEFAULT

BACKBONE, CLASSIFIER, CLASS_WEIGHT = "backbone", "classifier", "class_weight"

PARAMETERS: Mapping[str, Parameter] = {row.name: row for row in CLASSIFIERS[DEFAULT].parameters}
"""The parameters of the classifier that is fitted where none is named, by name; no step comes first."""


@dataclass(frozen=True)
class TrialParams:
    """What one trial fits with.

    Attributes
    ----------
    backbone
        The network's name.
    given
        The classifier's parameters that it was given, with their values, in the order of the table. One
        that it does not have is absent.
    classifier
        Its name in the table; None: the experiment names none, and `DEFAULT` is fitted.
    class_weight
        How classes weigh, where that is searched; else None.
    """

    backbone: str
    given: tuple[tuple[str, Value], ...]
    classifier: str | None = None
    class_weight: ClassWeight | None = None

    @classmethod
    def of(
        cls,
        backbone: str,
        classifier: str | None = None,
        class_weight: ClassWeight | None = None,
        **values: Any,
    ) -> TrialParams:
        """Make them of values by name, in whatever order."""
        rows = CLASSIFIERS[classifier or DEFAULT].by_name
        given = tuple((name, row.typed(values[name])) for name, row in rows.items() if name in values)
        return cls(backbone, given, classifier, class_weight)

    @classmethod
    def from_point(cls, point: Mapping[str, Any]) -> TrialParams:
        """Read one point of the space, or a run's parameters: values, never the indices of choices.

        What a choice brings with it lies within it, as hyperopt's conditional spaces have it.

        Raises
        ------
        KeyError
            There is no backbone, or no such classifier.
        """
        flat = dict(_flat(point))
        classifier, weight = flat.get(CLASSIFIER), flat.get(CLASS_WEIGHT)
        if classifier is None:
            given = {name: flat[name] for name in PARAMETERS}  # these each trial has
        else:
            rows = CLASSIFIERS[classifier].by_name
            given = {name: flat[name] for name in rows if flat.get(name) is not None}
        return cls.of(str(flat[BACKBONE]), classifier, cast("ClassWeight | None", weight), **given)

    @property
    def row(self) -> Classifier:
        """The classifier's row of the table."""
        return CLASSIFIERS[self.classifier or DEFAULT]

    @property
    def values(self) -> dict[str, Value]:
        """The classifier's parameters by name, with those of the step before it."""
        return dict(self.given)

    @property
    def own(self) -> dict[str, Value]:
        """The classifier's own parameters by name."""
        return {name: value for name, value in self.given if name not in (PRESTEP, COMPONENTS)}

    @property
    def prestep(self) -> str:
        """The step before the classifier, by its name; or `none`."""
        return str(self.values.get(PRESTEP, NONE))

    @property
    def components(self) -> int:
        """How many numbers PCA makes of an image's features; 0 where it is not the step before."""
        return int(self.values.get(COMPONENTS, 0))

    def to_dict(self) -> dict[str, Any]:
        """All of it by name, as it is logged; what the trial does not have is absent."""
        named = {} if self.classifier is None else {CLASSIFIER: self.classifier}
        weight = {} if self.class_weight is None else {CLASS_WEIGHT: self.class_weight}
        return {BACKBONE: self.backbone, **named, **self.values, **weight}

    def simplicity(self) -> tuple[float, ...]:
        """A key by which simpler parameters of one classifier come first."""
        rows = self.row.by_name
        return tuple(
            -float(value) if rows[name].simpler == "larger" else float(value)
            for name, value in self.given
            if rows[name].simpler is not None
        )


def _flat(point: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in point.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield key, value


def described(values: Mapping[str, Any]) -> str:
    """Names and values for a person: ``RandomForest, numTrees 50, maxDepth 5``.

    Parameters
    ----------
    values
        As of `TrialParams.to_dict`, or a row of a table in which what a trial does not have is empty.
    """
    there = {name: value for name, value in values.items() if value is not None and value == value}
    row = CLASSIFIERS[there.get(CLASSIFIER, DEFAULT)]
    parts = [f"{name} {column.shown(there[name])}" for name, column in row.by_name.items() if name in there]
    first = [there[CLASSIFIER]] if CLASSIFIER in there else []
    last = [f"{CLASS_WEIGHT} {there[CLASS_WEIGHT]}"] if CLASS_WEIGHT in there else []
    return ", ".join([*first, *parts, *last])
