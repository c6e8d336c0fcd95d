"""Rows of classes that overlap, in a file, and learners of them."""

from pathlib import Path

import numpy as np

from tuner.classifiers.table import INCREMENTAL
from tuner.learning.learner import LearnerSetting
from tuner.learning.rows import RowFile

CLASSES, WIDTH = 4, 30


def sample(count: int = 400, *, counts: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Features, two of them the same in all rows and all of them far from 0, and label indices."""
    rng = np.random.default_rng(5)
    label = rng.integers(CLASSES, size=count)
    features = rng.normal(size=(CLASSES, WIDTH))[label] + rng.normal(size=(count, WIDTH)) + 3
    features[:, 3], features[:, 4] = 0, 1 / 3
    return (np.abs(features) if counts else features).astype(np.float32), label


def setting(name: str, step: str = "batch", **values: float) -> LearnerSetting:
    return LearnerSetting(INCREMENTAL[name], values, WIDTH, CLASSES, step, seed=7)  # type: ignore[arg-type]


def in_file(folder: Path, features: np.ndarray) -> RowFile:
    file = RowFile(folder / "rows", features.shape)
    file[np.arange(len(features))] = features
    return file
