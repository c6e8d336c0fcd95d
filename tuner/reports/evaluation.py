"""What one evaluation shows, logged to a run: metrics, confusion matrix, report, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from tuner.evaluation.metrics import Evaluation
from tuner.evaluation.predictions import Scored, predictions_table
from tuner.reports import charts
from tuner.reports.pages import light_figure_html, plotly_js
from tuner.tracking import names
from tuner.tracking.run_log import RunLog


def log_fit(run: RunLog, metrics: Mapping[str, float], history: Sequence[float]) -> None:
    """Log a trial's metrics, and the classifier's objective at each of its steps."""
    run.batch(metrics=metrics, histories={names.HISTORY: history})


def log_evaluation(run: RunLog, evaluation: Evaluation, scored: Scored, *, plotly_run: str) -> None:
    """Log what an evaluation shows beside its metrics: confusion matrix, report, predictions.

    `plotly_run` is the run that holds `names.PLOTLY_FILE`: figures load it from there, so that each of
    them is small.
    """
    labels = list(evaluation.labels)
    confusion = {"labels": labels, "matrix": evaluation.confusion.tolist()}
    run.json(confusion, names.CONFUSION_FILE)
    run.json(evaluation.report, names.REPORT_FILE)
    figure, image = charts.confusion_figure(evaluation), charts.confusion_image(evaluation)
    library = names.artifact_address(plotly_run, names.PLOTLY_FILE)
    run.text(light_figure_html(figure, image, library), names.CONFUSION_FIGURE)
    run.image(image, names.CONFUSION_IMAGE)
    run.table(predictions_table(scored, labels), names.PREDICTIONS_FILE)


def log_evaluated_model(
    run: RunLog,
    evaluation: Evaluation,
    scored: Scored,
    quarantine: pd.DataFrame,
    *,
    model_uri: str,
    images: str,
) -> None:
    """Log what a model is worth on other images: what was evaluated, and all that its evaluation shows.

    Parameters
    ----------
    quarantine
        The images left out: path, label, reason.
    model_uri, images
        What was evaluated, on what, as they were given.
    """
    run.batch(
        params={"model_uri": model_uri, "evaluated_images": images},
        metrics=dict(evaluation.metrics) | {"images": len(scored.path), "quarantined": len(quarantine)},
    )
    run.csv(quarantine, names.QUARANTINE_FILE)
    run.text(plotly_js(), names.PLOTLY_FILE)
    log_evaluation(run, evaluation, scored, plotly_run=run.run_id)
