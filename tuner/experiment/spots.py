"""The part of an experiment that says what a spot-check tries."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, field_validator

from tuner.classifiers.space import Frozen, shown
from tuner.classifiers.table import CLASSIFIERS, SPOTS, find_classifier


def _read_names(value: object) -> object:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise ValueError(f"{shown(value)} is no list of classifiers: name some, such as sklearn.Ridge-1")
    return tuple(item.strip() if isinstance(item, str) else item for item in items)


class SpotCheck(Frozen):
    """What a spot-check tries on each network.

    `classifiers` are names of the table, which stand for all that is tried of them (`sklearn.KNeighbors`),
    or of what is tried (`sklearn.KNeighbors-5`); None: all of scikit-learn's. With `keep_models` each trial
    logs its model, too.
    """

    classifiers: Annotated[tuple[str, ...], BeforeValidator(_read_names)] | None = None
    keep_models: bool = False

    @field_validator("classifiers")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in value or ():
            if name not in SPOTS and not find_classifier(name).spots:
                raise ValueError(f"a spot-check tries nothing of {name}: leave it out")
        return value

    @property
    def spots(self) -> tuple[str, ...]:
        """The names of what is tried, each once, in the order of the table."""
        if self.classifiers is None:
            wanted = {spot for spot, (of, _) in SPOTS.items() if CLASSIFIERS[of].fits == ("worker",)}
        else:
            wanted = {
                spot
                for name in self.classifiers
                for spot in (CLASSIFIERS[name].spots if name in CLASSIFIERS else (name,))
            }
        return tuple(spot for spot in SPOTS if spot in wanted)
