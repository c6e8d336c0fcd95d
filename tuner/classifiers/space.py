"""The values that a trial's parameter may take, in the one syntax of files and options."""

from __future__ import annotations

import math
import reprlib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer


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


def _written(value: float) -> str:
    """A number with as many digits as it takes to read it back."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


class ParamSpace(Frozen):
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
