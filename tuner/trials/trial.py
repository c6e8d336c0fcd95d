"""One trial: what runs on a worker. Read features, fit, score on validation data, log."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import LoggedModel

from tuner.base.choices import ClassWeight
from tuner.base.errors import TrialError
from tuner.base.wording import first_line
from tuner.classifiers.parameters import TrialParams
from tuner.evaluation.metrics import Evaluation, evaluate, summarize_folds
from tuner.evaluation.predictions import Scored
from tuner.images.splits import VALIDATION
from tuner.models.fitted.estimators import classifier_params
from tuner.models.flavor import FittedModel, log_model
from tuner.networks.resolution import Network
from tuner.preparation.matrices import FeatureMatrices
from tuner.reports.evaluation import log_evaluation
from tuner.spark.endpoint import Endpoint
from tuner.storage.mirror import brought_here
from tuner.tracking import names
from tuner.tracking.answering import REFUSALS
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import RunLog
from tuner.tracking.runs import answers, trial_name, trial_run
from tuner.tracking.store import Tracking
from tuner.tracking.unsent_trials import open_unsent
from tuner.trials.fits import Fit, Fits, Fitted
from tuner.trials.space import NUMBER
from tuner.trials.spark_fit import SparkSetting, spark_fits
from tuner.trials.worker_fit import WorkerFits, given_up_after

_ATTEMPTS = 2  # at logging what was found
_LONGEST_TAG = 1_000


@dataclass(frozen=True)
class _Found:
    """What a trial found, before any of it is logged."""

    params: TrialParams
    evaluation: Evaluation
    scored: Scored
    metrics: dict[str, float]
    history: list[float]
    warnings: tuple[str, ...]
    fitted: Fitted | None


@dataclass(frozen=True)
class Trial:
    """The objective that SparkTrials sends to a worker and calls there with one point of the space.

    It never raises: a trial that fails leaves a FAILED run with its reason and tells hyperopt so, and
    the search goes on. It owns the child run from start to end; the driver only closes the runs of
    workers that died. Where the MLflow server is gone for good, what it found is kept on disk (`unsent`).

    Parameters
    ----------
    tracking, parent_id
        Where MLflow is, and the search's run.
    on_spark
        The classifiers that are fitted on the cluster; all others are in the worker.
    matrices
        Where the features are, for fits in the worker; None where there are none.
    tables, endpoint
        For fits on the cluster: by backbone name, the global temp view of its features (`path`,
        `label_index`, `part`, `features`), and where Spark Connect is.
    networks
        The networks by backbone name.
    labels
        The class names; their positions are the label indices.
    folds
        Folds of cross-validation; 0: holdout.
    metric, class_weight
        What trials are ranked by, and whether rare classes weigh more.
    seed
        `search.seed`, for classifiers that have a part of chance.
    model_files
        Where the driver wrote what all models share (`tuner.models.flavor.write_model_files`).
    saved
        The folder to which MLlib saves models that are fitted on the cluster, as `SparkSetting` has it.
    unsent
        A folder, seen by workers and driver, for trials that the MLflow server does not take.
    threads, at_once
        For the products of matrices, and how many trials run at once.
    timeout
        Seconds that a trial may take; None: any.
    keeps_model
        Whether the model is logged, too; a spot-check asks for scores alone.
    """

    tracking: Tracking
    parent_id: str
    networks: Mapping[str, Network]
    labels: Sequence[str]
    folds: int
    metric: str
    model_files: Path
    saved: Path | str
    unsent: Path
    on_spark: frozenset[str] = frozenset()
    matrices: FeatureMatrices | None = None
    tables: Mapping[str, str] = field(default_factory=dict)
    endpoint: Endpoint | None = None
    class_weight: ClassWeight = "none"
    seed: int = 0
    threads: int = 1
    at_once: int = 1
    timeout: float | None = None
    keeps_model: bool = True

    def __call__(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Run one trial; gives its result as hyperopt keeps it."""
        number, params = int(point[NUMBER]), TrialParams.from_point(point)
        return self._result(number, params).to_document(self.metric)

    def _result(self, number: int, params: TrialParams) -> TrialResult:
        """Find, and log to MLflow or, where its server is gone, to a store on disk."""
        started = time.monotonic()
        result = TrialResult(number, params, trial_name(number, params.backbone))
        found = None
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with trial_run(self.tracking, self.parent_id, number, params.to_dict()) as run:
                    result = replace(result, run_id=run.run_id)
                    found = found or self._find(params)
                    self._log(run, found)
                return replace(result, metrics=found.metrics, seconds=time.monotonic() - started)
            except Exception as error:
                if not answers(self.tracking):
                    break
                # A store that was away for a moment, in the midst of a request, is there to log to again.
                if found is None or not isinstance(error, REFUSALS) or attempt == _ATTEMPTS:
                    return replace(result, reason=first_line(error))
        try:
            found = found or self._find(params)
            with trial_run(open_unsent(self.unsent), self.parent_id, number, params.to_dict()) as run:
                result = replace(result, run_id=run.run_id, unsent=True)
                self._log(run, found)
        except Exception as lost:
            return replace(result, reason=first_line(lost))
        return replace(result, metrics=found.metrics, seconds=time.monotonic() - started)

    def _find(self, params: TrialParams) -> _Found:
        with self._fits(params) as fits:
            if self.folds:
                evaluation, scored, made, fitted = self._cross_validate(fits)
            else:
                fit = fits.fit_and_score(VALIDATION)
                scored, made, fitted = fit.scored, [fit], fit.fitted() if self.keeps_model else None
                evaluation = evaluate(scored.label_index, scored.scores, self.labels, scored.gives)
        metrics = self._checked(evaluation.metrics) | {
            "train_accuracy": float(np.mean([fit.train_accuracy for fit in made])),
            "fit_seconds": sum(fit.seconds for fit in made),
        }
        if all(fit.history for fit in made):
            metrics["iterations"] = float(np.mean([len(fit.history) - 1 for fit in made]))
        warnings = tuple(dict.fromkeys(text for fit in made for text in fit.warnings))
        return _Found(params, evaluation, scored, metrics, made[-1].history, warnings, fitted)

    def _fits(self, params: TrialParams) -> AbstractContextManager[Fits]:
        if self.fits_inside(params):
            return given_up_after(self.timeout, self.fits_in_worker(params, self.threads))
        assert self.endpoint is not None
        view = self.tables[params.backbone]
        return spark_fits(self.endpoint, view, params, self.spark_setting, self.timeout)

    def fits_inside(self, params: TrialParams) -> bool:
        """Whether a trial fits in the worker."""
        return params.row.name not in self.on_spark

    def fits_in_worker(self, params: TrialParams, threads: int) -> WorkerFits:
        """The fits that this process makes for some parameters."""
        assert self.matrices is not None
        classes = len(self.labels)
        return WorkerFits(
            self.matrices, params, classes, self.class_weight, threads, self.at_once, self.seed
        )

    @property
    def spark_setting(self) -> SparkSetting:
        """What fits by MLlib need."""
        widths = {name: network.width for name, network in self.networks.items()}
        return SparkSetting(len(self.labels), widths, self.class_weight, self.seed, self.saved)

    def _log(self, run: RunLog, found: _Found) -> None:
        logged = None if found.fitted is None else self._log_model(run, found.params, found.fitted)
        log_evaluation(
            run,
            found.evaluation,
            found.scored,
            plotly_run=self.parent_id,
            metrics=found.metrics,
            histories={names.HISTORY: found.history} if found.history else {},
            tags={names.WARNINGS: "; ".join(found.warnings)[:_LONGEST_TAG]} if found.warnings else {},
            model_id=None if logged is None else logged.model_id,
        )

    def _log_model(self, run: RunLog, params: TrialParams, fitted: Fitted) -> LoggedModel:
        network = self.networks[params.backbone]
        # The network by its digest: the search stores its file once.
        model = FittedModel(
            network=network,
            head=fitted.head,
            params=classifier_params(params, self.class_weight),
            labels=self.labels,
            uri=f"runs:/{self.parent_id}/{names.NETWORKS_FOLDER}/{Path(network.file).name}",
            saved=fitted.saved,
        )
        return log_model(run, model, name=names.MODEL, files=brought_here(self.model_files))

    def _cross_validate(self, fits: Fits) -> tuple[Evaluation, Scored, list[Fit], Fitted | None]:
        """Fit and score each fold, then fit the model to keep on all of them."""
        made = [fits.fit_and_score(f"fold-{number}") for number in range(self.folds)]
        pooled = Scored(
            path=[path for fit in made for path in fit.scored.path],
            label_index=np.concatenate([fit.scored.label_index for fit in made]),
            scores=np.concatenate([fit.scored.scores for fit in made]),
            gives=made[0].scored.gives,
        )
        per_fold = [
            evaluate(fit.scored.label_index, fit.scored.scores, self.labels, pooled.gives) for fit in made
        ]
        evaluation = summarize_folds(per_fold, pooled.label_index, pooled.scores, pooled.gives)
        return evaluation, pooled, made, fits.fit_all() if self.keeps_model else None

    def _checked(self, metrics: Mapping[str, float]) -> dict[str, float]:
        value = metrics.get(self.metric, math.nan)
        if not math.isfinite(value):
            raise TrialError(
                f"The metric {self.metric} is not defined on the validation data: rank by another one, or "
                "hold back more images."
            )
        return dict(metrics)
