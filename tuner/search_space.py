"""An experiment's space as hyperopt's, and its proposals as typed parameters of a trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from hyperopt import anneal, hp, rand, tpe

from tuner.experiment import ParamSpace, Search

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
    chosen = {name: values[0] for name, values in document["misc"]["vals"].items() if values}
    names = [spec.name for spec in search.backbone]
    point = {"backbone": names[int(chosen.get("backbone", 0))], NUMBER: chosen.get(NUMBER)}
    for name in ("regParam", "elasticNetParam", "maxIter"):
        values = getattr(search, name).values
        point[name] = values[int(chosen.get(name, 0))] if values else chosen[name]
    return point


def without_repeats(search: Search) -> Algorithm:
    """The search's algorithm, made to propose no parameter set twice.

    A set that was proposed before, finished or not, is asked for again, then drawn at random; when even
    that finds nothing new the space is exhausted and no proposal is made, which ends the search.
    """
    algorithms = (_ALGORITHMS[search.algorithm], rand.suggest)

    def suggest(new_ids: Sequence[int], domain: Any, trials: Any, seed: int) -> list[dict[str, Any]]:
        seen = {TrialParams.from_point(point_of(doc, search)) for doc in trials.trials}
        documents = []
        for new_id in new_ids:
            rng = np.random.default_rng((seed, new_id))
            for attempt in range(_ATTEMPTS * len(algorithms)):
                algorithm = algorithms[attempt // _ATTEMPTS]
                (document,) = algorithm([new_id], domain, trials, int(rng.integers(2**31 - 1)))
                params = TrialParams.from_point(point_of(document, search))
                if params not in seen:
                    document["misc"]["vals"][NUMBER] = [new_id + 1]
                    seen.add(params)
                    documents.append(document)
                    break
        return documents

    return suggest
