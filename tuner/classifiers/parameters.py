"""The one table of searched parameters, and what one trial fits with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BeforeValidator

from tuner.classifiers.space import ParamSpace, parse_space


@dataclass(frozen=True)
class Parameter:
    """A row of the table: a parameter of MLlib's `LogisticRegression`, by MLlib's own name.

    Attributes
    ----------
    name
        As MLlib, the experiment file, the command line and MLflow have it.
    default
        The values that are searched unless an experiment says otherwise.
    lowest, highest
        What MLlib takes.
    whole
        Whether its values are whole numbers.
    log
        Whether a range of it is log-uniform unless an experiment says otherwise.
    simpler
        Which of two values makes the simpler model.
    """

    name: str
    default: ParamSpace
    lowest: float
    highest: float
    simpler: Literal["larger", "smaller"]
    whole: bool = False
    log: bool = False

    def shown(self, value: float) -> str:
        """A value, for a person."""
        return str(int(value)) if self.whole else f"{value:.4g}"


# In the order in which `one-standard-error` looks at them.
_ROWS = (
    Parameter("regParam", ParamSpace(low=1e-4, high=1.0, log=True), 0, math.inf, "larger", log=True),
    Parameter("elasticNetParam", ParamSpace(low=0.0, high=1.0), 0, 1, "larger"),
    Parameter("maxIter", ParamSpace(low=5, high=30), 0, 2**31 - 1, "smaller", whole=True),
)

PARAMETERS: Mapping[str, Parameter] = {row.name: row for row in _ROWS}
"""Every searched parameter by its name."""


def searched(name: str) -> BeforeValidator:
    """How an experiment's field for this parameter is read."""
    log = PARAMETERS[name].log
    return BeforeValidator(lambda value: parse_space(value, log_by_default=log))


@dataclass(frozen=True)
class TrialParams:
    """What one trial fits: the backbone's name and the parameters of `LogisticRegression`."""

    backbone: str
    regParam: float
    elasticNetParam: float
    maxIter: int

    @classmethod
    def from_point(cls, point: Mapping[str, Any]) -> TrialParams:
        """Read one point of the space, or a run's parameters: values, never the indices of choices."""
        values: dict[str, Any] = {
            name: (int if row.whole else float)(point[name]) for name, row in PARAMETERS.items()
        }
        return cls(backbone=str(point["backbone"]), **values)

    def to_dict(self) -> dict[str, Any]:
        """The backbone and the parameters by name, as they are logged."""
        return asdict(self)

    @property
    def values(self) -> dict[str, Any]:
        """The classifier's parameters by name."""
        return {name: getattr(self, name) for name in PARAMETERS}

    def simplicity(self) -> tuple[float, ...]:
        """A key by which simpler parameters come first."""
        return tuple(
            -getattr(self, name) if row.simpler == "larger" else getattr(self, name)
            for name, row in PARAMETERS.items()
        )


def described(values: Mapping[str, float]) -> str:
    """Names and values for a person: ``regParam 0.01, elasticNetParam 0.5, maxIter 20``."""
    return ", ".join(f"{name} {row.shown(values[name])}" for name, row in PARAMETERS.items())
