"""The winner of a search: chosen among trials, fitted again, tested once, registered. On the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.classifiers.parameters import TrialParams
from tuner.evaluation.metrics import Evaluation, evaluate
from tuner.experiment.schema import Experiment
from tuner.extraction.cache import FeatureCache
from tuner.extraction.preparation import PreparedImages
from tuner.extraction.tables import feature_table
from tuner.images.splits import TEST
from tuner.models.flavor import log_model
from tuner.models.pipeline import assemble, fit_classifier
from tuner.registry.promotion import place_version
from tuner.registry.versions import RegisteredVersion, describe_version, register_version
from tuner.reports.model_card import ModelFacts, model_card, short_card
from tuner.reports.search import log_winner
from tuner.spark.sessions import DriverSession
from tuner.tracking import names
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import RunLog
from tuner.tracking.store import Tracking
from tuner.trials.trial import score


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
    as good as it; of them the most regularised one is taken: the largest regParam, then the largest
    elasticNetParam, then the smallest maxIter.

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
    tables: Mapping[str, str],
    run: RunLog,
    store: Tracking,
    example: bytes,
    staging: Path,
) -> Winner:
    """Fit the best parameters on train + validation, test once, log to the search's run, register."""
    params = best.params
    network = prepared.networks[params.backbone]
    model = fit_classifier(session.spark.table(tables[params.backbone]), params)
    scored = score(model, feature_table(session, cache, network, prepared.rows(TEST)))
    test = evaluate(scored.label_index, scored.probability, prepared.labels)
    metric = experiment.search.metric
    log_winner(run, best, test, scored)
    info = log_model(
        run.run_id,
        assemble(network, model, prepared.labels),
        name=names.MODEL,
        staging=staging,
        example=example,
    )
    registered = register_version(
        store,
        info,
        name=experiment.model_name,
        tags={
            "backbone": params.backbone,
            names.DATA_DIGEST: prepared.digest,
            names.SEARCH_RUN: run.run_id,
            names.TRIAL_RUN: str(best.run_id),
            f"validation_{metric}": f"{best.metrics[metric]:.4f}",
            **{f"test_{name}": f"{value:.4f}" for name, value in test.metrics.items()},
        },
    )
    facts = _facts(experiment, prepared, best, test, str(registered.version))
    run.text(model_card(facts), names.MODEL_CARD_FILE)
    describe_version(store, registered, short_card(facts))
    sources = {experiment.images: (prepared.images, prepared.index)}
    version = place_version(session, store, run, registered, experiment, sources)
    return Winner(best.trial, str(best.run_id), best.name, params, best.metrics, test, version)


def _facts(
    experiment: Experiment, prepared: PreparedImages, best: TrialResult, test: Evaluation, version: str
) -> ModelFacts:
    metric, params = experiment.search.metric, best.params
    files = {spec.name: spec.file for spec in experiment.search.backbone}
    return ModelFacts(
        name=experiment.model_name,
        version=version,
        alias=experiment.registry.alias,
        images=experiment.images,
        data_digest=prepared.digest,
        split=prepared.index,
        network=params.backbone,
        own_network=files[params.backbone] is not None,
        params=params,
        validation=(metric, best.metrics[metric]),
        test=test,
    )
