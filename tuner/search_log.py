"""What a search logs to its run: the data it reads, and what all its trials show together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import mlflow
import pandas as pd
from hyperopt import STATUS_OK, SparkTrials
from mlflow.data.pandas_dataset import from_pandas

from tuner import charts, tracking
from tuner.errors import SearchError
from tuner.experiment import Experiment
from tuner.pages import figure_html, plotly_js
from tuner.preparation import PreparedImages, data_digest, weights_files
from tuner.splits import TEST, TRAIN, VALIDATION
from tuner.tracking import RunLog

_SETTINGS = ("algorithm", "max_evals", "parallelism", "seed", "metric", "select", "deterministic")


def log_data(run: RunLog, experiment: Experiment, prepared: PreparedImages) -> None:
    """Log what the search reads, before its first trial."""
    search = experiment.search
    space = {name: str(getattr(search, name)) for name in ("regParam", "elasticNetParam", "maxIter")}
    space["backbone"] = ",".join(prepared.backbones)
    run.json(dict(enumerate(prepared.labels)), tracking.LABELS_FILE)
    run.json(space, tracking.SPACE_FILE)
    run.parquet(prepared.index[["path", "label", "digest", "part"]], tracking.SPLIT_FILE)
    run.text(plotly_js(), tracking.PLOTLY_FILE)
    run.csv(prepared.quarantine, tracking.QUARANTINE_FILE)
    settings = {name: getattr(search, name) for name in _SETTINGS}
    settings |= {"images": experiment.images, "validation": experiment.split.validation}
    run.batch(
        # Prefixed: `mlflow run` logs its own parameters, by the bare names, as they were given.
        params={f"search.{name}": value for name, value in (space | settings).items()},
        metrics={"images": len(prepared.index), "quarantined": len(prepared.quarantine)},
        tags={
            tracking.DATA_DIGEST: prepared.digest,
            **{f"tuner.{name}_version": version(name) for name in ("pyspark", "tensorflow", "keras")},
        },
    )
    for part in (TRAIN, VALIDATION, TEST):
        _log_input(experiment, prepared, part)
    for file in weights_files(prepared):
        run.file(file, tracking.BACKBONES_FOLDER)


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


def scored_trials(trials: SparkTrials) -> list[Mapping[str, Any]]:
    """The results of the trials that came to a score."""
    return [doc["result"] for doc in trials.trials if doc["result"].get("status") == STATUS_OK]


def log_trials(run: RunLog, trials: SparkTrials, experiment: Experiment) -> pd.DataFrame:
    """Log what the trials show together; raise `SearchError` if none of them succeeded."""
    results = [doc["result"] for doc in trials.trials if "trial" in doc["result"]]
    if not scored_trials(trials):
        reasons: Sequence[str] = sorted({result["reason"] for result in results if "reason" in result})
        raise SearchError(
            f"None of the {len(results)} trials succeeded: "
            f"{'; '.join(reasons[:3]) or 'their workers died'} (see error.txt in the trials' runs)."
        )
    metric = experiment.search.metric
    frame = pd.DataFrame([_trial_row(result) for result in results]).sort_values("trial")
    run.table(charts.leaderboard(frame, metric), tracking.LEADERBOARD_FILE)
    figures = (charts.optimisation_history, charts.parallel_coordinates, charts.score_by_backbone)
    run.text(figure_html(*(figure(frame, metric) for figure in figures)), tracking.CHARTS_FILE)
    return frame


def _trial_row(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trial": result["trial"],
        "run_id": result.get("run_id"),
        **result["params"],
        "status": "FINISHED" if result["status"] == STATUS_OK else "FAILED",
        **result.get("metrics", {}),
        "seconds": result.get("seconds"),
    }
