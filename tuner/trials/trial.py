"""One trial: what runs on a worker. Read features, fit, score on validation data, log."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pyspark.ml.classification import LogisticRegressionModel
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as F

from tuner.base.columns import LABEL_INDEX, PART, PATH, PREDICTION, PROBABILITY
from tuner.base.errors import TrialError
from tuner.base.wording import first_line
from tuner.classifiers.parameters import TrialParams
from tuner.evaluation.metrics import Evaluation, evaluate, summarize_folds
from tuner.evaluation.predictions import Scored
from tuner.images.splits import VALIDATION
from tuner.models.flavor import log_model
from tuner.models.pipeline import assemble, fit_classifier
from tuner.networks.resolution import Network
from tuner.reports.evaluation import log_evaluation, log_fit
from tuner.spark.sessions import Endpoint, connect_from_worker, interrupted_after
from tuner.tracking import names
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import RunLog
from tuner.tracking.runs import answers, trial_name, trial_run
from tuner.tracking.store import Tracking
from tuner.tracking.unsent import open_unsent
from tuner.trials.space import NUMBER

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_RIGHT = "right"  # a column: whether an image's class was predicted


def score(model: LogisticRegressionModel, table: DataFrame) -> Scored:
    """Apply a model to a table of features, and bring the probabilities here in one job."""
    columns = (PATH, LABEL_INDEX, vector_to_array(F.col(PROBABILITY)).alias(PROBABILITY))
    return _scored(model.transform(table).select(*columns).toPandas())


def _scored(frame: pd.DataFrame) -> Scored:
    return Scored(
        path=list(frame[PATH]),
        label_index=frame[LABEL_INDEX].to_numpy(),
        probability=np.stack(list(frame[PROBABILITY])),
    )


@dataclass(frozen=True)
class Fit:
    """One fit: the model, how it came about, and its scores on the rows it did not see."""

    model: LogisticRegressionModel
    seconds: float
    train_accuracy: float
    history: list[float]
    scored: Scored


def fit_and_score(table: DataFrame, held_back: str, params: TrialParams) -> Fit:
    """Fit on a table but for the part `held_back`, on the cluster, and score on that part."""
    started = time.monotonic()
    model = fit_classifier(table.where(F.col(PART) != held_back), params)
    seconds = time.monotonic() - started
    # One job for both parts; of the images that it was fitted on, nothing but right or wrong comes here.
    unseen = F.col(PART) == held_back
    probability = F.when(unseen, vector_to_array(F.col(PROBABILITY))).alias(PROBABILITY)
    right = (F.col(PREDICTION) == F.col(LABEL_INDEX)).alias(_RIGHT)
    path = F.when(unseen, F.col(PATH)).alias(PATH)
    frame: pd.DataFrame = model.transform(table).select(path, LABEL_INDEX, probability, right).toPandas()
    return Fit(
        model=model,
        seconds=seconds,
        train_accuracy=float(frame[_RIGHT][frame[PATH].isna()].mean()),
        history=list(model.summary.objectiveHistory),
        scored=_scored(frame[frame[PATH].notna()]),
    )


@dataclass(frozen=True)
class _Found:
    """What a trial found, before any of it is logged."""

    evaluation: Evaluation
    scored: Scored
    metrics: dict[str, float]
    history: list[float]
    model: LogisticRegressionModel


@dataclass(frozen=True)
class Trial:
    """The objective that SparkTrials sends to a worker and calls there with one point of the space.

    It never raises: a trial that fails leaves a FAILED run with its reason and tells hyperopt so, and
    the search goes on. It owns the child run from start to end; the driver only closes the runs of
    workers that died. Where the MLflow server is gone for good, what it found is kept on disk (`unsent`).

    Parameters
    ----------
    endpoint, tracking, parent_id
        Where MLlib and MLflow are, and the search's run.
    tables, networks
        By backbone name: the global temp view of its features (`path`, `label_index`, `part`,
        `features`), and the network itself.
    labels
        The class names; their positions are the label indices.
    folds
        Folds of cross-validation; 0: holdout.
    metric
        What trials are ranked by.
    staging
        A folder that the worker and Spark's executors both see.
    example
        The bytes of one image, for the models' input example.
    unsent
        A folder, seen by workers and driver, for trials that the MLflow server does not take.
    timeout
        Seconds that a trial may take; None: any.
    """

    endpoint: Endpoint
    tracking: Tracking
    parent_id: str
    tables: Mapping[str, str]
    networks: Mapping[str, Network]
    labels: Sequence[str]
    folds: int
    metric: str
    staging: Path
    example: bytes
    unsent: Path
    timeout: float | None = None

    def __call__(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Run one trial; gives its result as hyperopt keeps it."""
        number, params = int(point[NUMBER]), TrialParams.from_point(point)
        return self._result(number, params).to_document(self.metric)

    def _result(self, number: int, params: TrialParams) -> TrialResult:
        """Find, and log to MLflow or, where its server is gone, to a store on disk."""
        started = time.monotonic()
        result = TrialResult(number, params, trial_name(number, params.backbone))
        found = None
        try:
            with trial_run(self.tracking, self.parent_id, number, params.to_dict()) as run:
                result = replace(result, run_id=run.run_id)
                found = self._find(params)
                self._log(run, params.backbone, found)
        except Exception as error:
            if answers(self.tracking):
                return replace(result, reason=first_line(error))
            try:
                found = found or self._find(params)
                with trial_run(open_unsent(self.unsent), self.parent_id, number, params.to_dict()) as run:
                    result = replace(result, run_id=run.run_id, unsent=True)
                    self._log(run, params.backbone, found)
            except Exception as lost:
                return replace(result, reason=first_line(lost))
        return replace(result, metrics=found.metrics, seconds=time.monotonic() - started)

    def _find(self, params: TrialParams) -> _Found:
        session = connect_from_worker(self.endpoint)
        with interrupted_after(session, self.timeout):
            table = session.table(self.tables[params.backbone])
            if self.folds:
                evaluation, scored, fits, model = self._cross_validate(table, params)
            else:
                fit = fit_and_score(table, VALIDATION, params)
                scored, fits, model = fit.scored, [fit], fit.model
                evaluation = evaluate(scored.label_index, scored.probability, self.labels)
        metrics = self._checked(evaluation.metrics) | {
            "train_accuracy": float(np.mean([fit.train_accuracy for fit in fits])),
            "fit_seconds": sum(fit.seconds for fit in fits),
            "iterations": float(np.mean([len(fit.history) - 1 for fit in fits])),
        }
        return _Found(evaluation, scored, metrics, fits[-1].history, model)

    def _log(self, run: RunLog, backbone: str, found: _Found) -> None:
        log_fit(run, found.metrics, found.history)
        log_evaluation(run, found.evaluation, found.scored, plotly_run=self.parent_id)
        self._log_model(run, found.model, self.networks[backbone])

    def _cross_validate(
        self, table: DataFrame, params: TrialParams
    ) -> tuple[Evaluation, Scored, list[Fit], LogisticRegressionModel]:
        """Fit and score each fold, then fit the model to keep on all of them."""
        folds = [f"fold-{number}" for number in range(self.folds)]
        fits = [fit_and_score(table, fold, params) for fold in folds]
        pooled = Scored(
            path=[path for fit in fits for path in fit.scored.path],
            label_index=np.concatenate([fit.scored.label_index for fit in fits]),
            probability=np.concatenate([fit.scored.probability for fit in fits]),
        )
        per_fold = [evaluate(fit.scored.label_index, fit.scored.probability, self.labels) for fit in fits]
        evaluation = summarize_folds(per_fold, pooled.label_index, pooled.probability)
        return evaluation, pooled, fits, fit_classifier(table, params)

    def _checked(self, metrics: Mapping[str, float]) -> dict[str, float]:
        value = metrics.get(self.metric, math.nan)
        if not math.isfinite(value):
            raise TrialError(
                f"The metric {self.metric} is not defined on the validation data: rank by another one, or "
                "hold back more images."
            )
        return dict(metrics)

    def _log_model(self, run: RunLog, model: LogisticRegressionModel, network: Network) -> None:
        """Log the whole pipeline; the network by its digest, for the search stores its weights once."""
        uri = f"runs:/{self.parent_id}/{names.NETWORKS_FOLDER}/{Path(network.file).name}"
        pipeline = assemble(network, model, self.labels, embedWeights=False, modelUri=uri)
        log_model(run.run_id, pipeline, name=names.MODEL, staging=self.staging, example=self.example)
