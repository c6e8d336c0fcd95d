"""How far to go along a direction: the line searches of Breeze's L-BFGS and OWL-QN.

References
----------
J. Nocedal and S. J. Wright, *Numerical Optimization*, 2nd edition, algorithms 3.5 and 3.6. Breeze,
`breeze.optimize`: `StrongWolfeLineSearch`, `BacktrackingLineSearch`; where they do otherwise than the book,
this does as they do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

_C1, _C2 = 1e-4, 0.9  # how much of the slope the value must fall by, and the slope's size must come down to
_BRACKETS, _ZOOMS, _BACKTRACKS = 10, 10, 20

Point = TypeVar("Point")


@dataclass(frozen=True, eq=False)
class Probe(Generic[Point]):
    """A step along a direction: the value and the slope there, and the point it leads to."""

    step: float
    value: float
    slope: float
    point: Point


class StepFailed(Exception):
    """There is no direction, or no step along it, that leads down from here."""


def strong_wolfe(probe: Callable[[float], Probe[Point]], here: Probe[Point], step: float) -> Probe[Point]:
    """Find a step that satisfies the strong Wolfe conditions (3.5), from a first one on.

    Raises
    ------
    StepFailed
        The direction ascends, or no such step was found.
    """
    if here.slope > 0:
        raise StepFailed
    low = here
    for count in range(_BRACKETS):
        found = probe(step)
        if not np.isfinite(found.value):
            step /= 2
            continue
        if not _descends(here, found) or (found.value >= low.value and count > 0):
            return _zoom(probe, here, low, found)
        if abs(found.slope) <= _C2 * abs(here.slope):
            return found
        if found.slope >= 0:
            return _zoom(probe, here, found, low)
        low = found
        step *= 1.5
    raise StepFailed


def _zoom(
    probe: Callable[[float], Probe[Point]], here: Probe[Point], low: Probe[Point], high: Probe[Point]
) -> Probe[Point]:
    """Narrow an interval that holds such a step (3.6)."""
    for _ in range(_ZOOMS):
        found = probe(_interpolated(high, low) if low.step > high.step else _interpolated(low, high))
        if not _descends(here, found) or found.value >= low.value:
            high = found
            continue
        if abs(found.slope) <= _C2 * abs(here.slope):
            return found
        if found.slope * (high.step - low.step) >= 0:
            high = low
        low = found
    raise StepFailed


def _interpolated(left: Probe[Point], right: Probe[Point]) -> float:
    """The minimum of the cubic through both ends, kept off them by a tenth of the interval."""
    width = right.step - left.step
    d1 = left.slope + right.slope - 3 * (left.value - right.value) / (left.step - right.step)
    d2 = np.sqrt(d1 * d1 - left.slope * right.slope)
    step = right.step - width * (right.slope + d2 - d1) / (right.slope - left.slope + 2 * d2)
    lowest, highest = left.step + 0.1 * width, left.step + 0.9 * width
    return lowest if step < lowest else highest if step > highest else step


def backtrack(
    probe: Callable[[float], Probe[Point]],
    here: Probe[Point],
    step: float,
    *,
    shrink: float,
    first_value: float,
) -> Probe[Point]:
    """Shrink and grow a first step until it satisfies the strong Wolfe conditions.

    Of twenty steps none of which does, it takes the one before the last.

    Parameters
    ----------
    shrink
        What a step that is too long is multiplied by.
    first_value
        Taken for the value at the first step. (In Breeze it is another one, so that the first step may be
        found too long without being tried.)

    Raises
    ------
    StepFailed
        The step has become too short or too long.
    """
    tried = 0
    if not _descends(here, Probe(step, first_value, 0.0, here.point)):
        step, tried = _within_limits(step * shrink), 1
    before = found = probe(step)
    for count in range(tried, _BACKTRACKS):
        if count and not _descends(here, found):
            factor = shrink
        elif found.slope < _C2 * here.slope:
            factor = 2.1
        elif found.slope > -_C2 * here.slope:
            factor = shrink
        else:
            return found
        before, found = found, probe(_within_limits(found.step * factor))
    return before


def _descends(here: Probe[Point], found: Probe[Point]) -> bool:
    """Whether the value falls enough for the step's length; what is no number does, as in Breeze."""
    return not found.value > here.value + _C1 * found.step * here.slope


def _within_limits(step: float) -> float:
    if step < 1e-10 or step > 1e10:
        raise StepFailed
    return step
