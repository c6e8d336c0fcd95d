"""A row of the table of classifiers, and how the parameters in it are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tuner.base.choices import ScoreKind
from tuner.classifiers.space import Parameter, ParamSpace, Value

Library = Literal["mllib", "sklearn", "river"]
Place = Literal["worker", "spark"]


@dataclass(frozen=True)
class Classifier:
    """A row of the table.

    Attributes
    ----------
    name
        As the experiment, the command line and MLflow have it: MLlib's own, or `sklearn.` or `river.` and a
        name.
    title
        For a person: ``MLlib's random forest``.
    library
        Whose it is.
    implementation
        Its class, with the module below the library.
    parameters
        Its own, that are searched, in the order in which `one-standard-error` looks at them.
    fixed
        What it is given besides.
    gives
        What it says of an image: probabilities, or decision values of any size.
    fits
        Where it can be fitted; of two places the first is the rule. None: it only learns a batch at a time.
    one_vs_rest
        Whether it knows two classes only, so that one of them is fitted for each class (MLlib's
        `OneVsRest`).
    weighted
        Whether rows may have weights, as `class_weight` gives them.
    seeded
        Whether chance has a part in the fit, and `search.seed` decides it.
    incremental
        Whether it can learn a batch at a time, as `tuner learn` has it.
    of_counts
        Whether it takes no feature below 0: then nothing is scaled before it.
    cost
        How long it takes beside others, roughly: a spot-check begins with the slow ones.
    spots
        What a spot-check tries of it, if anything: values by name. Those not named are left to the library.
    """

    name: str
    title: str
    library: Library
    implementation: str
    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    gives: ScoreKind = "probability"
    fits: tuple[Place, ...] = ("spark",)
    one_vs_rest: bool = False
    weighted: bool = True
    seeded: bool = False
    incremental: bool = False
    of_counts: bool = False
    cost: float = 1
    spots: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)

    @property
    def by_name(self) -> dict[str, Parameter]:
        """Its parameters and those of the step before it, by their names."""
        return {parameter.name: parameter for parameter in (*self.parameters, *STEP_PARAMETERS)}


def ranged(
    name: str, low: float, high: float, lowest: float = 0, highest: float = float("inf"), **more: Any
) -> Parameter:
    """A parameter with a range of numbers."""
    space = ParamSpace(low=low, high=high, log=more.get("log", False))
    return Parameter(name, space, lowest, highest, **more)


def counted(
    name: str, low: int, high: int, lowest: int = 1, highest: int = 2**31 - 1, **more: Any
) -> Parameter:
    """A parameter with a range of whole numbers."""
    return ranged(name, low, high, lowest, highest, **({"simpler": "smaller"} | more), whole=True)


def chosen(name: str, *choices: str, default: tuple[str, ...] = (), **more: Any) -> Parameter:
    """A parameter with some words."""
    return Parameter(name, ParamSpace(values=default or choices), choices=choices, **more)


PRESTEP, COMPONENTS = "prestep", "k"
NONE, STANDARD_SCALER, NORMALIZER, PCA = "none", "StandardScaler", "Normalizer", "PCA"
PRESTEPS: tuple[str, ...] = (NONE, STANDARD_SCALER, NORMALIZER, PCA)
"""What may be done to features before a classifier, by its own library."""

STEP_PARAMETERS = (
    chosen(PRESTEP, *PRESTEPS, default=(NONE,)),
    counted(COMPONENTS, 8, 64, only_with=(PRESTEP, (PCA,)), at_most=("images", "features")),
)
