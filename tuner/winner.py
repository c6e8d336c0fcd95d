"""The winner of a search: chosen among trials, fitted again, tested once, registered. On the driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner import charts, tracking
from tuner.evaluation import Evaluation, evaluate
from tuner.experiment import Experiment
from tuner.feature_cache import FeatureCache
from tuner.feature_tables import feature_table
from tuner.flavor import log_model
from tuner.model_card import ModelFacts, model_card, short_card
from tuner.pages import figure_html
from tuner.pipelines import assemble, fit_classifier
from tuner.preparation import PreparedImages
from tuner.promotion import place_version
from tuner.registry import RegisteredVersion, describe_version, register_version
from tuner.search_space import TrialParams
from tuner.sessions import DriverSession
from tuner.splits import TEST
from tuner.tracking import RunLog, Tracking
from tuner.trial import log_evaluation, score

Result = Mapping[str, Any]  # what a `Trial` gave back


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


def choose(results: Sequence[Result], experiment: Experiment) -> Result:
    """Choose the best trial or, by the one-standard-error rule, the simplest of those near it.

    With `one-standard-error`, all trials within one standard error (over the folds) of the best are
    as good as it; of them the most regularised one is taken: the largest regParam, then the largest
    elasticNetParam, then the smallest maxIter.

    References
    ----------
    Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, section 7.10.1.
    """
    metric = experiment.search.metric
    best = min(results, key=lambda result: (result["loss"], result["trial"]))
    if experiment.search.select == "best":
        return best
    limit = best["loss"] + best["metrics"][f"{metric}_std_error"]
    near = [result for result in results if result["loss"] <= limit]

    def complexity(result: Result) -> tuple[float, float, int, int]:
        params = result["params"]
        return -params["regParam"], -params["elasticNetParam"], params["maxIter"], result["trial"]

    return min(near, key=complexity)


def finish_winner(
    session: DriverSession,
    experiment: Experiment,
    cache: FeatureCache,
    prepared: PreparedImages,
    best: Result,
    *,
    tables: Mapping[str, str],
    run: RunLog,
    store: Tracking,
    example: bytes,
    staging: Path,
) -> Winner:
    """Fit the best parameters on train + validation, test once, log to the search's run, register."""
    params = TrialParams(**best["params"])
    backbone = prepared.backbones[params.backbone]
    model = fit_classifier(session.spark.table(tables[params.backbone]), params)
    scored = score(model, feature_table(session, cache, backbone, prepared.rows(TEST)))
    test = evaluate(scored.label_index, scored.probability, prepared.labels)
    metric = experiment.search.metric
    run.batch(
        params={f"best_{name}": value for name, value in params.to_dict().items()},
        metrics=dict(best["metrics"]) | {f"test_{name}": value for name, value in test.metrics.items()},
        tags={tracking.BEST: str(best["trial"])},
    )
    log_evaluation(run, test, scored, plotly_run=run.run_id)
    roc = charts.roc_figure(scored.label_index, scored.probability, prepared.labels)
    run.text(figure_html(charts.confusion_figure(test), roc), tracking.TEST_CHARTS_FILE)
    info = log_model(
        run.run_id,
        assemble(backbone, model, prepared.labels),
        name=tracking.MODEL,
        staging=staging,
        example=example,
    )
    registered = register_version(
        store,
        info,
        name=experiment.model_name,
        tags={
            "backbone": params.backbone,
            tracking.DATA_DIGEST: prepared.digest,
            tracking.SEARCH_RUN: run.run_id,
            tracking.TRIAL_RUN: best["run_id"],
            f"validation_{metric}": f"{best['metrics'][metric]:.4f}",
            **{f"test_{name}": f"{value:.4f}" for name, value in test.metrics.items()},
        },
    )
    facts = _facts(experiment, prepared, best, test, str(registered.version))
    run.text(model_card(facts), tracking.MODEL_CARD_FILE)
    describe_version(store, registered, short_card(facts))
    sources = {experiment.images: (prepared.images, prepared.index)}
    version = place_version(session, store, run, registered, experiment, sources)
    return Winner(best["trial"], best["run_id"], best["name"], params, best["metrics"], test, version)


def _facts(
    experiment: Experiment, prepared: PreparedImages, best: Result, test: Evaluation, version: str
) -> ModelFacts:
    metric, params = experiment.search.metric, TrialParams(**best["params"])
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
        validation=(metric, best["metrics"][metric]),
        test=test,
    )
