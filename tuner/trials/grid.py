"""A grid of combinations, one trial each, as SparkTrials runs them: numbered, in the order given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyperopt import hp
from hyperopt.fmin import generate_trial

from tuner.classifiers.parameters import TrialParams
from tuner.trials.space import NUMBER
from tuner.trials.spark_trials import Proposals
from tuner.trials.trial import Trial


def grid_proposals(total: int) -> Proposals:
    """Propose the numbers from 1 to `total`, each once; which combination a number is, the trial knows."""

    def algorithm(new_ids: Sequence[int], _: Any, trials: Any, __: int) -> list[dict[str, Any]]:
        taken = {int(doc["misc"]["vals"][NUMBER][0]) for doc in trials.trials}
        left = (number for number in range(1, total + 1) if number not in taken)
        return [
            generate_trial(new_id, {NUMBER: number}) for new_id, number in zip(new_ids, left, strict=False)
        ]

    return Proposals({NUMBER: hp.uniform(NUMBER, 0, 1_000_000)}, algorithm)


@dataclass(frozen=True)
class GridTrial:
    """A trial that is told a number, and fits the combination of that number, from 1."""

    trial: Trial
    combinations: Sequence[TrialParams]

    def __call__(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Run the trial; gives its result as hyperopt keeps it."""
        number, params = self.combination(point)
        return self.trial({**params.to_dict(), NUMBER: number})

    def combination(self, point: Mapping[str, Any]) -> tuple[int, TrialParams]:
        """The number that a point has, and what is tried under it."""
        number = int(point[NUMBER])
        return number, self.combinations[number - 1]
