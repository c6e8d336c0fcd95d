"""The winner of a search: chosen among trials, fitted again, tested once, registered. On the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from mlflow.entities import LoggedModel
from rich.console import Console

from tuner.classifiers.heads.files import Head
from tuner.classifiers.heads.steps import step_and_head
from tuner.classifiers.linear import LinearHead
from tuner.classifiers.parameters import TrialParams, described
from tuner.classifiers.rows.row import PCA
from tuner.classifiers.table import DEFAULT
from tuner.evaluation.metrics import Evaluation, evaluate
from tuner.evaluation.predictions import Scored
from tuner.experiment.schema import Experiment
from tuner.extraction.cache import FeatureCache
from tuner.images.splits import TEST
from tuner.models.fitted.estimators import classifier_params
from tuner.models.flavor import FittedModel, log_model
from tuner.networks.resolution import Network
from tuner.preparation.images import PreparedImages
from tuner.preparation.tables import feature_table
from tuner.registry.promotion import place_version
from tuner.registry.versions import RegisteredVersion, describe_version, register_version
from tuner.reports.markdown import markdown_text
from tuner.reports.model_card import ModelFacts, model_card, short_card
from tuner.reports.search import log_winner
from tuner.searches.winners_onnx import winners_onnx
from tuner.spark.sessions import DriverSession
from tuner.storage.mirror import brought_here
from tuner.tracking import names
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import RunLog
from tuner.tracking.store import Tracking
from tuner.trials.fits import Fitted
from tuner.trials.spark_fit import SparkFits
from tuner.trials.trial import Trial

_SAME_FIT = 1e-6  # of the largest coefficient: more is said


@dataclass(frozen=True)
class Winner:
    """The trial that won, and what became of it."""

    trial: int
    run_id: str
    name: str
    params: TrialParams
    metrics: Mapping[str, float]
    test: Evaluation
    version: RegisteredVersion


def choose(results: Sequence[TrialResult], experiment: Experiment) -> TrialResult:
    """Choose the best trial or, by the one-standard-error rule, the simplest of those near it.

    With `one-standard-error`, all trials within one standard error (over the folds) of the best are
    as good as it; of them the simplest is taken, as the table of classifiers says what is simpler: of
    logistic regression the largest regParam, then the largest elasticNetParam, then the smallest maxIter.

    References
    ----------
    Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, section 7.10.1.
    """
    metric = experiment.search.metric
    best = min(results, key=lambda result: (result.loss(metric), result.trial))
    if experiment.search.select == "best":
        return best
    limit = best.loss(metric) + best.metrics[f"{metric}_std_error"]
    near = [result for result in results if result.loss(metric) <= limit]

    return min(near, key=lambda result: (*result.params.simplicity(), result.trial))


def finish_winner(
    session: DriverSession,
    experiment: Experiment,
    cache: FeatureCache,
    prepared: PreparedImages,
    best: TrialResult,
    *,
    trial: Trial,
    run: RunLog,
    store: Tracking,
    console: Console,
) -> Winner:
    """Fit the best parameters on train + validation, test once, log to the search's run, register.

    MLlib fits its own. Where trials of logistic regression fitted in workers, the worker's way fits the
    same rows, too, and how far it differs from MLlib is logged and, if it is worth a word, said; what is
    registered is MLlib's.
    """
    params, weight = best.params, experiment.search.class_weight_of_all
    network = prepared.networks[params.backbone]
    features = partial(cache.load, network)
    with winners_onnx(
        cache.networks, prepared, network, features, files=trial.model_files, run=run, console=console
    ) as as_onnx:
        fitted = _fit(session, cache, prepared, params, trial)
        onnx = as_onnx(fitted.head)
    if params.row.name == DEFAULT and trial.fits_inside(params):
        other = trial.fits_in_worker(params, threads=session.cores).fit_all().head
        difference = solver_difference(fitted.head, other)
        run.batch(metrics={names.SOLVER_DIFFERENCE: difference})
        if difference > _SAME_FIT:
            console.print(
                f"MLlib's fit of the winner differs from the worker's: a coefficient by {difference:.2g} "
                "of the largest. MLlib's is registered.",
                soft_wrap=True,
            )
    scored = _test(fitted.head, cache, prepared, network)
    test = evaluate(scored.label_index, scored.scores, prepared.labels, scored.gives)
    given = classifier_params(params, weight)
    model = FittedModel(network, fitted.head, given, prepared.labels, saved=fitted.saved, onnx=onnx)
    logged = log_model(run, model, name=names.MODEL, files=brought_here(trial.model_files))
    log_winner(run, best, test, scored, logged.model_id)
    metric = experiment.search.metric
    tags = {
        "backbone": params.backbone,
        **({"classifier": params.classifier} if params.classifier else {}),
        names.TRIAL_RUN: str(best.run_id),
        f"validation_{metric}": f"{best.metrics[metric]:.4f}",
    }
    facts = facts_of(experiment, prepared, best, test)
    version = register_winner(session, store, run, experiment, prepared, logged, facts, tags)
    return Winner(best.trial, str(best.run_id), best.name, params, best.metrics, test, version)


def register_winner(
    session: DriverSession,
    store: Tracking,
    run: RunLog,
    experiment: Experiment,
    prepared: PreparedImages,
    logged: LoggedModel,
    facts: ModelFacts,
    tags: Mapping[str, str],
) -> RegisteredVersion:
    """Register a model that was tested, with its card, and give it its place.

    Parameters
    ----------
    logged
        The model with its two faces.
    facts
        What its card tells; of a version that is not there yet.
    tags
        Of the version, beside those that tell its run, its images and its test.
    """
    told = {
        names.DATA_DIGEST: prepared.digest,
        names.SEARCH_RUN: run.run_id,
        **{f"test_{name}": f"{value:.4f}" for name, value in facts.test.metrics.items()},
    }
    registered = register_version(store, logged, name=experiment.model_name, tags={**tags, **told})
    facts = replace(facts, version=str(registered.version))
    run.text(model_card(facts), names.MODEL_CARD_FILE)
    describe_version(store, registered, short_card(facts))
    sources = {experiment.images: (prepared.images, prepared.index)}
    return place_version(session, store, run, registered, experiment, sources)


def _fit(
    session: DriverSession, cache: FeatureCache, prepared: PreparedImages, params: TrialParams, trial: Trial
) -> Fitted:
    """Fit on all rows but the test part: MLlib's classifiers by MLlib, others in this process."""
    if params.row.library != "mllib":
        return trial.fits_in_worker(params, threads=session.cores).fit_all()
    if trial.fits_inside(params):
        rows = prepared.index[prepared.index["part"] != TEST]
        network = prepared.networks[params.backbone]
        table = feature_table(session, cache, network, rows, classes=len(prepared.labels))
    else:
        table = session.spark.table(trial.tables[params.backbone])
    return SparkFits(table, params, trial.spark_setting).fit_all()


def solver_difference(one: Head, other: Head) -> float:
    """The largest difference of two fits' coefficients, as a share of the largest coefficient.

    They are logistic regressions of MLlib's. With a step before them, coefficients are those of what
    features become by it; of PCA, those of features, for its components have no sign that is theirs.
    """
    ours, theirs = _coefficients(one), _coefficients(other)
    largest = float(np.abs(ours).max(initial=0.0))
    difference = float(np.abs(ours - theirs).max(initial=0.0))
    return difference / largest if largest else difference


def _coefficients(fitted: Head) -> np.ndarray:
    step, head = step_and_head(fitted)
    assert isinstance(head, LinearHead)
    if step is None or step.name != PCA:
        return head.coefficients
    return step.folded(head.coefficients.T, head.intercepts)[0]


def _test(head: Head, cache: FeatureCache, prepared: PreparedImages, network: Network) -> Scored:
    """Score the test part; its features are read here, and nowhere else."""
    rows = prepared.rows(TEST).sort_values("path")
    features = cache.load(network, list(rows["digest"]))
    return Scored(list(rows["path"]), rows["label_index"].to_numpy(), head.score(features), head.gives)


def facts_of(
    experiment: Experiment, prepared: PreparedImages, best: TrialResult, test: Evaluation
) -> ModelFacts:
    """What the card of a model tells that was fitted as a trial was."""
    metric, params = experiment.search.metric, best.params
    named = {} if params.classifier is None else {"classifier": params.classifier}
    named |= {} if params.class_weight is None else {"class_weight": params.class_weight}
    files = {spec.name: spec.file for spec in experiment.search.backbone}
    return ModelFacts(
        name=experiment.model_name,
        version="",
        alias=experiment.registry.alias,
        images=experiment.images,
        data_digest=prepared.digest,
        split=prepared.index,
        network=params.backbone,
        own_network=files[params.backbone] is not None,
        kind=f"{params.row.title} on the features of {markdown_text(params.backbone)}",
        gives=params.row.gives,
        chosen=described(params.values | named),
        validation=(metric, best.metrics[metric]),
        test=test,
    )
