"""Images with what a model says of them, and the table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Scored:
    """Images with what a model says of them; one row an image.

    Attributes
    ----------
    path
        The n images.
    label_index
        Their true classes, int of shape (n,).
    probability
        float64 of shape (n, classes).
    """

    path: list[str]
    label_index: np.ndarray
    probability: np.ndarray


def predictions_table(scored: Scored, labels: Sequence[str]) -> pd.DataFrame:
    """List each image's prediction, in the order given.

    Returns
    -------
    pandas.DataFrame
        `path`, `label`, `prediction` (class names), `probability` (of the predicted class), `correct`.
    """
    names = np.array(labels, dtype=object)
    truth = np.asarray(scored.label_index).astype(np.int64)
    prediction = scored.probability.argmax(axis=1)
    return pd.DataFrame(
        {
            "path": scored.path,
            "label": names[truth],
            "prediction": names[prediction],
            "probability": scored.probability.max(axis=1),
            "correct": truth == prediction,
        }
    )
