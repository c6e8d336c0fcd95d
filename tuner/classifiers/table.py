"""The one table of classifiers: name, library, parameters with their values, where each fits."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.classifiers.rows.mllib import MLLIB
from tuner.classifiers.rows.river import RIVER
from tuner.classifiers.rows.row import Classifier
from tuner.classifiers.rows.sklearn import SKLEARN
from tuner.classifiers.space import Value, nearest

DEFAULT = "LogisticRegression"
"""What is fitted where an experiment names no classifier."""

CLASSIFIERS: Mapping[str, Classifier] = {row.name: row for row in (*MLLIB, *SKLEARN, *RIVER)}
"""Every classifier by its name."""

INCREMENTAL: Mapping[str, Classifier] = {name: row for name, row in CLASSIFIERS.items() if row.incremental}
"""Those that learn a batch at a time."""

SPOTS: Mapping[str, tuple[str, Mapping[str, Value]]] = {
    spot: (row.name, values) for row in CLASSIFIERS.values() for spot, values in row.spots.items()
}
"""What a spot-check may try, by name: a classifier, and some of its values."""


def find_classifier(name: str) -> Classifier:
    """A row of the table; raises ValueError, with the nearest names, where there is none."""
    if name not in CLASSIFIERS:
        raise ValueError(f"there is no classifier {name}: {nearest(name, [*CLASSIFIERS, *SPOTS])}")
    return CLASSIFIERS[name]
