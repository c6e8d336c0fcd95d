"""The names of MLflow tags, metrics and artifacts that tuner writes, and reads back."""

from __future__ import annotations

from urllib.parse import urlencode

# Tags.
KIND = "tuner.kind"  # search, spot-check, trial, features, evaluate or promote
TRIAL = "tuner.trial"  # the trial's number within its search, from 1
BEST = "tuner.best_trial"
HEARTBEAT = "tuner.heartbeat"  # of a search: who is at work on it, and since when nothing was heard
EXPERIMENT = "tuner.experiment"  # the name in the experiment file
RESUMED = "tuner.resumed_run_id"  # on the run of `mlflow run`: the search that it went on with
OWN_RUN = (
    "tuner.run_id"  # on the run of `mlflow run`, where MLflow put that into Default: the run to look at
)
STOPPED = "tuner.stopped"  # when a run was asked to stop; `mlflow run` writes FAILED over its KILLED
DATA_DIGEST = "tuner.data_digest"
WARNINGS = "tuner.warnings"  # of a trial: what a library warned of while it fitted

# Tags of a model version: the search that made it, and its last moves (alias, from, to, at, why).
SEARCH_RUN = "tuner.search_run_id"
TRIAL_RUN = "tuner.trial_run_id"
PROMOTION = "tuner.promotion"
ROLLBACK = "tuner.rollback"

# Tags of a registered model: every move of its aliases, numbered; and who is about to make one.
MOVE = "tuner.move"
TURN = "tuner.turn"

# Artifacts of a search.
EXPERIMENT_FILE = "experiment.yaml"
LABELS_FILE = "labels.json"
SPACE_FILE = "search_space.json"
QUARANTINE_FILE = "quarantine.csv"
SPLIT_FILE = "split.parquet"  # path, label, digest and part of every image used
LEADERBOARD_FILE = "leaderboard.json"
SPOT_CHECK_FILE = "spot_check.json"
SPOT_CHECK_CHARTS = "charts/spot_check.html"
FINAL_REPORT_FILE = "final_report.json"
NETWORKS_FOLDER = "networks"
CHARTS_FILE = "charts/search.html"
TEST_CHARTS_FILE = "charts/test.html"
MODEL_CARD_FILE = "model_card.md"
COMPARISON_FILE = "comparison/report.md"
COMPARISON_DATA_FILE = "comparison/comparison.json"
DISAGREEMENTS_FILE = "comparison/disagreements.json"
PLOTLY_FILE = "charts/plotly.mjs"  # servers send .js as plain text, which browsers do not run

# Artifacts of a trial, and of the winner on the test part.
ERROR_FILE = "error.txt"
CONFUSION_IMAGE = "confusion_matrix"
CONFUSION_FILE = "confusion_matrix.json"
CONFUSION_FIGURE = "confusion_matrix.html"
CONFUSION_PICTURE = "confusion_matrix.png"
REPORT_FILE = "classification_report.json"
PREDICTIONS_FILE = "predictions.json"
PREDICTIONS_TABLE = "predictions.parquet"  # of many images
MODEL = "model"

HISTORY = "objectiveHistory"  # a trial's stepped metric
SOLVER_DIFFERENCE = (
    "solver_difference"  # of a search: how far the worker's fit of the winner is from MLlib's
)
ONNX_OTHER_CLASSES = "onnx_other_classes"  # of a search: images that get another class than by TensorFlow


def artifact_address(run_id: str, file: str) -> str:
    """Where a page in MLflow's artifact viewer finds an artifact of a run, from the server's root."""
    return f"get-artifact?{urlencode({'path': file, 'run_uuid': run_id})}"
