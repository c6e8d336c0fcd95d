from dataclasses import dataclass
from typing import Any

import numpy as np
from hyperopt import STATUS_FAIL, STATUS_OK, Trials, fmin

from tuner.classifiers.parameters import TrialParams
from tuner.trials.grid import GridTrial, grid_proposals
from tuner.trials.space import NUMBER

COMBINATIONS = [TrialParams.of("A", "sklearn.KNeighbors", n_neighbors=k) for k in range(3, 10)]


@dataclass
class Asked:
    """In place of a trial, which needs a search: what it is asked."""

    points: list[dict[str, Any]]

    def __call__(self, point: dict[str, Any]) -> dict[str, Any]:
        self.points.append(point)
        failed = point["n_neighbors"] == 5
        return {"status": STATUS_FAIL} if failed else {"status": STATUS_OK, "loss": 1.0}


def test_each_combination_is_tried_once_in_its_order_whatever_fails() -> None:
    asked = Asked([])
    proposals = grid_proposals(len(COMBINATIONS))
    fmin(
        GridTrial(asked, COMBINATIONS),  # type: ignore[arg-type]
        proposals.space,
        algo=proposals.algorithm,
        max_evals=99,
        trials=Trials(),
        max_queue_len=3,
        rstate=np.random.default_rng(0),
        show_progressbar=False,
        verbose=False,
        return_argmin=False,
    )
    assert [point[NUMBER] for point in asked.points] == [1, 2, 3, 4, 5, 6, 7]
    assert [TrialParams.from_point(point) for point in asked.points] == COMBINATIONS


def test_a_point_s_number_says_which_combination_it_is() -> None:
    grid = GridTrial(Asked([]), COMBINATIONS)  # type: ignore[arg-type]
    assert grid.combination({NUMBER: 2.0}) == (2, COMBINATIONS[1])
