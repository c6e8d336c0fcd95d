"""Evaluate a logged or registered model on a folder of labelled images: what `tuner evaluate` does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as F
from rich.console import Console

from tuner.base.errors import ImageSourceError, ModelError
from tuner.checks.cluster import check_workers
from tuner.evaluation.metrics import Evaluation, evaluate
from tuner.evaluation.predictions import Scored
from tuner.images.sources import read_images
from tuner.models.pipeline import REASON, load_pipeline
from tuner.reports.evaluation import log_evaluated_model
from tuner.spark.sessions import driver_session
from tuner.tracking.runs import parent_run
from tuner.tracking.store import open_tracking


@dataclass(frozen=True)
class ModelEvaluation:
    """How a model does on labelled images.

    Attributes
    ----------
    run_id
        The MLflow run that holds what was logged.
    evaluation
        Metrics, confusion matrix and the figures of each class.
    quarantine
        The images left out: path, label and reason.
    """

    run_id: str
    evaluation: Evaluation
    quarantine: pd.DataFrame


def evaluate_model(
    model_uri: str, images: str, *, master: str | None = None, console: Console | None = None
) -> ModelEvaluation:
    """Apply a model to labelled images, and log metrics, confusion matrix and predictions to a run.

    Parameters
    ----------
    model_uri
        `models:/<name>@<alias>`, `models:/<name>/<version>` or `runs:/<run id>/model`.
    images
        Where they are, as an experiment's `images` says it.
    master
        A Spark master URL; None: this machine.
    console
        Where progress is shown; None: standard output.

    Returns
    -------
    ModelEvaluation
        Over the images that can be decoded.

    Raises
    ------
    InvalidInput
        The model or the images cannot be used, or the images have classes that the model does not know.
    """
    console = console or Console()
    store = open_tracking("evaluate")
    with (
        parent_run(store, f"evaluate {model_uri}", "evaluate") as run,
        driver_session("tuner evaluate", 1, master=master) as session,
    ):
        check_workers(session, images=images)
        source = read_images(session.spark, images, training=False)
        for note in source.notes:
            console.print(note, markup=False, soft_wrap=True)
        loaded = load_pipeline(model_uri)
        labels = loaded.labels
        unknown = sorted(set(source.labels) - set(labels))
        if unknown:
            raise ModelError(
                f"The images in {images} have the class {unknown[0]}, which the model {model_uri} does not "
                f"know: its classes are {', '.join(labels)}."
            )
        scores = F.when(F.col(REASON).isNull(), vector_to_array(F.col(loaded.scores))).alias(loaded.scores)
        columns = ("path", "label", REASON, scores)
        rows: pd.DataFrame = loaded.pipeline.transform(source.frame).select(*columns).toPandas()
        rows = rows.sort_values("path")
        bad, good = rows[rows[REASON].notna()], rows[rows[REASON].isna()]
        if good.empty:
            raise ImageSourceError(f"None of the {len(rows)} images in {images} can be used.")
        scored = Scored(
            path=list(good["path"]),
            label_index=good["label"].map({label: i for i, label in enumerate(labels)}).to_numpy(),
            scores=np.stack(list(good[loaded.scores])),
            gives=loaded.gives,
        )
        evaluation = evaluate(scored.label_index, scored.scores, labels, scored.gives)
        quarantine = bad[["path", "label", REASON]].rename(columns={REASON: "reason"})
        log_evaluated_model(run, evaluation, scored, quarantine, model_uri=model_uri, images=images)
    return ModelEvaluation(run.run_id, evaluation, quarantine.reset_index(drop=True))
