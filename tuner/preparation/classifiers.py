"""What classifiers ask of the number of images and features, before one is extracted."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from tuner.base.errors import ExperimentError
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.rows.row import Classifier
from tuner.experiment.schema import Experiment
from tuner.images.splits import TEST, TRAIN
from tuner.networks.resolution import Network


def size_limits(parts: pd.Series, networks: Collection[Network]) -> dict[str, int]:
    """What values must not exceed: `images` of the smallest fit, and `features` of the narrowest network.

    `parts` is the part of each image.
    """
    counts = parts[parts != TEST].value_counts()
    held_back = counts.drop(TRAIN, errors="ignore")  # of folds, one at a time
    fewest = int(counts.sum() - held_back.max()) if len(held_back) else int(counts.sum())
    return {"images": fewest, "features": min(network.width for network in networks)}


def check_sizes(
    experiment: Experiment,
    parts: pd.Series,
    networks: Collection[Network],
    combinations: Collection[TrialParams] = (),
) -> None:
    """Refuse values that are more than there are images to fit on, or features of one.

    Parameters
    ----------
    parts
        The part of each image.
    networks
        Those of the search.
    combinations
        What a spot-check tries, in place of the search's spaces.

    Raises
    ------
    ExperimentError
        Which value of which classifier, and what it may be.
    """
    limits = size_limits(parts, networks)
    highest: list[tuple[Classifier, str, float]]
    if combinations:
        highest = [
            (p.row, name, float(v)) for p in combinations for name, v in p.given if not isinstance(v, str)
        ]
    else:
        highest = [
            (choice.row, d.name, d.space.bounds[1])
            for choice in experiment.search.choices
            for d in choice.dimensions
            if d.parameter.at_most
        ]
    for row, name, value in highest:
        for what in row.by_name[name].at_most:
            if value > limits[what]:
                there = {"images": "images to fit on", "features": "features of an image"}[what]
                raise ExperimentError(
                    f"{name} of {row.name} goes up to {value:g}, and there are {limits[what]} "
                    f"{there}: lower it."
                )
