"""An experiment file (YAML) as frozen, validated models; options of the command line override it."""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from unicodedata import category
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from tuner.base.choices import (
    NEEDS_PROBABILITY,
    ClassWeight,
    Decoding,
    GivenSplit,
    Metric,
    Pooling,
    Precision,
    Preprocessing,
    Transparent,
    WhereToFit,
)
from tuner.base.files import DEFAULT_CACHE
from tuner.base.uris import expanded, local_path
from tuner.classifiers.parameters import PARAMETERS, TrialParams
from tuner.classifiers.space import Frozen, ParamSpace, Space, Value, shown
from tuner.classifiers.table import DEFAULT, find_classifier
from tuner.experiment.choices import Choice, ClassifierSpec, dimensions, read_classifiers
from tuner.experiment.spots import SpotCheck

CHALLENGER = "challenger"  # the alias of a version that has not won its place


_NAME_LENGTH = 200  # databases keep 256 letters, and data sets are named after it, too


def _checked_name(value: str) -> str:
    """Refuse what is no name of a run and a model: MLflow makes addresses, filters and paths of them."""
    if len(value) > _NAME_LENGTH:
        raise ValueError(f"the name has {len(value)} letters: give it {_NAME_LENGTH} at most")
    if not any(sign.isprintable() and sign not in ". " for sign in value):
        raise ValueError(f"the name is {shown(value)}: give it letters or digits, which can be seen")
    if not _is_read_back(value):
        raise ValueError(
            f"the name is {shown(value)}, and runs and models are named after it: leave out / : \\ ? # @, "
            "line breaks, spaces at its ends, two dots at its beginning, and one of the two quotes ' and \""
        )
    return value


def _is_read_back(name: str) -> bool:
    """Whether MLflow finds a model of this name in the address, filter and path that it makes of it."""
    address = urlsplit(f"models:/{name}@{CHALLENGER}")
    return (
        address.path == f"/{name}@{CHALLENGER}"
        and not set(name) & set("/:\\@")
        and not {"'", '"'} <= set(name)
        and not any(category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in name)
        and name == name.strip()
        and not name.startswith("..")
    )


def _checked_text(value: object) -> object:
    """Text that may be a path: fit to be written, and with the home folder for a `~` at its beginning."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{shown(value)} has a null byte, which no path has")
    if isinstance(value, str) and any(category(sign) == "Cs" for sign in value):
        raise ValueError(f"{shown(value)} is no UTF-8, and cannot be written down: rename it")
    return str(expanded(Path(value))) if isinstance(value, str) and value.startswith("~") else value


def _checked_path(value: object) -> object:
    text = _checked_text(value)
    # What lies elsewhere is refused by whoever opens it, who knows what it would have been for.
    return local_path(text) or text if isinstance(text, str) else text


Name = Annotated[str, AfterValidator(_checked_name)]
PathOf = Annotated[Path, BeforeValidator(_checked_path)]
PlaceOf = Annotated[Path | str, BeforeValidator(_checked_path)]  # text: on a Hadoop filesystem
MaybePath = Annotated[str, BeforeValidator(_checked_text)]


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


class NetworkSpec(Frozen):
    """A network as an experiment names it, before its weights are found.

    `weights` is `imagenet`, `random` (with `seed`) or a path to a `.h5` or `.keras` file, for a network
    of the table; `file` is a network of one's own (`.keras` or a SavedModel folder), which needs
    `input_size` (height, width in pixels) and `preprocessing`. `pooling` is what becomes of its last map.
    """

    name: str = Field(min_length=1, max_length=_NAME_LENGTH, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    weights: MaybePath | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    file: PathOf | None = None
    input_size: tuple[int, int] | None = None
    preprocessing: Preprocessing | None = None
    pooling: Pooling = "avg"

    @field_validator("input_size", mode="before")
    @classmethod
    def _square(cls, value: object) -> object:
        return (value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _own_network_is_described(self) -> NetworkSpec:
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
    """What is held back: `test` for the winner, `validation` to rank trials.

    With `given`, the images say which part they are; `test` and `validation_ratio` cut what is not given.
    """

    given: GivenSplit | None = None
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


class SearchSettings(Frozen):
    """The space, and how it is searched."""

    backbone: Annotated[tuple[NetworkSpec, ...], BeforeValidator(_parse_backbones)] = Field(min_length=1)
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
        names = [spec.name for spec in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the backbone {twice[0]} is listed twice: give each a name of its own")
        return value

    @field_validator("classifier")
    @classmethod
    def _classifiers_differ(
        cls, value: tuple[ClassifierSpec, ...] | None
    ) -> tuple[ClassifierSpec, ...] | None:
        names = [spec.name for spec in value or ()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
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
                    "search.classifier: add "
                    f"it, or give {set_for_nobody[0]} to a classifier: {{name: …, {set_for_nobody[0]}: …}}"
                )
        return self

    @model_validator(mode="after")
    def _classifiers_fit_the_search(self) -> SearchSettings:
        for choice in self.choices:
            row = choice.row
            if self.metric in NEEDS_PROBABILITY and row.gives == "decision":
                raise ValueError(
                    f"{self.metric} needs probabilities, and {row.name} gives none: rank by another "
                    "metric, "
                    "such as accuracy or roc_auc, or leave the classifier out"
                )
            if self.fit != "auto" and self.fit not in row.fits:
                raise ValueError(
                    f"fit is {self.fit}, and {row.name} fits {_PLACES[row.fits[0]]} only: leave fit out "
                    "(auto), or leave the classifier out"
                )
            if "balanced" in self.class_weights and not row.weighted:
                raise ValueError(
                    f"class_weight is {self.class_weight}, and {row.name} knows no weights: set it to "
                    "none, "
                    "or leave the classifier out"
                )
        if self.select == "one-standard-error" and len(self.choices) > 1:
            raise ValueError(
                "select: one-standard-error takes the simplest model, and which of two classifiers "
                "is simpler "
                "is not known: search one of them, or select: best"
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


_PLACES = {"worker": "in the worker", "spark": "on Spark"}


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


class Registry(Frozen):
    """Where the winner goes: the model's name (default: the experiment's), stage and alias."""

    name: Name | None = None
    stage: Literal["None", "Staging", "Production", "Archived"] = "Staging"
    alias: str = Field(default="champion", max_length=_NAME_LENGTH, pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")

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

    It must be better in `metric` (None: `search.metric`), by `min_gain` at least, on `min_images` images
    at least; the difference must not be likelier by chance than `max_p_value` (None: it is not asked); and
    no class's recall may fall by more than `max_regression_per_class` (None: it may fall by any amount).
    """

    metric: Metric | None = None
    min_gain: float = Field(default=0.0, ge=0)
    min_images: int = Field(default=20, ge=1)
    max_p_value: float | None = Field(default=None, gt=0, le=1)
    max_regression_per_class: float | None = Field(default=None, ge=0, le=1)


class Experiment(Frozen):
    """Everything that decides a search; README explains each key.

    Attributes
    ----------
    name
        Of the MLflow experiment, and of the model unless `registry` names it.
    images
        A folder of class folders, Parquet, a table or `builtin:digits`.
    on_bad_image
        Whether an image that cannot be decoded is left out and listed, or ends the search.
    precision
        What the networks compute in.
    transparent
        The ground on which transparent pictures are laid.
    max_value
        What stands for white in images of more than 8 bits; None: the most that their kind can hold.
    cache
        The folder of features and networks: a path of this machine or, as text, the URI of another's.
    split
        What is held back.
    search
        The space, and how it is searched.
    spot_check
        What a spot-check tries.
    registry
        Where the winner goes.
    gate
        What a challenger must show.
    """

    name: Name
    images: MaybePath = Field(min_length=1)
    on_bad_image: Literal["quarantine", "fail"] = "quarantine"
    precision: Precision = "float32"
    transparent: Transparent = "white"
    max_value: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    cache: PlaceOf = DEFAULT_CACHE
    split: Split = Split()
    search: SearchSettings
    spot_check: SpotCheck = SpotCheck()
    registry: Registry = Registry()
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _standard_error_needs_folds(self) -> Experiment:
        if self.search.select == "one-standard-error" and not self.split.folds:
            raise ValueError(
                "select: one-standard-error needs folds to estimate the error: set split.validation: cv:5"
            )
        return self

    @model_validator(mode="after")
    def _gate_knows_its_metric(self) -> Experiment:
        rows = [choice.row for choice in self.search.choices]
        without = [row.name for row in rows if row.gives == "decision"]
        if self.gate_metric in NEEDS_PROBABILITY and without:
            raise ValueError(
                f"gate.metric is {self.gate_metric}, which needs probabilities, and {without[0]} "
                "gives none: "
                "set it to another metric"
            )
        return self

    @property
    def decoding(self) -> Decoding:
        """How images are decoded."""
        return Decoding(self.transparent, self.max_value)

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
