"""The names of MLflow tags, metrics and artifacts that tuner writes, and reads back.

The comments, above a group and beside a name, are the documentation's reference (`scripts/reference.py`).
"""

from __future__ import annotations

from urllib.parse import urlencode

# Tags of runs.
KIND = "tuner.kind"  # search, spot-check, fine-tune, learn, trial, features, evaluate or promote
TRIAL = "tuner.trial"  # the trial's number within its search, from 1
BEST = "tuner.best_trial"  # of a search: the number of the trial that won
HEARTBEAT = "tuner.heartbeat"  # of a search and the like: who is at work on it, and when that was heard
EXPERIMENT = "tuner.experiment"  # the name in the experiment file
RESUMED = "tuner.resumed_run_id"  # on the run of `mlflow run`: the search that it went on with
OWN_RUN = (
    "tuner.run_id"  # on the run of `mlflow run`, where MLflow put that into Default: the run to look at
)
STOPPED = "tuner.stopped"  # when a run was asked to stop; `mlflow run` writes FAILED over its KILLED
LEARNED = "tuner.learned"  # of a run of `tuner learn` that keeps what it learned: of how many images
LEARNED_BEFORE = "tuner.learned_before"  # and the run that it went on with
DATA_DIGEST = "tuner.data_digest"  # of the images used and their labels; on model versions, too
HALVED = "tuner.halved"  # of a trial of a fine-tuning: why it was not trained any further
WARNINGS = "tuner.warnings"  # of a trial: what a library warned of while it fitted

# Tags of a model version.
SEARCH_RUN = "tuner.search_run_id"  # the search that made it
TRIAL_RUN = "tuner.trial_run_id"  # the trial that won
PROMOTION = "tuner.promotion"  # the beginning of .from, .to, .at, .why, .by, .run: its last promotion
ROLLBACK = "tuner.rollback"  # the same of its last rollback

# Tags of a registered model.
MOVE = "tuner.move"  # the beginning of .0001 and so on: each move of an alias, as JSON
TURN = "tuner.turn"  # who is about to move an alias

# Artifacts of a search, and of other commands.
EXPERIMENT_FILE = "experiment.yaml"  # the experiment, with all defaults and options
LABELS_FILE = "labels.json"  # the class name of each label index
SPACE_FILE = "search_space.json"  # what trials are drawn from
QUARANTINE_FILE = "quarantine.csv"  # the images left out: path, label, reason
SPLIT_FILE = "split.parquet"  # path, label, digest and part of every image used
LEADERBOARD_FILE = "leaderboard.json"  # all trials, the best first
SPOT_CHECK_FILE = "spot_check.json"  # of a spot-check: the ranked table
SPOT_CHECK_CHARTS = "charts/spot_check.html"  # the heat map of networks × classifiers
FINAL_REPORT_FILE = "final_report.json"  # of a spot-check: accuracy by features and classifier
LEARNER_FOLDER = "learner"  # of `tuner learn`: what it takes to go on; numbers, images, how far it came
NETWORKS_FOLDER = "networks"  # the files of networks that trials' models share
CHARTS_FILE = "charts/search.html"  # the course of the search, its parameters, scores by network
LEARNING_CURVES = "charts/training.html"  # of a fine-tuning: what each epoch showed
PROGRESS_CURVES = "charts/learning.html"  # of `tuner learn`: accuracy by the images that were learned
TEST_CHARTS_FILE = "charts/test.html"  # the winner on the test part: confusion matrix, ROC curves
MODEL_CARD_FILE = "model_card.md"  # what the winner was made of, how good it is, how to call it
COMPARISON_FILE = "comparison/report.md"  # champion and challenger, for a reader
COMPARISON_DATA_FILE = "comparison/comparison.json"  # the same figures, for programs
DISAGREEMENTS_FILE = "comparison/disagreements.json"  # the images that they disagree on
PLOTLY_FILE = "charts/plotly.mjs"  # what draws the charts; not .js, which servers send as plain text

# Artifacts of a trial, and of the winner on the test part.
ERROR_FILE = "error.txt"  # why a run failed
CONFUSION_IMAGE = "confusion_matrix"  # an image of the run, which the compare page lays side by side
CONFUSION_FILE = "confusion_matrix.json"  # of more than 60 classes, the cells that are not 0
CONFUSION_FIGURE = "confusion_matrix.html"  # of up to 60 classes
CONFUSION_PICTURE = "confusion_matrix.png"  # the same, drawn
REPORT_FILE = "classification_report.json"  # precision, recall, f1-score and support of each class
PREDICTIONS_FILE = "predictions.json"  # each image's class, prediction and probability
PREDICTIONS_TABLE = "predictions.parquet"  # the same, of more than 10,000 images
MODEL = "model"  # the pipeline, from image bytes to class name
KERAS_MODEL = "keras"  # of a fine-tuning: the network with its classes, as Keras has it

# Metrics.
HISTORY = "objectiveHistory"  # of a trial: the objective at each step of the fit
PROGRESSIVE = "progressive_accuracy"  # of `tuner learn`: of images before they were learned, by number
SOLVER_DIFFERENCE = "solver_difference"  # of a search: how far the winner's two fits are apart
ONNX_OTHER_CLASSES = "onnx_other_classes"  # of a search: images that get another class than by TensorFlow


def artifact_address(run_id: str, file: str) -> str:
    """Where a page in MLflow's artifact viewer finds an artifact of a run, from the server's root."""
    return f"get-artifact?{urlencode({'path': file, 'run_uuid': run_id})}"
