"""An experiment file (YAML) as frozen, validated models; options of the command line override it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tuner.base.choices import NEEDS_PROBABILITY, Decoding, GivenSplit, Metric, Precision, Transparent
from tuner.base.files import DEFAULT_CACHE
from tuner.classifiers.space import Frozen
from tuner.experiment.fields import CHALLENGER, NAME_LENGTH, MaybePath, Name, PlaceOf, Ratio
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.search import SearchSettings, check_metric
from tuner.experiment.spots import SpotCheck
from tuner.experiment.training.fine_tuning import FineTune
from tuner.experiment.training.learning import LearnSettings


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


class Registry(Frozen):
    """Where the winner goes: the model's name (default: the experiment's), stage and alias."""

    name: Name | None = None
    stage: Literal["None", "Staging", "Production", "Archived"] = "Staging"
    alias: str = Field(default="champion", max_length=NAME_LENGTH, pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")

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


_NO_SEARCH = SearchSettings.model_construct(backbone=())


class Experiment(Frozen):
    """Everything that decides a search; docs/reference/experiment.md explains each key.

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
        The space, and how it is searched; without networks where the file has none, for `learn` or
        `fine_tune` names one.
    spot_check
        What a spot-check tries.
    learn
        What learns a batch at a time, and how.
    fine_tune
        How a network is trained.
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
    search: SearchSettings = _NO_SEARCH
    spot_check: SpotCheck = SpotCheck()
    learn: LearnSettings = LearnSettings()
    fine_tune: FineTune = FineTune()
    registry: Registry = Registry()
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _something_is_asked(self) -> Experiment:
        if not (self.search.backbone or self.learn.backbone or self.fine_tune.base):
            alone = {"learn": "tuner learn alone: learn.backbone", "fine_tune": "fine-tune: fine_tune.base"}
            told = [f" (for {text})" for key, text in alone.items() if key in self.model_fields_set]
            raise ValueError(f"the key search is missing{''.join(told)}")
        return self

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
                "gives none: set it to another metric"
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

    def for_learning(self) -> Experiment:
        """The experiment as `tuner learn` reads it: of its search, the one network, seed and metric.

        A network that `learn` names alone is the one that the search describes, if it does.

        Raises
        ------
        ValueError
            Several networks may be meant, or the metric needs probabilities and the classifier gives none.
        """
        searched = {spec.name: spec for spec in self.search.backbone}
        if self.learn.backbone is None and len(searched) > 1:
            raise ValueError(
                f"learn.backbone is not given, and the search has {', '.join(searched)}: name the one to "
                "learn on"
            )
        spec = self.learn.backbone or self.search.backbone[0]
        if spec == NetworkSpec(name=spec.name):
            spec = searched.get(spec.name, spec)
        seed = self.search.seed if self.learn.seed is None else self.learn.seed
        metric = self.learn.metric or self.search.metric
        for one in (metric, self.gate.metric or metric):
            check_metric(self.learn.classifier.row, one, "learn another classifier")
        learn = self.learn.model_copy(update={"backbone": spec, "seed": seed, "metric": metric})
        search = SearchSettings(backbone=(spec,), seed=seed, metric=metric)
        return self.model_copy(update={"learn": learn, "search": search})

    def for_tuning(self) -> Experiment:
        """The experiment as `tuner fine-tune` reads it: of its search, the base, seed, metric, parallelism.

        A base that `fine_tune` names alone is the network that the search describes, if it does.

        Raises
        ------
        ValueError
            No base is named.
        """
        given, search = self.fine_tune, self.search
        searched = {spec.name: spec for spec in search.backbone}
        base = given.base or next(iter(search.backbone), None)
        if base is not None and base == NetworkSpec(name=base.name):
            base = searched.get(base.name, base)
        if base is None:
            raise ValueError("fine_tune.base is not given, and there is no search that names a network")
        searching = SearchSettings(
            backbone=(base,),
            seed=search.seed if given.seed is None else given.seed,
            metric=given.metric or search.metric,
            parallelism=given.parallelism or search.parallelism,
        )
        same = {name: getattr(searching, name) for name in ("seed", "metric", "parallelism")}
        tuning = given.model_copy(update={"base": base, **same})
        return self.model_copy(update={"fine_tune": tuning, "search": searching})

    def to_yaml_dict(self) -> dict[str, Any]:
        """The experiment as plain data; `Experiment(**data)` gives it back."""
        without = None if self.search.backbone else {"search"}
        return self.model_dump(mode="json", exclude_none=True, exclude=without)
