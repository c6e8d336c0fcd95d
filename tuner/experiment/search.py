"""The part of an experiment that says what is searched, and how."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from tuner.base.choices import NEEDS_PROBABILITY, ClassWeight, Metric, WhereToFit
from tuner.classifiers.parameters import BACKBONE, CLASS_WEIGHT, CLASSIFIER, PARAMETERS, TrialParams
from tuner.classifiers.rows.row import Classifier
from tuner.classifiers.space import Frozen, ParamSpace, Space, Value, shown
from tuner.classifiers.table import DEFAULT, find_classifier
from tuner.experiment.choices import Choice, ClassifierSpec, dimensions, read_classifiers
from tuner.experiment.networks import NetworkSpec, parse_backbones

_WITHOUT = "leave the classifier out"
_PLACES = {"worker": "in the worker", "spark": "on Spark"}


class Point(Frozen):
    """Parameters to try before the algorithm proposes its own: those of its classifier, by name."""

    model_config = ConfigDict(extra="allow")  # checked by the search, which knows the space

    backbone: str
    classifier: str | None = None
    class_weight: ClassWeight | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The classifier's parameters by name, as they were given."""
        return dict(self.__pydantic_extra__ or {})

    def params(self) -> TrialParams:
        """What the trial fits with."""
        return TrialParams.of(self.backbone, self.classifier, self.class_weight, **self.values)


def _searched(name: str) -> BeforeValidator:
    """How a field for a parameter of the classifier that is fitted where none is named is read."""
    return BeforeValidator(PARAMETERS[name].read)


def _parse_weights(value: object) -> object:
    """`none`, `balanced` or both, as one text with commas."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        return value
    return ",".join(dict.fromkeys(str(item).strip() for item in items))


def check_metric(row: Classifier, metric: Metric, otherwise: str) -> None:
    """Refuse a metric that a classifier does not give; raises ValueError, which ends `otherwise`."""
    if metric in NEEDS_PROBABILITY and row.gives == "decision":
        raise ValueError(
            f"{metric} needs probabilities, and {row.name} gives none: rank by another metric, such as "
            f"accuracy or roc_auc, or {otherwise}"
        )


def check_weights(row: Classifier, class_weight: str, otherwise: str) -> None:
    """Refuse weights for a classifier that knows none; raises ValueError, which ends `otherwise`."""
    if class_weight != "none" and not row.weighted:
        raise ValueError(
            f"class_weight is {class_weight}, and {row.name} knows no weights: set it to none, or "
            f"{otherwise}"
        )


class SearchSettings(Frozen):
    """The space, and how it is searched."""

    backbone: Annotated[tuple[NetworkSpec, ...], BeforeValidator(parse_backbones)] = Field(min_length=1)
    classifier: Annotated[tuple[ClassifierSpec, ...] | None, BeforeValidator(read_classifiers)] = None
    regParam: Annotated[Space, _searched("regParam")] = PARAMETERS["regParam"].default
    elasticNetParam: Annotated[Space, _searched("elasticNetParam")] = PARAMETERS["elasticNetParam"].default
    maxIter: Annotated[Space, _searched("maxIter")] = PARAMETERS["maxIter"].default
    algorithm: Literal["tpe", "random", "anneal"] = "tpe"
    points: tuple[Point, ...] = ()
    max_evals: int = Field(default=16, ge=1)
    parallelism: int = Field(default=2, ge=1, le=128)
    timeout: float | None = Field(default=None, gt=0)
    trial_timeout: float | None = Field(default=None, gt=0)
    early_stop: int | None = Field(default=None, ge=1)
    seed: int = Field(default=42, ge=0, lt=2**32)
    deterministic: bool = False
    metric: Metric = "accuracy"
    class_weight: Annotated[
        Literal["none", "balanced", "none,balanced", "balanced,none"], BeforeValidator(_parse_weights)
    ] = "none"
    fit: WhereToFit = "auto"
    select: Literal["best", "one-standard-error"] = "best"

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """The classifiers, each with the values of its parameters."""
        own = {name: getattr(self, name) for name in PARAMETERS}
        if self.classifier is None:
            return (Choice(None, dimensions(find_classifier(DEFAULT), own)),)
        several = len(self.classifier) > 1
        return tuple(
            spec.choice(own if spec.name == DEFAULT else {}, prefix=several) for spec in self.classifier
        )

    @property
    def spaces(self) -> dict[str, ParamSpace]:
        """The values of every searched parameter, by hyperopt's label."""
        return {d.label: d.space for choice in self.choices for d in choice.dimensions}

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of what trials differ in, as they log it."""
        named = () if self.classifier is None else (CLASSIFIER,)
        own = dict.fromkeys(d.name for choice in self.choices for d in choice.dimensions)
        return (BACKBONE, *named, *own, *((CLASS_WEIGHT,) if len(self.class_weights) > 1 else ()))

    @property
    def class_weights(self) -> tuple[ClassWeight, ...]:
        """The ways in which classes weigh; several are searched."""
        return cast("tuple[ClassWeight, ...]", tuple(self.class_weight.split(",")))

    @property
    def class_weight_of_all(self) -> ClassWeight:
        """How classes weigh in trials that do not say it themselves."""
        return self.class_weights[0] if len(self.class_weights) == 1 else "none"

    @field_validator("backbone")
    @classmethod
    def _names_differ(cls, value: tuple[NetworkSpec, ...]) -> tuple[NetworkSpec, ...]:
        if twice := _listed_twice(value):
            raise ValueError(f"the backbone {twice[0]} is listed twice: give each a name of its own")
        return value

    @field_validator("classifier")
    @classmethod
    def _classifiers_differ(
        cls, value: tuple[ClassifierSpec, ...] | None
    ) -> tuple[ClassifierSpec, ...] | None:
        if twice := _listed_twice(value or ()):
            raise ValueError(
                f"the classifier {twice[0]} is listed twice: name it once, with all of its values"
            )
        return value

    @model_validator(mode="after")
    def _values_that_mllib_takes(self) -> SearchSettings:
        for name, row in PARAMETERS.items():
            row.check(getattr(self, name), DEFAULT)
        if self.classifier is not None and all(spec.name != DEFAULT for spec in self.classifier):
            set_for_nobody = [n for n, row in PARAMETERS.items() if getattr(self, n) != row.default]
            if set_for_nobody:
                raise ValueError(
                    f"{set_for_nobody[0]} is set, and is {DEFAULT}'s, which is not in "
                    f"search.classifier: add it, or give {set_for_nobody[0]} to a classifier: "
                    f"{{name: …, {set_for_nobody[0]}: …}}"
                )
        return self

    @model_validator(mode="after")
    def _classifiers_fit_the_search(self) -> SearchSettings:
        for choice in self.choices:
            row = choice.row
            if not row.fits:
                raise ValueError(
                    f"{row.name} learns a batch at a time, and a search fits on all images at once: give "
                    f"it to tuner learn (learn.classifier), or {_WITHOUT}"
                )
            check_metric(row, self.metric, _WITHOUT)
            if self.fit != "auto" and self.fit not in row.fits:
                raise ValueError(
                    f"fit is {self.fit}, and {row.name} fits {_PLACES[row.fits[0]]} only: leave fit out "
                    f"(auto), or {_WITHOUT}"
                )
            check_weights(row, self.class_weight, _WITHOUT)
        if self.select == "one-standard-error" and len(self.choices) > 1:
            raise ValueError(
                "select: one-standard-error takes the simplest model, and which of two classifiers is "
                "simpler is not known: search one of them, or select: best"
            )
        return self

    @model_validator(mode="after")
    def _points_lie_in_the_space(self) -> SearchSettings:
        names = [spec.name for spec in self.backbone]
        choices = {choice.name: choice for choice in self.choices}
        for place, point in enumerate(self.points, start=1):
            if point.backbone not in names:
                raise ValueError(
                    f"point {place} has the backbone {point.backbone}, which is not in search.backbone: "
                    f"{', '.join(names)}"
                )
            if point.classifier not in choices:
                told = "no classifier" if point.classifier is None else f"the classifier {point.classifier}"
                listed = ", ".join(name or "none" for name in choices)
                raise ValueError(f"point {place} has {told}; in search.classifier: {listed}")
            if (point.class_weight is not None) != (len(self.class_weights) > 1):
                raise ValueError(
                    f"point {place}: give class_weight in a point where it is searched, and only there"
                )
            try:
                choices[point.classifier].check_point(_typed(choices[point.classifier], point.values))
            except ValueError as error:
                raise ValueError(f"point {place} {error}") from None
        return self


def _listed_twice(specs: Sequence[NetworkSpec | ClassifierSpec]) -> list[str]:
    names = [spec.name for spec in specs]
    return sorted({name for name in names if names.count(name) > 1})


def _typed(choice: Choice, values: dict[str, Any]) -> dict[str, Value]:
    """The values of a point as the parameters have them; raises ValueError."""
    rows = choice.row.by_name
    typed: dict[str, Value] = {}
    for name, value in values.items():
        row = rows.get(name)
        try:
            typed[name] = value if row is None else row.typed(value)
            if row is not None and row.whole and float(value) != int(float(value)):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            what = "a whole number" if row is not None and row.whole else "a number"
            raise ValueError(f"has {name} {shown(value)}, which is not {what}") from None
    return typed
