"""Images with what a model says of them, and the table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuner.base.choices import ScoreKind


@dataclass(frozen=True)
class Scored:
    """Images with what a model says of them; one row an image.

    Attributes
    ----------
    path
        The n images.
    label_index
        Their true classes, int of shape (n,).
    scores
        float64 of shape (n, classes); the greatest decides.
    gives
        Whether they are probabilities or decision values.
    """

    path: list[str]
    label_index: np.ndarray
    scores: np.ndarray
    gives: ScoreKind = "probability"


def predictions_table(scored: Scored, labels: Sequence[str]) -> pd.DataFrame:
    """List each image's prediction, in the order given.

    Returns
    -------
    pandas.DataFrame
        `path`, `label`, `prediction` (class names), `probability` or `decision` (of the predicted class),
        `correct`.
    """
    names = np.array(labels, dtype=object)
    truth = np.asarray(scored.label_index).astype(np.int64)
    prediction = scored.scores.argmax(axis=1)
    return pd.DataFrame(
        {
            "path": scored.path,
            "label": names[truth],
            "prediction": names[prediction],
            scored.gives: scored.scores.max(axis=1),
            "correct": truth == prediction,
        }
    )
