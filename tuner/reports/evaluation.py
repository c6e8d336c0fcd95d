"""What one evaluation shows, logged to a run: metrics, confusion matrix, report, predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tuner.evaluation.metrics import Evaluation
from tuner.evaluation.predictions import Scored, predictions_table
from tuner.reports import charts
from tuner.reports.confusion_image import confusion_image
from tuner.reports.pages import light_figure_html, plotly_js
from tuner.tracking import names
from tuner.tracking.run_log import RunLog, table_json

_MANY_CLASSES = 60  # more: no page of their matrix, whose cells nobody could tell apart
_MANY_IMAGES = 10_000  # more: their predictions are Parquet, which a browser need not load whole


def log_evaluation(
    run: RunLog, evaluation: Evaluation, scored: Scored, *, plotly_run: str, **written: Any
) -> None:
    """Log what an evaluation shows: confusion matrix, report, predictions; with them, what is `written`.

    Of many classes the matrix is a picture, and a table of its cells that are not 0; of many images the
    predictions are Parquet.

    Parameters
    ----------
    plotly_run
        The run that holds `names.PLOTLY_FILE`: figures load it from there, so that each of them is small.
    written
        Parameters, metrics and so on, as `RunLog.batch` takes them: all of it is one request.
    """
    labels = list(evaluation.labels)
    image = confusion_image(evaluation)
    predictions = predictions_table(scored, labels)
    few_rows = len(predictions) <= _MANY_IMAGES
    with run.folder() as folder:
        image.save(folder / names.CONFUSION_PICTURE)
        _write_json(folder / names.REPORT_FILE, evaluation.report)
        _write_json(folder / names.CONFUSION_FILE, _confusion_data(evaluation))
        if len(labels) <= _MANY_CLASSES:
            page = light_figure_html(
                charts.confusion_figure(evaluation),
                names.CONFUSION_PICTURE,
                library=names.artifact_address(plotly_run, names.PLOTLY_FILE),
                picture=names.artifact_address(run.run_id, names.CONFUSION_PICTURE),
            )
            (folder / names.CONFUSION_FIGURE).write_text(page, encoding="utf-8")
        if few_rows:
            text = table_json(predictions)
            (folder / names.PREDICTIONS_FILE).write_text(text, encoding="utf-8")
        else:
            predictions.to_parquet(folder / names.PREDICTIONS_TABLE, index=False)
    tags = dict(written.pop("tags", {})) | (run.tables_tag(names.PREDICTIONS_FILE) if few_rows else {})
    run.batch(tags=tags, **written)
    run.image(image, names.CONFUSION_IMAGE)


def _confusion_data(evaluation: Evaluation) -> dict[str, object]:
    """The matrix as it is or, of many classes, the cells that are not 0: row, column, count."""
    labels, matrix = list(evaluation.labels), evaluation.confusion
    if len(labels) <= _MANY_CLASSES:
        return {"labels": labels, "matrix": matrix.tolist()}
    rows, columns = np.nonzero(matrix)
    cells = np.column_stack([rows, columns, matrix[rows, columns]])
    return {"labels": labels, "cells": cells.tolist()}


def _write_json(file: Path, data: object) -> None:
    file.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


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
    run.csv(quarantine, names.QUARANTINE_FILE)
    run.text(plotly_js(), names.PLOTLY_FILE)
    counts = {"images": len(scored.path), "quarantined": len(quarantine)}
    log_evaluation(
        run,
        evaluation,
        scored,
        plotly_run=run.run_id,
        params={"model_uri": model_uri, "evaluated_images": images},
        metrics=evaluation.metrics | counts,
    )
