"""A classifier's parameter, and the values that it may take, in the one syntax of files and options."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer

Value = float | str
"""Of a parameter: a number, or one of some words."""


class Frozen(BaseModel):
    """A part of an experiment: not changed once made, and without keys that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def shown(value: object) -> str:
    """A value for a sentence: short, for aliases let a few lines of YAML stand for millions of items."""
    short = reprlib.Repr()
    short.maxlevel = 2
    short.maxlist = short.maxdict = short.maxtuple = short.maxset = 3
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence on an unknown word: the known ones that are spelt nearest, else all."""
    names = list(known)
    close = get_close_matches(word, names, n=3, cutoff=0.5)
    lower = {name.lower(): name for name in names}
    close = close or [lower[found] for found in get_close_matches(word.lower(), lower, n=3, cutoff=0.5)]
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"


def _written(value: Value) -> str:
    """A number with as many digits as it takes to read it back; a word as it is."""
    if isinstance(value, str):
        return value
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


class ParamSpace(Frozen):
    """The values that one parameter of a trial may take.

    Either `values` (one value: fixed; several: a choice) or a range `low`:`high`, uniform or, with
    `log`, log-uniform. Written `0.1`, `0.1,0.3`, `gini,entropy`, `0:1` or `1e-4:1:log`, in files and in
    options.
    """

    values: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        numbers = [float(value) for value in self.values]
        return min(numbers), max(numbers)

    def __contains__(self, value: Value) -> bool:
        if self.values:
            return value in self.values
        low, high = self.bounds
        return low <= float(value) <= high

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return ",".join(map(_written, self.values))
        return f"{_written(self.low)}:{_written(self.high)}:{'log' if self.log else 'linear'}"


_SYNTAX = "a value (0.1), a list (0.1,0.3) or a range (0:1, 1e-4:1:log)"


def _number(text: object) -> float:
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{shown(text)} is not a number: give {_SYNTAX}") from None
    if isinstance(text, bool) or not math.isfinite(value):
        raise ValueError(f"{shown(text)} is not a finite number: give {_SYNTAX}")
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


def parse_space(value: object, *, log_by_default: bool) -> object:
    """Read the one syntax of a parameter's values; raises ValueError, as pydantic wants it."""
    if isinstance(value, ParamSpace):
        return value
    if isinstance(value, str) and ":" in value:
        return _parse_range(value, log_by_default)
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        items = [items]
    if not items:
        raise ValueError(f"no value is given: give {_SYNTAX}")
    return {"values": tuple(dict.fromkeys(_number(item) for item in items))}


Space = Annotated[ParamSpace, PlainSerializer(str, return_type=str)]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a classifier, by its library's own name.

    Attributes
    ----------
    name
        As the library, the experiment file, the command line and MLflow have it.
    default
        The values that are searched unless an experiment says otherwise.
    lowest, highest
        What the library takes, of numbers.
    simpler
        Which of two values makes the simpler model; None: neither, or that is not known.
    whole
        Whether its values are whole numbers.
    log
        Whether a range of it is log-uniform unless an experiment says otherwise.
    choices
        Its values, if they are words.
    only_with
        Another parameter, and the values of it with which this one is there; None: it always is.
    at_most
        What its values must not exceed: the images of a fit, the features of one.
    """

    name: str
    default: ParamSpace
    lowest: float = 0
    highest: float = math.inf
    simpler: Literal["larger", "smaller"] | None = None
    whole: bool = False
    log: bool = False
    choices: tuple[str, ...] = ()
    only_with: tuple[str, tuple[str, ...]] | None = None
    at_most: tuple[Literal["images", "features"], ...] = ()

    def typed(self, value: Any) -> Value:
        """A value of this parameter, of whatever MLflow or hyperopt keeps of it."""
        return str(value) if self.choices else int(float(value)) if self.whole else float(value)

    def shown(self, value: Value) -> str:
        """A value, for a person."""
        if isinstance(value, str):
            return value
        return str(int(value)) if self.whole else f"{value:.4g}"

    def read(self, value: object) -> object:
        """Read its values as an experiment has them, for pydantic; raises ValueError."""
        if not self.choices or isinstance(value, ParamSpace):
            return parse_space(value, log_by_default=self.log)
        items = value.split(",") if isinstance(value, str) else value
        words = [str(item).strip() for item in (items if isinstance(items, list | tuple) else [items])]
        for word in words or [""]:
            if word not in self.choices:
                raise ValueError(f"{self.name} is {shown(word)}: {nearest(word, self.choices)}")
        return {"values": tuple(dict.fromkeys(words))}

    def check(self, space: ParamSpace, classifier: str) -> None:
        """Refuse values that the library does not take; raises ValueError."""
        if self.choices:
            return
        low, high = space.bounds
        if low < self.lowest or high > self.highest:
            limited = self.highest < 2**31 - 1
            allowed = (
                f"within [{self.lowest:g}, {self.highest:g}]" if limited else f"{self.lowest:g} or more"
            )
            raise ValueError(f"{self.name} is {space}, and {classifier} wants it {allowed}")
        if self.whole and any(float(value) != int(float(value)) for value in (*space.values, low, high)):
            raise ValueError(f"{self.name} is {space}, and must be made of whole numbers")
