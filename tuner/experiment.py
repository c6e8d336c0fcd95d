"""An experiment file (YAML) as frozen, validated models; options of the command line override it."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tuner.errors import ExperimentError

Preprocessing = Literal["tf", "caffe", "torch", "unit", "none"]
Precision = Literal["float32", "bfloat16"]
Metric = Literal["accuracy", "f1", "weightedPrecision", "weightedRecall", "logLoss", "roc_auc"]

LOWER_IS_BETTER: frozenset[str] = frozenset({"logLoss"})
CHALLENGER = "challenger"  # the alias of a version that has not won its place


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _shown(value: object) -> str:
    """A value for a sentence: short, for aliases let a few lines of YAML stand for millions of items."""
    short = reprlib.Repr()
    short.maxlevel = 2
    short.maxlist = short.maxdict = short.maxtuple = short.maxset = 3
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)


def _checked_name(value: str) -> str:
    """Refuse what is no name of a run and a model: MLflow makes parts of addresses and paths of them."""
    if not value.strip(". ") or re.search(r"[/:\\\x00-\x1f\x7f]", value):
        raise ValueError(
            f"the name is {_shown(value)}, and runs and models are named after it: leave out / : \\ and "
            "line breaks, and give more than dots"
        )
    return value


def _checked_path(value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{_shown(value)} has a null byte, which no path has")
    return value


Name = Annotated[str, AfterValidator(_checked_name)]
PathOf = Annotated[Path, BeforeValidator(_checked_path)]


def _written(value: float) -> str:
    """A number with as many digits as it takes to read it back."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


class ParamSpace(_Model):
    """The values that one parameter of a trial may take.

    Either `values` (one value: fixed; several: a choice) or a range `low`:`high`, uniform or, with
    `log`, log-uniform. Written `0.1`, `0.1,0.3`, `0:1` or `1e-4:1:log`, in files and in options.
    """

    values: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        return min(self.values), max(self.values)

    def __contains__(self, value: float) -> bool:
        low, high = self.bounds
        return value in self.values if self.values else low <= value <= high

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return ",".join(map(_written, self.values))
        return f"{_written(self.low)}:{_written(self.high)}:{'log' if self.log else 'linear'}"


_SYNTAX = "a value (0.1), a list (0.1,0.3) or a range (0:1, 1e-4:1:log)"


def _number(text: object) -> float:
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{_shown(text)} is not a number: give {_SYNTAX}") from None
    if isinstance(text, bool) or not math.isfinite(value):
        raise ValueError(f"{_shown(text)} is not a finite number: give {_SYNTAX}")
    return value


def _parse_range(text: str, log_by_default: bool) -> dict[str, Any]:
    low_text, high_text, *scale = text.split(":")
    if len(scale) > 1 or scale not in ([], ["log"], ["linear"]):
        raise ValueError(f"{text!r} is not a range: write low:high, low:high:log or low:high:linear")
    low, high = _number(low_text), _number(high_text)
    log = scale == ["log"] or (not scale and log_by_default)
    if low >= high:
        raise ValueError(f"the range {text!r} is empty: its low end must be below its high end")
    if log and low <= 0:
        raise ValueError(
            f"the range {text!r} is log-uniform, so it must start above 0: "
            f"raise its low end, or write {low_text}:{high_text}:linear"
        )
    return {"low": low, "high": high, "log": log}


def _parse_space(value: object, info: ValidationInfo) -> object:
    """Read the one syntax of a parameter's values; `regParam` ranges are log-uniform by default."""
    if isinstance(value, ParamSpace):
        return value
    if isinstance(value, str) and ":" in value:
        return _parse_range(value, log_by_default=info.field_name == "regParam")
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        items = [items]
    if not items:
        raise ValueError(f"no value is given: give {_SYNTAX}")
    return {"values": tuple(dict.fromkeys(_number(item) for item in items))}


Space = Annotated[ParamSpace, BeforeValidator(_parse_space), PlainSerializer(str, return_type=str)]


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


class BackboneSpec(_Model):
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


class Split(_Model):
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


class Point(_Model):
    """Parameters to try before the algorithm proposes its own."""

    backbone: str
    regParam: float
    elasticNetParam: float
    maxIter: int


class Search(_Model):
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


class Registry(_Model):
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


class Gate(_Model):
    """What a challenger must show on the champion's test images to take its place.

    It must be better in `metric` (None: `search.metric`), by `min_gain` at least; and no class's recall
    may fall by more than `max_regression_per_class` (None: it may fall by any amount).
    """

    metric: Metric | None = None
    min_gain: float = Field(default=0.0, ge=0)
    max_regression_per_class: float | None = Field(default=None, ge=0, le=1)


class Experiment(_Model):
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


# The options of the command line, by their place in the file.
OVERRIDES: Mapping[str, tuple[str, ...]] = {
    "images": ("images",),
    "cache": ("cache",),
    "precision": ("precision",),
    "validation": ("split", "validation"),
    "backbone": ("search", "backbone"),
    **{
        name: ("search", name)
        for name in (
            "regParam",
            "elasticNetParam",
            "maxIter",
            "max_evals",
            "parallelism",
            "timeout",
            "trial_timeout",
            "early_stop",
            "seed",
            "algorithm",
            "metric",
            "select",
            "deterministic",
        )
    },
}


def _override(data: dict[str, Any], overrides: Mapping[str, str | None]) -> None:
    for option, value in overrides.items():
        if value is None or value == "":  # empty means: as in the file
            continue
        *groups, key = OVERRIDES[option]
        place = data
        for group in groups:
            place = place.setdefault(group, {})
        place[key] = _keep_described(value, place.get(key)) if option == "backbone" else value


def _keep_described(names: str, listed: object) -> list[Any]:
    """Names given as an option keep what the file says of the networks of those names."""
    described = {
        item["name"]: item
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, dict) and isinstance(item.get("name"), str)
    }
    return [described.get(name.strip(), name.strip()) for name in names.split(",")]


_PROBLEMS = 5  # as many are told at once


def _sentence(error: ValidationError, where: str) -> str:
    problems = []
    for detail in error.errors():
        place = ".".join(str(part) for part in detail["loc"])
        match detail["type"]:
            case "extra_forbidden":
                problems.append(f"the key {place} is unknown")
            case "missing":
                problems.append(f"the key {place} is missing")
            case "value_error":
                text = str(detail["ctx"]["error"])
                problems.append(f"{place}: {text}" if place else text)
            case _:
                problems.append(f"{place} is {_shown(detail['input'])}: {detail['msg'].lower()}")
    more = [f"and {len(problems) - _PROBLEMS} more"] if len(problems) > _PROBLEMS else []
    return f"{where}: {'; '.join(problems[:_PROBLEMS] + more)}."


def read_experiment(path: Path, overrides: Mapping[str, str | None] | None = None) -> Experiment:
    """Read an experiment file and apply the options given for this search.

    Parameters
    ----------
    path
        A YAML 1.2 file (so `1e-4` is a number and `5:30` is not one).
    overrides
        Options by their names in `OVERRIDES`, as text; None and "" mean: as in the file.

    Raises
    ------
    ExperimentError
        The file is missing, is not YAML, or says something that cannot work; one sentence.
    """
    return experiment_of(read_yaml(path), str(path), overrides)


def read_yaml(path: Path) -> Any:
    """The plain data of a YAML 1.2 file; errors as `read_experiment`."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExperimentError(f"There is no experiment file {path}: check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"The experiment file {path} cannot be read: {error}.") from error
    except (YAMLError, RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        reason = " ".join(str(error).split())
        raise ExperimentError(f"The experiment file {path} is not valid YAML: {reason}.") from error


def experiment_of(data: Any, where: str, overrides: Mapping[str, str | None] | None = None) -> Experiment:
    """An experiment from plain data; `where` begins the sentence of an error, as of `read_experiment`."""
    if not isinstance(data, dict):
        raise ExperimentError(f"{where} must hold keys and values, such as name:.")
    for group in ("split", "search", "registry", "gate"):
        if data.get(group) is None:
            data.pop(group, None)
        elif not isinstance(data[group], dict):
            raise ExperimentError(f"{where}: {group} must hold keys and values.")
    _override(data, overrides or {})
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        raise ExperimentError(_sentence(error, where)) from None
