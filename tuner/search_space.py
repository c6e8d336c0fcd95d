"""An experiment's space as hyperopt's, and its proposals as typed parameters of a trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import numpy as np
from hyperopt import anneal, hp, rand, tpe
from hyperopt.fmin import generate_trial

from tuner.experiment import Search
from tuner.param_space import ParamSpace

Algorithm = Callable[[Sequence[int], Any, Any, int], list[dict[str, Any]]]

_ALGORITHMS: Mapping[str, Algorithm] = {
    "tpe": tpe.suggest,
    "random": rand.suggest,
    "anneal": anneal.suggest,
}
_ATTEMPTS = 50  # at a parameter set that was not proposed before, with each algorithm

# SparkTrials tells an objective the parameters and nothing else. The number of the trial travels as
# one more of them: sampled like any other, so that hyperopt knows it, then set (`without_repeats`).
NUMBER = "trial"


@dataclass(frozen=True)
class TrialParams:
    """What one trial fits: the backbone's name and the parameters of `LogisticRegression`."""

    backbone: str
    regParam: float
    elasticNetParam: float
    maxIter: int

    @classmethod
    def from_point(cls, point: Mapping[str, Any]) -> TrialParams:
        """Read one point of the space: values, never the indices of choices."""
        return cls(
            backbone=str(point["backbone"]),
            regParam=float(point["regParam"]),
            elasticNetParam=float(point["elasticNetParam"]),
            maxIter=int(point["maxIter"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """The parameters by name, as they are logged."""
        return asdict(self)


def _dimension(name: str, space: ParamSpace) -> Any:
    if space.low is not None and space.high is not None:
        if name == "maxIter":
            return hp.uniformint(name, int(space.low), int(space.high))
        if space.log:
            return hp.loguniform(name, np.log(space.low), np.log(space.high))
        return hp.uniform(name, space.low, space.high)
    return _one_or_choice(name, space.values)


def _one_or_choice(name: str, values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else hp.choice(name, list(values))


def hyperopt_space(search: Search) -> dict[str, Any]:
    """The space of a search: `backbone`, `regParam`, `elasticNetParam`, `maxIter` and the number."""
    return {
        "backbone": _one_or_choice("backbone", [spec.name for spec in search.backbone]),
        "regParam": _dimension("regParam", search.regParam),
        "elasticNetParam": _dimension("elasticNetParam", search.elasticNetParam),
        "maxIter": _dimension("maxIter", search.maxIter),
        NUMBER: hp.uniform(NUMBER, 0, 1_000_000),
    }


def point_of(document: Mapping[str, Any], search: Search) -> dict[str, Any]:
    """The values of a trial document of hyperopt's, which holds indices for choices."""
    values = document["misc"]["vals"]
    return point_of_values({name: given[0] for name, given in values.items() if given}, search)


def point_of_values(chosen: Mapping[str, Any], search: Search) -> dict[str, Any]:
    """The values of a point, given what hyperopt has by its labels: indices for choices."""
    names = [spec.name for spec in search.backbone]
    point = {"backbone": names[int(chosen.get("backbone", 0))], NUMBER: chosen.get(NUMBER)}
    for name in ("regParam", "elasticNetParam", "maxIter"):
        values = getattr(search, name).values
        point[name] = values[int(chosen.get(name, 0))] if values else chosen[name]
    return point


def document_of(trial_id: int, number: int, params: TrialParams, search: Search) -> dict[str, Any]:
    """A trial document of hyperopt's for given parameters: the other way round of `point_of`."""
    values: dict[str, Any] = {NUMBER: number}
    names = [spec.name for spec in search.backbone]
    if len(names) > 1:
        values["backbone"] = names.index(params.backbone)
    for name in ("regParam", "elasticNetParam", "maxIter"):
        space: ParamSpace = getattr(search, name)
        if space.low is not None:
            values[name] = getattr(params, name)
        elif len(space.values) > 1:
            values[name] = space.values.index(getattr(params, name))
    return generate_trial(trial_id, values)


def without_repeats(search: Search) -> Algorithm:
    """The search's algorithm, made to number its proposals and to propose no parameter set twice.

    `search.points` come first. A set that was proposed before, finished or not, is asked for again, then
    drawn at random; when even that finds nothing new the space is exhausted and no proposal is made, which
    ends the search. Numbers begin with 1 and close the gaps that lost trials left.
    """

    def suggest(new_ids: Sequence[int], domain: Any, trials: Any, _: int) -> list[dict[str, Any]]:
        known = [point_of(doc, search) for doc in trials.trials]
        seen = {TrialParams.from_point(point) for point in known}
        taken = {int(point[NUMBER]) for point in known}
        documents = []
        for new_id in new_ids:
            number = next(number for number in count(1) if number not in taken)
            for document in _proposals(search, new_id, number, domain, trials):
                params = TrialParams.from_point(point_of(document, search))
                if params not in seen:
                    document["misc"]["vals"][NUMBER] = [number]
                    seen.add(params)
                    taken.add(number)
                    documents.append(document)
                    break
        return documents

    return suggest


def _proposals(
    search: Search, new_id: int, number: int, domain: Any, trials: Any
) -> Iterator[dict[str, Any]]:
    """What to try as the trial of this number, until one is new."""
    for point in search.points:
        yield document_of(new_id, number, TrialParams(**point.model_dump()), search)
    # By the number, not by hyperopt's generator: a search that is resumed proposes what it would have.
    rng = np.random.default_rng((search.seed, number))
    for algorithm in (_ALGORITHMS[search.algorithm], rand.suggest):
        for _ in range(_ATTEMPTS):
            yield from algorithm([new_id], domain, trials, int(rng.integers(2**31 - 1)))
