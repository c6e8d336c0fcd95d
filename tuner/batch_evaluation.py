"""Evaluate a logged or registered model on a folder of labelled images: what `tuner evaluate` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as F
from rich.console import Console

from tuner.class_names import ClassNames
from tuner.errors import ImageSourceError, ModelError
from tuner.evaluation import Evaluation, evaluate
from tuner.featurizer import DeepImageFeaturizer
from tuner.images import read_images
from tuner.pages import plotly_js
from tuner.pipelines import PROBABILITY
from tuner.sessions import driver_session
from tuner.tracking import PLOTLY_FILE, QUARANTINE_FILE, open_tracking, parent_run
from tuner.trial import Scored, log_evaluation

_REASON = "_reason"


@dataclass(frozen=True)
class ModelEvaluation:
    """How a model does on a folder; `quarantine` has path, label and reason of images left out."""

    run_id: str
    evaluation: Evaluation
    quarantine: pd.DataFrame


def load_pipeline(model_uri: str) -> tuple[PipelineModel, Sequence[str]]:
    """Load a model that a search logged, with its class names in the order of their indices.

    Raises
    ------
    ModelError
        There is no such model, or another tool made it.
    """
    try:
        flavors = mlflow.models.get_model_info(model_uri).flavors
        pipeline = mlflow.spark.load_model(model_uri) if "spark" in flavors else None
    except (MlflowException, OSError) as error:
        raise ModelError(
            f"The model {model_uri} cannot be loaded: {str(error).splitlines()[0]} (give "
            "models:/<name>@<alias>, models:/<name>/<version> or runs:/<run id>/model)."
        ) from error
    if isinstance(pipeline, PipelineModel) and len(pipeline.stages) == 3:
        featurizer, _, names = pipeline.stages
        if isinstance(featurizer, DeepImageFeaturizer) and isinstance(names, ClassNames):
            featurizer.set(featurizer.errorCol, _REASON)
            return pipeline, names.getLabels()
    raise ModelError(f"The model {model_uri} was not made by a search of tuner: it has other stages.")


def evaluate_model(
    model_uri: str, images: str, *, master: str | None = None, console: Console | None = None
) -> ModelEvaluation:
    """Apply a model to labelled images, and log metrics, confusion matrix and predictions to a run.

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
        source = read_images(session.spark, images)
        pipeline, labels = load_pipeline(model_uri)
        unknown = sorted(set(source.labels) - set(labels))
        if unknown:
            raise ModelError(
                f"The images in {images} have the class {unknown[0]}, which the model {model_uri} does not "
                f"know: its classes are {', '.join(labels)}."
            )
        probability = F.when(F.col(_REASON).isNull(), vector_to_array(F.col(PROBABILITY))).alias(
            PROBABILITY
        )
        columns = ("path", "label", _REASON, probability)
        rows: pd.DataFrame = pipeline.transform(source.frame).select(*columns).toPandas()
        rows = rows.sort_values("path")
        bad, good = rows[rows[_REASON].notna()], rows[rows[_REASON].isna()]
        if good.empty:
            raise ImageSourceError(f"None of the {len(rows)} images in {images} can be used.")
        scored = Scored(
            path=list(good["path"]),
            label_index=good["label"].map({label: i for i, label in enumerate(labels)}).to_numpy(),
            probability=np.stack(list(good[PROBABILITY])),
        )
        evaluation = evaluate(scored.label_index, scored.probability, labels)
        quarantine = bad[["path", "label", _REASON]].rename(columns={_REASON: "reason"})
        run.batch(
            params={"model_uri": model_uri, "evaluated_images": images},
            metrics=dict(evaluation.metrics) | {"images": len(good), "quarantined": len(bad)},
        )
        run.text(quarantine.to_csv(index=False), QUARANTINE_FILE)
        run.text(plotly_js(), PLOTLY_FILE)
        log_evaluation(run, evaluation, scored, plotly_run=run.run_id)
    return ModelEvaluation(run.run_id, evaluation, quarantine.reset_index(drop=True))
