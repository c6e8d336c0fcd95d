"""Fits on the cluster, by MLlib: the worker is a Spark Connect client of the driver's application."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as F

from tuner.base.choices import ClassWeight
from tuner.base.columns import LABEL_INDEX, PART, PATH, PREDICTION, PROBABILITY, WEIGHT
from tuner.classifiers.linear import LinearHead
from tuner.classifiers.parameters import TrialParams
from tuner.evaluation.predictions import Scored
from tuner.models.pipeline import fit_classifier, head_of
from tuner.spark.endpoint import Endpoint, connect_from_worker, interrupted_after
from tuner.trials.fits import Fit

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_RIGHT = "right"  # a column: whether an image's class was predicted


@dataclass(frozen=True)
class SparkFits:
    """The fits of one trial, made by MLlib on a table that the cluster holds.

    Parameters
    ----------
    table
        Columns `path`, `label_index`, `part` and `features`.
    params, class_weight
        What to fit with, and whether rare classes weigh more.
    """

    table: DataFrame
    params: TrialParams
    class_weight: ClassWeight

    def fit_and_score(self, held_back: str) -> Fit:
        """Fit on all rows but those of a part, and score on that part."""
        started = time.monotonic()
        training = weighted(self.table.where(F.col(PART) != held_back), self.class_weight)
        model = fit_classifier(training, self.params, self.class_weight)
        seconds = time.monotonic() - started
        # One job for both parts; of what it was fitted on, nothing but right or wrong comes here.
        unseen = F.col(PART) == held_back
        probability = F.when(unseen, vector_to_array(F.col(PROBABILITY))).alias(PROBABILITY)
        right = (F.col(PREDICTION) == F.col(LABEL_INDEX)).alias(_RIGHT)
        path = F.when(unseen, F.col(PATH)).alias(PATH)
        rows = model.transform(self.table).select(path, LABEL_INDEX, probability, right)
        frame: pd.DataFrame = rows.toPandas()
        scored = frame[frame[PATH].notna()]
        return Fit(
            head=head_of(model),
            seconds=seconds,
            train_accuracy=float(frame[_RIGHT][frame[PATH].isna()].mean()),
            history=list(model.summary.objectiveHistory),
            scored=Scored(
                path=list(scored[PATH]),
                label_index=scored[LABEL_INDEX].to_numpy(),
                probability=np.stack(list(scored[PROBABILITY])),
            ),
        )

    def fit_all(self) -> LinearHead:
        """Fit on all rows."""
        training = weighted(self.table, self.class_weight)
        return head_of(fit_classifier(training, self.params, self.class_weight))


@contextmanager
def spark_fits(
    endpoint: Endpoint, view: str, params: TrialParams, class_weight: ClassWeight, timeout: float | None
) -> Iterator[SparkFits]:
    """Connect to the driver's application for a trial; what runs there after `timeout` s is cancelled.

    Parameters
    ----------
    view
        The name of the table, for sessions of the application.
    """
    session = connect_from_worker(endpoint)
    with interrupted_after(session, timeout):
        yield SparkFits(session.table(view), params, class_weight)


def weighted(table: DataFrame, class_weight: ClassWeight) -> DataFrame:
    """Add each row's weight (`fits.class_weights`), where classes weigh differently."""
    if class_weight == "none":
        return table
    counts = {row[LABEL_INDEX]: row["count"] for row in table.groupBy(LABEL_INDEX).count().collect()}
    total = sum(counts.values())
    weight = F.lit(None).cast("double")
    for label, count in counts.items():
        weight = F.when(F.col(LABEL_INDEX) == label, total / (len(counts) * count)).otherwise(weight)
    return table.withColumn(WEIGHT, weight)
