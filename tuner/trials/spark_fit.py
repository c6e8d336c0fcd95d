"""Fits on the cluster, by MLlib: the worker is a Spark Connect client of the driver's application."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pyspark import SparkFiles
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as F

from tuner.base.choices import ClassWeight
from tuner.base.columns import LABEL_INDEX, PART, PATH, PREDICTION, WEIGHT
from tuner.classifiers.heads.files import Head
from tuner.classifiers.heads.steps import SteppedHead
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.table import DEFAULT
from tuner.evaluation.predictions import Scored
from tuner.models.fitted.estimators import fit_estimator, save_fitted, step_and_model, weight_of
from tuner.models.fitted.saved import bring_saved, read_saved
from tuner.models.pipeline import head_of, score_column
from tuner.spark.endpoint import Endpoint, connect_from_worker, interrupted_after
from tuner.trials.fits import Fit, Fitted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_RIGHT = "right"  # a column: whether an image's class was predicted
_SCORES = "scores"  # a column: probabilities or decision values


@dataclass(frozen=True)
class SparkSetting:
    """What fits by MLlib need besides a table and a trial's parameters.

    Attributes
    ----------
    classes, widths
        How many classes there are and, by the network's name, features.
    class_weight
        Whether rare classes weigh more, unless a trial says it itself.
    seed
        `search.seed`, for what has a part of chance.
    folder
        Where MLlib saves models, for their numbers to be read: one that driver, executors and workers see
        or, as text, the URI of one on a Hadoop filesystem.
    """

    classes: int
    widths: Mapping[str, int]
    class_weight: ClassWeight
    seed: int
    folder: Path | str


@dataclass(frozen=True)
class SparkFits:
    """The fits of one trial, made by MLlib on a table that the cluster holds.

    Parameters
    ----------
    table
        Columns `path`, `label_index`, `part` and `features`.
    params
        What to fit with.
    setting
        How.
    """

    table: DataFrame
    params: TrialParams
    setting: SparkSetting

    def fit_and_score(self, held_back: str) -> Fit:
        """Fit on all rows but those of a part, and score on that part."""
        started, gives = time.monotonic(), self.params.row.gives
        model = self._fit(self.table.where(F.col(PART) != held_back))
        seconds = time.monotonic() - started
        # One job for both parts; of what it was fitted on, nothing but right or wrong comes here.
        unseen = F.col(PART) == held_back
        scores = F.when(unseen, vector_to_array(F.col(score_column(gives)))).alias(_SCORES)
        right = (F.col(PREDICTION) == F.col(LABEL_INDEX)).alias(_RIGHT)
        path = F.when(unseen, F.col(PATH)).alias(PATH)
        rows = model.transform(self.table).select(path, LABEL_INDEX, scores, right)
        frame: pd.DataFrame = rows.toPandas()
        scored = frame[frame[PATH].notna()]
        return Fit(
            fitted=lambda: self._fetch(model),
            seconds=seconds,
            train_accuracy=float(frame[_RIGHT][frame[PATH].isna()].mean()),
            history=self._history(model),
            scored=Scored(
                path=list(scored[PATH]),
                label_index=scored[LABEL_INDEX].to_numpy(),
                scores=np.stack(list(scored[_SCORES])),
                gives=gives,
            ),
        )

    def fit_all(self) -> Fitted:
        """Fit on all rows."""
        return self._fetch(self._fit(self.table))

    def _history(self, fitted: Any) -> list[float]:
        _, model = step_and_model(fitted)
        return list(model.summary.objectiveHistory) if self.params.row.name == DEFAULT else []

    def _fit(self, table: DataFrame) -> Any:
        setting = self.setting
        return fit_estimator(
            weighted(table, weight_of(self.params, setting.class_weight)),
            self.params,
            setting.class_weight,
            width=setting.widths[self.params.backbone],
            classes=setting.classes,
            seed=setting.seed,
        )

    def _fetch(self, fitted: Any) -> Fitted:
        """Bring a model's numbers here: by its attributes, or through the files that MLlib saves."""
        step, model = step_and_model(fitted)
        head: Head
        if self.params.row.name == DEFAULT:
            head, saved = head_of(model), None
        else:
            saved = self._save(model)
            head = read_saved(saved, self.params.row, self.setting.classes)
        found = Fitted(head if step is None else SteppedHead(step, head), saved)
        if saved is not None and isinstance(self.setting.folder, str):
            weakref.finalize(found, shutil.rmtree, saved.parent, ignore_errors=True)
        return found

    def _save(self, model: Any) -> Path:
        """Let MLlib save a model; gives the folder, which is here, in one of its own, if it was not."""
        name, place = uuid.uuid4().hex, self.setting.folder
        if isinstance(place, Path):
            save_fitted(model, place / name)
            return place / name
        save_fitted(model, f"{place}/{name}")
        # Spark's own folder of this process, which goes with it.
        here = Path(tempfile.mkdtemp(dir=SparkFiles.getRootDirectory())) / name
        bring_saved(self.table.sparkSession, f"{place}/{name}", here)
        return here


@contextmanager
def spark_fits(
    endpoint: Endpoint, view: str, params: TrialParams, setting: SparkSetting, timeout: float | None
) -> Iterator[SparkFits]:
    """Connect to the driver's application for a trial; what runs there after `timeout` s is cancelled.

    Parameters
    ----------
    view
        The name of the table, for sessions of the application.
    """
    session = connect_from_worker(endpoint)
    with interrupted_after(session, timeout):
        yield SparkFits(session.table(view), params, setting)


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
