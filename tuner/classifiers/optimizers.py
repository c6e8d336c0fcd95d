"""L-BFGS and OWL-QN as Breeze, MLlib's optimizer, has them: the same directions, steps and stops.

References
----------
J. Nocedal and S. J. Wright, *Numerical Optimization*, 2nd edition, algorithm 7.4 (L-BFGS's direction). G.
Andrew and J. Gao, "Scalable training of L1-regularized log-linear models", ICML 2007 (OWL-QN). Breeze,
`breeze.optimize`: `LBFGS`, `OWLQN`, `FirstOrderMinimizer`; where it does otherwise than they, this does as
it does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuner.classifiers.line_searches import Probe, StepFailed, backtrack, strong_wolfe

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]
Stop = Literal["maxIter reached", "objective converged", "gradient converged", "line search failed"]

_MEMORY = 10  # pairs of a step and the gradient's change, which a direction is made of
_COMPARED = 20  # values back to which the objective is compared


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where a search for the minimum ended.

    Attributes
    ----------
    x
        float64 of shape (size,).
    objectiveHistory
        The objective, with its L1 part, at the start and after each iteration. A line search that fails
        repeats the value, and the memory of earlier steps is dropped; a second one in a row repeats it
        again and is the end.
    stop
        Why it ended there.
    """

    x: np.ndarray
    objectiveHistory: list[float]
    stop: Stop


def minimize(
    objective: Objective, start: np.ndarray, *, maxIter: int, tol: float, l1: np.ndarray | None = None
) -> Minimum:
    """Minimize a smooth function by L-BFGS, or its sum with `l1` · |x| by OWL-QN.

    Parameters
    ----------
    objective
        Value and gradient of the smooth part at a point; the gradient is a new array at each call.
    start
        float64 of shape (size,).
    maxIter
        Iterations at most.
    tol
        Tolerance of the objective, relative to its first value, and of the gradient, relative to the
        objective.
    l1
        float64 of shape (size,), none below 0: the weight of each |x|.
    """
    method = _LBFGS(objective) if l1 is None else _OWLQN(objective, l1)
    # What is not finite takes the course that it takes in Breeze, mostly to a line search that fails.
    with np.errstate(all="ignore"):
        return _minimize(method, start, maxIter, tol)


@dataclass(frozen=True, eq=False)
class _Point:
    """A point with its value and gradient: of the smooth part, and with the L1 part (`total`, `pseudo`)."""

    x: np.ndarray
    value: float
    gradient: np.ndarray
    total: float
    pseudo: np.ndarray


class _Memory:
    """The last steps and the gradient's changes over them: an approximation of the inverse Hessian."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=_MEMORY)

    def add(self, before: _Point, after: _Point) -> None:
        step, change = after.x - before.x, after.gradient - before.gradient
        self._pairs.appendleft((step, change, np.dot(step, change)))

    def clear(self) -> None:
        self._pairs.clear()

    def descent(self, gradient: np.ndarray) -> np.ndarray:
        """Multiply minus the approximation by a gradient, in the two loops of algorithm 7.4."""
        direction = gradient.copy()
        alphas = []
        for step, change, curvature in self._pairs:
            alphas.append(np.dot(step, direction) / curvature)
            direction -= alphas[-1] * change
        if self._pairs:
            _, change, curvature = self._pairs[0]
            if not curvature >= 0 or np.isnan(alphas).any():
                raise StepFailed
            direction *= curvature / np.dot(change, change)
        for (step, change, curvature), alpha in zip(reversed(self._pairs), reversed(alphas), strict=True):
            direction += (alpha - np.dot(change, direction) / curvature) * step
        return np.negative(direction, out=direction)


class _LBFGS:
    """Directions and steps of L-BFGS."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def at(self, x: np.ndarray) -> _Point:
        value, gradient = self.objective(x)
        return _Point(x, value, gradient, value, gradient)

    def direction(self, point: _Point, memory: _Memory) -> np.ndarray:
        return memory.descent(point.gradient)

    def step(self, point: _Point, direction: np.ndarray, iteration: int) -> _Point:
        def probe(step: float) -> Probe[_Point]:
            after = self.at(point.x + step * direction)
            return Probe(step, after.value, np.dot(after.gradient, direction), after)

        here = Probe(0.0, point.value, np.dot(point.gradient, direction), point)
        found = strong_wolfe(probe, here, 1.0 / _norm(direction) if iteration == 0 else 1.0)
        if found.step * _norm(point.gradient) < 1e-10:
            raise StepFailed
        return found.point


class _OWLQN(_LBFGS):
    """Directions and steps of OWL-QN: L-BFGS within the orthant that the pseudo-gradient points into."""

    def __init__(self, objective: Objective, l1: np.ndarray) -> None:
        super().__init__(objective)
        self.l1 = l1

    def at(self, x: np.ndarray) -> _Point:
        value, gradient = self.objective(x)
        # |x| has no derivative at 0: there the slope between -l1 and l1 that leaves the sum least steep.
        at_zero = np.sign(gradient) * np.maximum(np.abs(gradient) - self.l1, 0.0)
        pseudo = np.where(x == 0, at_zero, gradient + np.sign(x) * self.l1)
        return _Point(x, value, gradient, value + np.dot(self.l1, np.abs(x)), pseudo)

    def direction(self, point: _Point, memory: _Memory) -> np.ndarray:
        direction = memory.descent(point.pseudo)  # the memory is of plain gradients
        direction[~(direction * point.pseudo < 0)] = 0.0
        return direction

    def step(self, point: _Point, direction: np.ndarray, iteration: int) -> _Point:
        orthant = np.where(point.x != 0, np.sign(point.x), np.sign(-point.pseudo))

        def probe(step: float) -> Probe[_Point]:
            x = point.x + step * direction
            x *= np.sign(x) == orthant
            after = self.at(x)
            return Probe(step, after.total, np.dot(after.pseudo, direction), after)

        here = Probe(0.0, point.total, np.dot(point.pseudo, direction), point)
        first, shrink = (0.5 / _norm(point.gradient), 0.1) if iteration == 0 else (1.0, 0.5)
        # Breeze takes the smooth part's value at the old point for the value at the first step.
        return backtrack(probe, here, first, shrink=shrink, first_value=point.value).point


def _minimize(method: _LBFGS, start: np.ndarray, maxIter: int, tol: float) -> Minimum:
    memory = _Memory()
    point = method.at(start)
    first, history = abs(point.total), [float(point.total)]
    compared = deque([np.inf], maxlen=_COMPARED)
    iteration, failed = 0, False
    while not (stop := _converged(point, iteration, maxIter, compared, tol * first, tol)):
        try:
            after = method.step(point, method.direction(point, memory), iteration)
        except StepFailed:
            history.append(float(point.total))
            if failed:
                stop = "line search failed"
                break
            memory.clear()
            failed = True
            continue
        memory.add(point, after)
        point, failed = after, False
        iteration += 1
        compared.append(point.total)
        history.append(float(point.total))
    return Minimum(point.x, history, stop)


def _converged(
    point: _Point, iteration: int, maxIter: int, compared: deque[float], change: float, tol: float
) -> Stop | None:
    if iteration >= maxIter:
        return "maxIter reached"
    # The first of the compared is infinite: this stop takes at least 20 iterations.
    if len(compared) >= 2 and abs(point.total - np.max(compared)) <= change:
        return "objective converged"
    if _norm(point.pseudo) <= max(tol * abs(point.total), 1e-8):
        return "gradient converged"
    return None


def _norm(x: np.ndarray) -> float:
    return np.sqrt(np.dot(x, x))
