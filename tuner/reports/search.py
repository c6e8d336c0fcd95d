"""What a search logs to its run: the data it reads, and what all its trials show together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import mlflow
import pandas as pd
from mlflow.data.pandas_dataset import from_pandas

from tuner.base.errors import SearchError
from tuner.classifiers.parameters import CLASS_WEIGHT, CLASSIFIER
from tuner.evaluation.metrics import Evaluation
from tuner.evaluation.predictions import Scored
from tuner.experiment.schema import Experiment
from tuner.images.splits import TEST, TRAIN, VALIDATION
from tuner.preparation.images import PreparedImages, data_digest, weights_files
from tuner.reports import charts
from tuner.reports.evaluation import log_evaluation
from tuner.reports.pages import figure_html, plotly_js
from tuner.tracking import names
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import RunLog

_SETTINGS = ("algorithm", "max_evals", "parallelism", "seed", "metric", "select", "deterministic")


def log_data(run: RunLog, experiment: Experiment, prepared: PreparedImages) -> None:
    """Log what the search reads, before its first trial."""
    search = experiment.search
    space = {name: str(values) for name, values in search.spaces.items()}
    space["backbone"] = ",".join(prepared.networks)
    if search.classifier is not None:
        space[CLASSIFIER] = ",".join(spec.name for spec in search.classifier)
    if len(search.class_weights) > 1:
        space[CLASS_WEIGHT] = search.class_weight
    log_prepared(run, prepared)
    run.json(space, names.SPACE_FILE)
    settings = {name: getattr(search, name) for name in _SETTINGS}
    settings |= {"images": experiment.images, "validation": experiment.split.validation}
    run.batch(
        # Prefixed: `mlflow run` logs its own parameters, by the bare names, as they were given.
        params={f"search.{name}": value for name, value in (space | settings).items()},
        metrics={"images": len(prepared.index), "quarantined": len(prepared.quarantine)},
        tags={
            names.DATA_DIGEST: prepared.digest,
            **{f"tuner.{name}_version": version(name) for name in ("pyspark", "tensorflow", "keras")},
        },
    )
    log_inputs(run, experiment, prepared)


def log_learning_data(run: RunLog, experiment: Experiment, prepared: PreparedImages) -> None:
    """Log what `tuner learn` reads, before it learns; of its settings, those that are set."""
    log_prepared(run, prepared)
    settings = experiment.to_yaml_dict()["learn"]
    settings["backbone"] = ",".join(prepared.networks)
    settings |= {"images": experiment.images, "validation": experiment.split.validation}
    run.batch(
        params={f"learn.{name}": value for name, value in settings.items()},
        metrics={"images": len(prepared.index), "quarantined": len(prepared.quarantine)},
        tags={
            names.DATA_DIGEST: prepared.digest,
            **{f"tuner.{name}_version": version(name) for name in ("river", "scikit-learn", "keras")},
        },
    )
    log_inputs(run, experiment, prepared)


def log_progress(run: RunLog, points: Sequence[tuple[int, int, int]], passes: Mapping[int, float]) -> None:
    """Log the figure of `tuner learn`.

    Parameters
    ----------
    points
        Of the first pass: images learned, predicted before, and right, all so far.
    passes
        Accuracy of the images that validate, by the images learned in all passes so far.
    """
    progress = pd.DataFrame(points, columns=["learned", "predicted", "right"])
    validation = pd.DataFrame(passes.items(), columns=["learned", "accuracy"])
    run.text(figure_html(charts.progress_curves(progress, validation)), names.PROGRESS_CURVES)


def log_inputs(run: RunLog, experiment: Experiment, prepared: PreparedImages) -> None:
    """Log the data sets of the parts, and the networks' files."""
    for part in (TRAIN, VALIDATION, TEST):
        _log_input(experiment, prepared, part)
    for file in weights_files(prepared):
        run.file(file, names.NETWORKS_FOLDER)


def log_prepared(run: RunLog, prepared: PreparedImages) -> None:
    """Log the classes, the split what was left out, and the script that draws charts."""
    run.json(dict(enumerate(prepared.labels)), names.LABELS_FILE)
    run.parquet(prepared.index[["path", "label", "digest", "part"]], names.SPLIT_FILE)
    run.text(plotly_js(), names.PLOTLY_FILE)
    run.csv(prepared.quarantine, names.QUARANTINE_FILE)


def _log_input(experiment: Experiment, prepared: PreparedImages, part: str) -> None:
    in_part = prepared.index["part"].str.replace(r"fold-\d+", TRAIN, regex=True) == part
    rows = prepared.index[in_part][["path", "label", "digest", "part"]]
    if rows.empty:  # folds take the place of one validation part
        return
    named = experiment.images.startswith(("builtin:", "table:"))  # no place that MLflow could open
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow's, that several of its classes take a path
        dataset = from_pandas(
            rows.reset_index(drop=True),
            source=None if named else experiment.images,  # type: ignore[arg-type]  # None: code
            targets="label",
            name=f"{experiment.name}-{part}",
            digest=data_digest(rows),
        )
    mlflow.log_input(dataset, context={TRAIN: "training"}.get(part, part))


def log_trials(
    run: RunLog, results: Sequence[TrialResult], metric: str, lost: Sequence[str] = ()
) -> pd.DataFrame:
    """Log what the trials show together; gives one row a trial.

    `lost` is what Spark said of trials that came to no result.

    Raises
    ------
    SearchError
        None of them succeeded.
    """
    if not any(result.finished for result in results):
        raise SearchError(_none_succeeded(results, lost))
    frame = pd.DataFrame([result.row() for result in results]).sort_values("trial")
    run.table(charts.leaderboard(frame, metric), names.LEADERBOARD_FILE)
    figures = [charts.optimisation_history(frame, metric)]
    if CLASSIFIER in frame:
        each = sorted(frame[CLASSIFIER].unique())
        figures += [charts.parallel_coordinates(frame, metric, classifier) for classifier in each]
        figures.append(charts.parameter_importance(frame, metric))
    else:
        figures.append(charts.parallel_coordinates(frame, metric))
    figures.append(charts.score_by_backbone(frame, metric))
    run.text(figure_html(*figures), names.CHARTS_FILE)
    return frame


def _none_succeeded(results: Sequence[TrialResult], lost: Sequence[str]) -> str:
    reasons = sorted({result.reason for result in results if result.reason})
    if not reasons:
        return f"None of the trials came to a result: {'; '.join(lost[:3]) or 'Spark does not say why'}."
    others = f"; others came to no result: {lost[0]}" if lost else ""
    return (
        f"None of the {len(results)} trials succeeded: {'; '.join(reasons[:3])} (see {names.ERROR_FILE} in "
        f"the trials' runs{others})."
    )


def log_winner(run: RunLog, best: TrialResult, test: Evaluation, scored: Scored, model_id: str) -> None:
    """Log the trial that won, and what its parameters are worth on the test part."""
    log_test(
        run,
        test,
        scored,
        model_id,
        params={f"best_{name}": value for name, value in best.params.to_dict().items()},
        metrics=best.metrics,
        tags={names.BEST: str(best.trial)},
    )


def log_test(
    run: RunLog,
    test: Evaluation,
    scored: Scored,
    model_id: str,
    *,
    metrics: Mapping[str, float],
    **written: Mapping[str, Any],
) -> None:
    """Log what a model is worth on the test part, beside other `metrics` and what is `written` too."""
    log_evaluation(
        run,
        test,
        scored,
        plotly_run=run.run_id,
        metrics=dict(metrics) | {f"test_{name}": value for name, value in test.metrics.items()},
        model_id=model_id,
        **written,
    )
    roc = charts.roc_figure(scored.label_index, scored.scores, test.labels)
    run.text(figure_html(charts.confusion_figure(test), roc), names.TEST_CHARTS_FILE)


def log_extraction(run: RunLog, prepared: PreparedImages, seconds: float) -> None:
    """Log what filling the feature cache came to."""
    run.csv(prepared.quarantine, names.QUARANTINE_FILE)
    run.batch(
        metrics={
            "images": len(prepared.index),
            "quarantined": len(prepared.quarantine),
            "extracted": prepared.extracted,
            "seconds": seconds,
        }
    )
