"""An experiment file (YAML) as frozen, validated models; options of the command line override it."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from tuner.param_space import Frozen, ParamSpace, Space, shown

Preprocessing = Literal["tf", "caffe", "torch", "unit", "none"]
Precision = Literal["float32", "bfloat16"]
Metric = Literal["accuracy", "f1", "weightedPrecision", "weightedRecall", "logLoss", "roc_auc"]

LOWER_IS_BETTER: frozenset[str] = frozenset({"logLoss"})
CHALLENGER = "challenger"  # the alias of a version that has not won its place


def _checked_name(value: str) -> str:
    """Refuse what is no name of a run and a model: MLflow makes parts of addresses and paths of them."""
    if not value.strip(". ") or re.search(r"[/:\\\x00-\x1f\x7f]", value):
        raise ValueError(
            f"the name is {shown(value)}, and runs and models are named after it: leave out / : \\ and "
            "line breaks, and give more than dots"
        )
    return value


def _checked_path(value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{shown(value)} has a null byte, which no path has")
    return value


Name = Annotated[str, AfterValidator(_checked_name)]
PathOf = Annotated[Path, BeforeValidator(_checked_path)]


def _parse_ratio(value: object) -> Fraction:
    """Read `1/3`, `0.2` or `20%` as an exact fraction, so that 30 images at 1/3 give 10."""
    text = str(value).strip()
    try:
        ratio = Fraction(text[:-1]) / 100 if text.endswith("%") else Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is not a ratio: write 1/3, 0.2 or 20%") from None
    if not 0 < ratio < 1:
        raise ValueError(f"the ratio {text} must lie between 0 and 1")
    return ratio


Ratio = Annotated[Fraction, BeforeValidator(_parse_ratio), PlainSerializer(str, return_type=str)]


class BackboneSpec(Frozen):
    """A network as an experiment names it, before its weights are found.

    `weights` is `imagenet`, `random` (with `seed`) or a path to a `.h5` or `.keras` file, for a network
    of the table; `file` is a network of one's own (`.keras` or a SavedModel folder), which needs
    `input_size` (height, width in pixels) and `preprocessing`.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    weights: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    file: Path | None = None
    input_size: tuple[int, int] | None = None
    preprocessing: Preprocessing | None = None

    @field_validator("input_size", mode="before")
    @classmethod
    def _square(cls, value: object) -> object:
        return (value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _own_network_is_described(self) -> BackboneSpec:
        if self.file is not None:
            missing = [k for k in ("input_size", "preprocessing") if getattr(self, k) is None]
            if missing:
                raise ValueError(
                    f"the network {self.name} comes from a file, so {' and '.join(missing)} must be "
                    "stated (input_size: [224, 224], preprocessing: tf, caffe, torch, unit or none)"
                )
            if self.weights is not None:
                raise ValueError(f"the network {self.name} comes from a file: leave out weights")
        if self.input_size is not None and min(self.input_size) < 1:
            raise ValueError(f"the input_size of {self.name} must be at least 1 pixel a side")
        return self


def _parse_backbones(value: object) -> object:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        items = [items]
    return tuple({"name": item.strip()} if isinstance(item, str) else item for item in items)


class Split(Frozen):
    """What is held back: `test` for the winner, `validation` to rank trials."""

    test: Ratio = Fraction(1, 5)
    validation: str = "holdout"
    validation_ratio: Ratio = Fraction(1, 5)

    @field_validator("validation")
    @classmethod
    def _holdout_or_cv(cls, value: str) -> str:
        name, _, folds = value.partition(":")
        if value != "holdout" and not (name == "cv" and folds.isdecimal() and int(folds) >= 2):
            raise ValueError(f"validation is {value!r}: write holdout, or cv:k with k of 2 or more")
        return value

    @property
    def folds(self) -> int:
        """The number of folds of `cv:k`; 0 for `holdout`."""
        return 0 if self.validation == "holdout" else int(self.validation.partition(":")[2])


class Point(Frozen):
    """Parameters to try before the algorithm proposes its own."""

    backbone: str
    regParam: float
    elasticNetParam: float
    maxIter: int


class Search(Frozen):
    """The space, and how it is searched."""

    backbone: Annotated[tuple[BackboneSpec, ...], BeforeValidator(_parse_backbones)] = Field(min_length=1)
    regParam: Space = ParamSpace(low=1e-4, high=1.0, log=True)
    elasticNetParam: Space = ParamSpace(low=0.0, high=1.0)
    maxIter: Space = ParamSpace(low=5, high=30)
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
    select: Literal["best", "one-standard-error"] = "best"

    @field_validator("backbone")
    @classmethod
    def _names_differ(cls, value: tuple[BackboneSpec, ...]) -> tuple[BackboneSpec, ...]:
        names = [spec.name for spec in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the backbone {twice[0]} is listed twice: give each a name of its own")
        return value

    @model_validator(mode="after")
    def _values_that_mllib_takes(self) -> Search:
        limits = {"regParam": (0, math.inf), "elasticNetParam": (0, 1), "maxIter": (0, 2**31 - 1)}
        for name, (lowest, highest) in limits.items():
            space: ParamSpace = getattr(self, name)
            low, high = space.bounds
            if low < lowest or high > highest:
                allowed = f"within [{lowest}, {highest}]" if name == "elasticNetParam" else "0 or more"
                raise ValueError(f"{name} is {space}, and LogisticRegression wants it {allowed}")
        if any(value != int(value) for value in (*self.maxIter.values, *self.maxIter.bounds)):
            raise ValueError(f"maxIter is {self.maxIter}, and must be made of whole numbers")
        return self

    @model_validator(mode="after")
    def _points_lie_in_the_space(self) -> Search:
        names = [spec.name for spec in self.backbone]
        for place, point in enumerate(self.points, start=1):
            if point.backbone not in names:
                raise ValueError(
                    f"point {place} has the backbone {point.backbone}, which is not in search.backbone: "
                    f"{', '.join(names)}"
                )
            for name in ("regParam", "elasticNetParam", "maxIter"):
                space: ParamSpace = getattr(self, name)
                if getattr(point, name) not in space:
                    raise ValueError(
                        f"point {place} has {name} {getattr(point, name):g}, which is not in {space}: "
                        "widen the space or leave the point out"
                    )
        return self


class Registry(Frozen):
    """Where the winner goes: the model's name (default: the experiment's), stage and alias."""

    name: Name | None = None
    stage: Literal["None", "Staging", "Production", "Archived"] = "Staging"
    alias: str = Field(default="champion", pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")

    @field_validator("alias")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        name = value.lower()
        if name in (CHALLENGER, "latest") or (name[0] == "v" and name[1:].isdecimal()):
            raise ValueError(
                f"the alias {value} has a meaning of its own: choose another, such as champion"
            )
        return value


class Gate(Frozen):
    """What a challenger must show on the champion's test images to take its place.

    It must be better in `metric` (None: `search.metric`), by `min_gain` at least; and no class's recall
    may fall by more than `max_regression_per_class` (None: it may fall by any amount).
    """

    metric: Metric | None = None
    min_gain: float = Field(default=0.0, ge=0)
    max_regression_per_class: float | None = Field(default=None, ge=0, le=1)


class Experiment(Frozen):
    """Everything that decides a search."""

    name: Name
    images: str = Field(min_length=1)
    on_bad_image: Literal["quarantine", "fail"] = "quarantine"
    precision: Precision = "float32"
    cache: PathOf = Path(".tuner")
    split: Split = Split()
    search: Search
    registry: Registry = Registry()
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _standard_error_needs_folds(self) -> Experiment:
        if self.search.select == "one-standard-error" and not self.split.folds:
            raise ValueError(
                "select: one-standard-error needs folds to estimate the error: set split.validation: cv:5"
            )
        return self

    @property
    def model_name(self) -> str:
        """The registered model's name."""
        return self.registry.name or self.name

    @property
    def gate_metric(self) -> Metric:
        """What champion and challenger are compared by."""
        return self.gate.metric or self.search.metric

    def to_yaml_dict(self) -> dict[str, Any]:
        """The experiment as plain data; `Experiment(**data)` gives it back."""
        return self.model_dump(mode="json", exclude_none=True)
