"""Small pictures, small networks and the settings to train them in a second."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tuner.experiment.training.fine_tuning import FineTune
from tuner.networks.files import import_keras
from tuner.training.bases import Base
from tuner.training.images import PIXELS_FILE, ROWS_FILE, TrainingImages
from tuner.training.plan import Plan, plan_of

SIDE = 12


def pictures(count: int, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, uint8, with a bright bar where the class says; and the classes in turn."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (count, SIDE, SIDE, 3), np.uint8)
    labels = np.arange(count) % classes
    for picture, label in zip(pixels, labels, strict=True):
        picture[2 * label : 2 * label + 2] += 120
    return pixels, labels


def training_images(folder: Path, count: int = 24, classes: int = 2) -> TrainingImages:
    """Write pictures as the driver does, a third of which validate."""
    pixels, labels = pictures(count, classes)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / PIXELS_FILE, pixels)
    parts = ["validation" if number % 6 < 2 else "train" for number in range(count)]
    rows = {"row": np.arange(count), "label_index": labels, "part": parts}
    rows |= {"path": [f"{number}.png" for number in range(count)]}
    pd.DataFrame(rows).to_parquet(folder / ROWS_FILE)
    return TrainingImages(folder, "validation")


def small_network() -> Any:
    """Three layers that can be told apart, one of them batch normalization, on small pictures."""
    keras = import_keras()
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.layers.Input((SIDE, SIDE, 3)),
            keras.layers.Conv2D(4, 3, name="first"),
            keras.layers.BatchNormalization(name="normal"),
            keras.layers.Conv2D(6, 3, activation="relu", name="last"),
        ]
    )


def small_base(folder: Path, pooling: str = "avg") -> Base:
    folder.mkdir(parents=True, exist_ok=True)
    small_network().save(folder / "small.keras")
    return Base("small", folder / "small.keras", (SIDE, SIDE), "unit", pooling)  # type: ignore[arg-type]


def small_plan(metric: str = "accuracy", seed: int = 1, **keys: Any) -> Plan:
    given = {"units": 5, "warm_up_epochs": 2, "epochs": 2, "unfreeze": "last", "batch_size": 5, **keys}
    return plan_of(FineTune.model_validate(given), {}, metric, seed)  # type: ignore[arg-type]
