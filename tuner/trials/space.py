"""An experiment's space as hyperopt's, and its proposals as parameters of a trial."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from hyperopt import anneal, hp, rand, tpe
from hyperopt.fmin import generate_trial
from hyperopt.pyll import scope

from tuner.classifiers.parameters import BACKBONE, CLASS_WEIGHT, CLASSIFIER, TrialParams
from tuner.experiment.choices import Choice, Dimension
from tuner.experiment.search import SearchSettings

Algorithm = Callable[[Sequence[int], Any, Any, int], list[dict[str, Any]]]

# At a parameter set that was not proposed before, with each algorithm; of a finite space with the first one
# alone: what is left of it can be listed, and TPE takes ever longer over a space that it knows.
_ATTEMPTS, _ATTEMPTS_OF_FINITE = 50, 5
_MOST_LISTED = 100_000  # points of a finite space

# SparkTrials tells an objective the parameters and nothing else. The number of the trial travels as
# one more of them: sampled like any other, so that hyperopt knows it, then set (`WithoutRepeats`).
NUMBER = "trial"


def _dimension(dimension: Dimension) -> Any:
    label, space = dimension.label, dimension.space
    if space.low is not None and space.high is not None:
        if dimension.parameter.whole:
            if space.log:
                return scope.int(hp.qloguniform(label, np.log(space.low), np.log(space.high), 1))
            return hp.uniformint(label, int(space.low), int(space.high))
        if space.log:
            return hp.loguniform(label, np.log(space.low), np.log(space.high))
        return hp.uniform(label, space.low, space.high)
    return _one_or_choice(label, space.values)


def _one_or_choice(name: str, values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else hp.choice(name, list(values))


def hyperopt_space(search: SearchSettings) -> dict[str, Any]:
    """The space of a search: `backbone`, each of the searched parameters, and the number.

    Where there are several classifiers the parameters lie within the choice of one, and what goes with one
    value of a parameter lies within that: hyperopt's conditional spaces.
    """
    of_classifiers = [_conditional(choice) for choice in search.choices]
    if len(of_classifiers) > 1:
        of_classifiers = [{CLASSIFIER: hp.choice(CLASSIFIER, of_classifiers)}]
    weights = search.class_weights
    return {
        BACKBONE: _one_or_choice(BACKBONE, [spec.name for spec in search.backbone]),
        **of_classifiers[0],
        **({CLASS_WEIGHT: hp.choice(CLASS_WEIGHT, list(weights))} if len(weights) > 1 else {}),
        NUMBER: hp.uniform(NUMBER, 0, 1_000_000),
    }


def _conditional(choice: Choice) -> dict[str, Any]:
    """The space of one classifier, which names it if the experiment does."""
    space: dict[str, Any] = {} if choice.name is None else {CLASSIFIER: choice.name}
    for dimension in choice.dimensions:
        if dimension.condition is not None:
            continue
        dependent = [other for other in choice.dimensions if _follows(other, dimension)]
        if not dependent:
            space[dimension.name] = _dimension(dimension)
            continue
        branches = [
            {dimension.name: value}
            | {
                other.name: _dimension(other)
                for other in dependent
                if other.is_there({dimension.name: value})
            }
            for value in dimension.space.values
        ]
        space[dimension.name] = _one_or_choice(dimension.label, branches)
    return space


def _follows(dimension: Dimension, other: Dimension) -> bool:
    return dimension.condition is not None and dimension.condition[0] == other.name


def point_of(document: Mapping[str, Any], search: SearchSettings) -> dict[str, Any]:
    """The values of a trial document of hyperopt's, which holds indices for choices."""
    values = document["misc"]["vals"]
    return point_of_values({name: given[0] for name, given in values.items() if given}, search)


def point_of_values(chosen: Mapping[str, Any], search: SearchSettings) -> dict[str, Any]:
    """The values of a point, given what hyperopt has by its labels: indices for choices."""
    names = [spec.name for spec in search.backbone]
    choice = search.choices[int(chosen.get(CLASSIFIER, 0))]
    point: dict[str, Any] = {BACKBONE: names[int(chosen.get(BACKBONE, 0))], NUMBER: chosen.get(NUMBER)}
    if choice.name is not None:
        point[CLASSIFIER] = choice.name
    for dimension in choice.dimensions:  # what another one goes with comes before it
        if dimension.is_there(point):
            values, label = dimension.space.values, dimension.label
            point[dimension.name] = values[int(chosen.get(label, 0))] if values else chosen[label]
    if len(search.class_weights) > 1:
        point[CLASS_WEIGHT] = search.class_weights[int(chosen[CLASS_WEIGHT])]
    return point


def document_of(trial_id: int, number: int, params: TrialParams, search: SearchSettings) -> dict[str, Any]:
    """A trial document of hyperopt's for given parameters: the other way round of `point_of`.

    Parameters that the trial does not have are there without a value, as in hyperopt's own documents.
    """
    values: dict[str, Any] = {NUMBER: number}
    names = [spec.name for spec in search.backbone]
    if len(names) > 1:
        values[BACKBONE] = names.index(params.backbone)
    if len(search.choices) > 1:
        values[CLASSIFIER] = [choice.name for choice in search.choices].index(params.classifier)
    if len(search.class_weights) > 1 and params.class_weight is not None:
        values[CLASS_WEIGHT] = search.class_weights.index(params.class_weight)
    absent = []
    for choice in search.choices:
        for dimension in choice.dimensions:
            if len(dimension.space.values) == 1:
                continue
            if choice.name != params.classifier or dimension.name not in params.values:
                absent.append(dimension.label)
                continue
            value = params.values[dimension.name]
            options = dimension.space.values
            values[dimension.label] = options.index(value) if options else value
    document: dict[str, Any] = generate_trial(trial_id, values)
    for label in absent:
        document["misc"]["vals"][label] = []
        document["misc"]["idxs"][label] = []
    return document


def algorithm_of(search: SearchSettings) -> Algorithm:
    """Hyperopt's algorithm; TPE learns once a quarter of the trials, at least 5, are there.

    Its own default is 20: in a search of 16 it would propose at random to the end.
    """
    if search.algorithm == "tpe":
        return partial(tpe.suggest, n_startup_jobs=max(5, math.ceil(search.max_evals / 4)))
    chosen: Algorithm = {"random": rand.suggest, "anneal": anneal.suggest}[search.algorithm]
    return chosen


class WithoutRepeats:
    """A search's algorithm, made to number its proposals and to propose no parameter set twice.

    `search.points` come first. A set that was proposed before, finished or not, is asked for again, then
    drawn at random: of a finite space, from those that are left; when even that finds nothing new the
    space is exhausted and no proposal is made, which ends the search. Numbers begin with 1 and close the
    gaps that lost trials left, with other parameters: theirs may be why their workers died.
    """

    def __init__(self, search: SearchSettings) -> None:
        self._search = search
        self._algorithm = algorithm_of(search)
        self._proposed: set[TrialParams] = set()
        self._tries: Counter[int] = Counter()  # by number

    def __call__(self, new_ids: Sequence[int], domain: Any, trials: Any, _: int) -> list[dict[str, Any]]:
        """Propose a trial for each of the new ids, as far as there is something new to try."""
        known = [point_of(doc, self._search) for doc in trials.trials]
        seen = self._proposed | {TrialParams.from_point(point) for point in known}
        taken = {int(point[NUMBER]) for point in known}
        documents = []
        for new_id in new_ids:
            number = next(number for number in count(1) if number not in taken)
            for document in self._proposals(new_id, number, domain, trials, seen):
                params = TrialParams.from_point(point_of(document, self._search))
                if params not in seen:
                    document["misc"]["vals"][NUMBER] = [number]
                    seen.add(params)
                    taken.add(number)
                    self._proposed.add(params)
                    self._tries[number] += 1
                    documents.append(document)
                    break
        return documents

    def _proposals(
        self, new_id: int, number: int, domain: Any, trials: Any, seen: Collection[TrialParams]
    ) -> Iterator[dict[str, Any]]:
        """What to try as the trial of this number, until one is new."""
        search = self._search
        for point in search.points:
            yield document_of(new_id, number, point.params(), search)
        # By the number, not by hyperopt's generator: a search that is resumed proposes what it would have.
        again = self._tries[number]
        rng = np.random.default_rng((search.seed, number, again) if again else (search.seed, number))
        points = finite_points(search)
        attempts = [self._algorithm] * (_ATTEMPTS_OF_FINITE if points else _ATTEMPTS)
        for algorithm in attempts if points else [*attempts, *[rand.suggest] * _ATTEMPTS]:
            yield from algorithm([new_id], domain, trials, int(rng.integers(2**31 - 1)))
        left = [params for params in points if params not in seen]
        if left:
            yield document_of(new_id, number, left[int(rng.integers(len(left)))], search)


def finite_points(search: SearchSettings) -> list[TrialParams]:
    """Every point of a finite space; none of one that is not, or too large to list."""
    each = [_finite_values(choice) for choice in search.choices]
    outer = [[spec.name for spec in search.backbone], search.class_weights]
    if any(values is None for values in each):
        return []
    listed = [
        (choice, values)
        for choice, found in zip(search.choices, each, strict=True)
        for values in found or ()
    ]
    if len(listed) * math.prod(map(len, outer)) > _MOST_LISTED:
        return []
    weighed = len(search.class_weights) > 1
    return [
        TrialParams.of(backbone, choice.name, weight if weighed else None, **values)
        for backbone in outer[0]
        for choice, values in listed
        for weight in search.class_weights
    ]


def _finite_values(choice: Choice) -> list[dict[str, Any]] | None:
    """Every set of values that one classifier may have; None where there are too many of them."""
    points: list[dict[str, Any]] = [{}]
    for dimension in choice.dimensions:
        options: Sequence[Any] = dimension.space.values
        if not options:
            if not dimension.parameter.whole:
                return None
            low, high = dimension.space.bounds
            options = range(int(low), int(high) + 1)
        if len(points) * len(options) > _MOST_LISTED:
            return None
        points = [
            point | {dimension.name: option}
            for point in points
            for option in (options if dimension.is_there(point) else [None])
        ]
    return [{name: value for name, value in point.items() if value is not None} for point in points]
