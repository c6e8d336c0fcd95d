"""An experiment's space as hyperopt's, and its proposals as parameters of a trial."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, product
from typing import Any

import numpy as np
from hyperopt import anneal, hp, rand, tpe
from hyperopt.fmin import generate_trial

from tuner.classifiers.parameters import PARAMETERS, TrialParams
from tuner.classifiers.space import ParamSpace
from tuner.experiment.schema import SearchSettings

Algorithm = Callable[[Sequence[int], Any, Any, int], list[dict[str, Any]]]

# At a parameter set that was not proposed before, with each algorithm; of a finite space with the first one
# alone: what is left of it can be listed, and TPE takes ever longer over a space that it knows.
_ATTEMPTS, _ATTEMPTS_OF_FINITE = 50, 5
_MOST_LISTED = 100_000  # points of a finite space

# SparkTrials tells an objective the parameters and nothing else. The number of the trial travels as
# one more of them: sampled like any other, so that hyperopt knows it, then set (`WithoutRepeats`).
NUMBER = "trial"


def _dimension(name: str, space: ParamSpace) -> Any:
    if space.low is not None and space.high is not None:
        if PARAMETERS[name].whole:
            if space.log:
                return hp.qloguniform(name, np.log(space.low), np.log(space.high), 1)
            return hp.uniformint(name, int(space.low), int(space.high))
        if space.log:
            return hp.loguniform(name, np.log(space.low), np.log(space.high))
        return hp.uniform(name, space.low, space.high)
    return _one_or_choice(name, space.values)


def _one_or_choice(name: str, values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else hp.choice(name, list(values))


def hyperopt_space(search: SearchSettings) -> dict[str, Any]:
    """The space of a search: `backbone`, each of the searched parameters, and the number."""
    return {
        "backbone": _one_or_choice("backbone", [spec.name for spec in search.backbone]),
        **{name: _dimension(name, space) for name, space in search.spaces.items()},
        NUMBER: hp.uniform(NUMBER, 0, 1_000_000),
    }


def point_of(document: Mapping[str, Any], search: SearchSettings) -> dict[str, Any]:
    """The values of a trial document of hyperopt's, which holds indices for choices."""
    values = document["misc"]["vals"]
    return point_of_values({name: given[0] for name, given in values.items() if given}, search)


def point_of_values(chosen: Mapping[str, Any], search: SearchSettings) -> dict[str, Any]:
    """The values of a point, given what hyperopt has by its labels: indices for choices."""
    names = [spec.name for spec in search.backbone]
    point = {"backbone": names[int(chosen.get("backbone", 0))], NUMBER: chosen.get(NUMBER)}
    for name, space in search.spaces.items():
        values = space.values
        point[name] = values[int(chosen.get(name, 0))] if values else chosen[name]
    return point


def document_of(trial_id: int, number: int, params: TrialParams, search: SearchSettings) -> dict[str, Any]:
    """A trial document of hyperopt's for given parameters: the other way round of `point_of`."""
    values: dict[str, Any] = {NUMBER: number}
    names = [spec.name for spec in search.backbone]
    if len(names) > 1:
        values["backbone"] = names.index(params.backbone)
    for name, space in search.spaces.items():
        if space.low is not None:
            values[name] = getattr(params, name)
        elif len(space.values) > 1:
            values[name] = space.values.index(getattr(params, name))
    return generate_trial(trial_id, values)


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
            yield document_of(new_id, number, TrialParams(**point.model_dump()), search)
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
    columns: list[Sequence[Any]] = [[spec.name for spec in search.backbone]]
    for name, space in search.spaces.items():
        if space.values:
            columns.append(space.values)
        elif PARAMETERS[name].whole:
            low, high = space.bounds
            columns.append(range(int(low), int(high) + 1))
        else:
            return []
    if math.prod(map(len, columns)) > _MOST_LISTED:
        return []
    keys = ("backbone", *search.spaces)
    return [TrialParams.from_point(dict(zip(keys, values, strict=True))) for values in product(*columns)]
