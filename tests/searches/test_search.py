"""A search as its user runs it, and what MLflow shows of it afterwards."""

import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import FinishedSearch, tuner
from tests.helpers.searches import aliases_of
from tuner.base.choices import WhereToFit
from tuner.searches.opening import fits_in_workers

METRICS = {"accuracy", "f1", "weightedPrecision", "weightedRecall", "logLoss", "roc_auc"}


def artifacts(search: FinishedSearch, run_id: str, folder: str = "") -> set[str]:
    found = set()
    for item in search.client().list_artifacts(run_id, folder or None):
        found |= artifacts(search, run_id, item.path) if item.is_dir else {item.path}
    return found


def read(search: FinishedSearch, run_id: str, file: str) -> str:
    uri = f"runs:/{run_id}/{file}"
    path = mlflow.artifacts.download_artifacts(uri, tracking_uri=search.store)
    return Path(path).read_text(encoding="utf-8")


def test_user_reads_the_progress_and_the_winner(finished_search: FinishedSearch):
    output = finished_search.output
    assert "2 of 62 images cannot be used: see quarantine.csv" in output
    assert "5/5 trials · best accuracy" in output
    assert "models:/letters@champion" in output
    assert "(124 images extracted)" in output  # each of the 62 files by two networks
    assert "Traceback" not in output


def test_parent_run_tells_the_whole_search(finished_search: FinishedSearch):
    parent = finished_search.parent()
    files = artifacts(finished_search, parent.info.run_id)
    assert {
        "experiment.yaml",
        "labels.json",
        "search_space.json",
        "quarantine.csv",
        "split.parquet",
        "model_card.md",
        "leaderboard.json",
        "charts/search.html",
        "charts/test.html",
        "confusion_matrix.json",
        "classification_report.json",
        "predictions.json",
    } <= files
    assert len([file for file in files if file.startswith("networks/")]) == 2
    assert parent.info.status == "FINISHED"
    assert {f"test_{name}" for name in METRICS} | METRICS <= set(parent.data.metrics)
    assert {"best_backbone", "best_regParam", "best_elasticNetParam", "best_maxIter"} <= set(
        parent.data.params
    )
    assert {"tuner.data_digest", "tuner.pyspark_version", "tuner.tensorflow_version"} <= set(
        parent.data.tags
    )
    labels = json.loads(read(finished_search, parent.info.run_id, "labels.json"))
    assert labels == {"0": "A", "1": "o", "2": "ñandú <b>"}


def test_trials_fit_in_workers_and_the_winner_is_mllib_s_own(finished_search: FinishedSearch):
    assert "trials fit in the workers (fit: auto; 0 MiB of features)" in finished_search.output
    data = finished_search.parent().data
    assert data.params["search.fits_in"] == "worker"
    assert 0 <= data.metrics["solver_difference"] < 1e-6
    assert "differs from the worker's" not in finished_search.output


@pytest.mark.parametrize(
    ("asked", "size", "inside"),
    [
        ("auto", 2 * 2**30, True),
        ("auto", 2 * 2**30 + 1, False),
        ("worker", 2**40, True),
        ("spark", 1, False),
    ],
)
def test_auto_fits_in_workers_up_to_two_gib(asked: WhereToFit, size: int, inside: bool):
    assert fits_in_workers(asked, size) == inside


def test_the_search_s_tables_are_shown_as_tables(finished_search: FinishedSearch):
    tables = json.loads(finished_search.parent().data.tags["mlflow.loggedArtifacts"])
    assert {table["path"] for table in tables} == {"leaderboard.json", "predictions.json"}


def test_images_left_out_are_listed_with_their_reasons(finished_search: FinishedSearch):
    listed = read(finished_search, finished_search.parent().info.run_id, "quarantine.csv")
    frame = pd.read_csv(io.StringIO(listed))
    assert [Path(path).name for path in frame["path"]] == ["broken.jpg", "notes.txt"]
    assert frame["reason"].notna().all()


def test_data_are_logged_with_digests(finished_search: FinishedSearch):
    inputs = finished_search.parent().inputs.dataset_inputs
    contexts = {tag.value: item.dataset for item in inputs for tag in item.tags}
    assert set(contexts) == {"training", "validation", "test"}
    assert len({dataset.digest for dataset in contexts.values()}) == 3
    sizes = {context: json.loads(dataset.profile)["num_rows"] for context, dataset in contexts.items()}
    assert sizes == {"training": 30, "validation": 15, "test": 15}


def test_every_trial_is_a_run_that_can_be_told_apart(finished_search: FinishedSearch):
    trials = finished_search.trials()
    assert sorted(run.info.run_name[:3] for run in trials) == ["001", "002", "003", "004", "005"]
    for run in trials:
        assert run.info.status == "FINISHED"
        assert run.info.run_name[4:] == run.data.params["backbone"].lower()
        assert float(run.data.params["regParam"]) > 0
        assert METRICS | {"train_accuracy", "fit_seconds", "iterations"} <= set(run.data.metrics)
        history = finished_search.client().get_metric_history(run.info.run_id, "objectiveHistory")
        assert [point.step for point in history] == list(range(len(history)))
        assert len(history) == run.data.metrics["iterations"] + 1


def test_trial_shows_its_predictions_and_stays_small(finished_search: FinishedSearch):
    run = finished_search.trials()[0]
    files = artifacts(finished_search, run.info.run_id)
    assert {"confusion_matrix.html", "confusion_matrix.json", "classification_report.json"} < files
    assert any(file.startswith("images/confusion_matrix") and file.endswith(".png") for file in files)
    predictions = json.loads(read(finished_search, run.info.run_id, "predictions.json"))
    assert predictions["columns"] == ["path", "label", "prediction", "probability", "correct"]
    assert len(predictions["data"]) == 15
    confusion = json.loads(read(finished_search, run.info.run_id, "confusion_matrix.json"))
    assert sum(map(sum, confusion["matrix"])) == 15
    assert len(read(finished_search, run.info.run_id, "confusion_matrix.html")) < 100_000
    assert not any(file.startswith("networks") for file in files)


def test_metrics_are_those_of_the_logged_predictions(finished_search: FinishedSearch):
    for run in finished_search.trials():
        table = json.loads(read(finished_search, run.info.run_id, "predictions.json"))
        frame = pd.DataFrame(table["data"], columns=table["columns"])
        assert frame["correct"].mean() == pytest.approx(run.data.metrics["accuracy"])


def test_a_trial_s_model_bears_its_parameters_and_metrics(finished_search: FinishedSearch):
    client, parent = finished_search.client(), finished_search.parent()
    models = client.search_logged_models([parent.info.experiment_id])
    by_run = {model.source_run_id: model for model in models}
    for run in finished_search.trials():
        model = by_run[run.info.run_id]
        assert model.params == run.data.params
        shown = {metric.key: metric.value for metric in model.metrics}
        assert shown == {name: run.data.metrics[name] for name in shown}
        assert shown.keys() >= METRICS


def test_winner_is_the_best_trial_and_is_registered(finished_search: FinishedSearch):
    parent, client = finished_search.parent(), finished_search.client()
    best = max(finished_search.trials(), key=lambda run: run.data.metrics["accuracy"])
    assert parent.data.metrics["accuracy"] == best.data.metrics["accuracy"]
    champion = client.get_model_version_by_alias("letters", "champion")
    assert str(champion.version) == "1"
    assert champion.current_stage == "Staging"
    assert champion.run_id == parent.info.run_id
    assert champion.description == read(finished_search, parent.info.run_id, "model_card.md")
    assert champion.description.startswith("# letters, version 1")
    assert champion.tags["tuner.search_run_id"] == parent.info.run_id


SCORE = """
import sys
import mlflow
from pyspark.sql import SparkSession

mlflow.set_tracking_uri(sys.argv[1])
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
model = mlflow.spark.load_model(sys.argv[2])
images = [(bytearray(open(path, "rb").read()),) for path in sys.argv[3:]] + [(bytearray(b"junk"),), (None,)]
frame = spark.createDataFrame(images, "content binary")
print("ANSWER", [row["predicted_label"] for row in model.transform(frame).collect()])
"""


@pytest.mark.long
@pytest.mark.parametrize("which", ["trial", "registered"])
def test_models_score_image_bytes_in_a_fresh_process(
    finished_search: FinishedSearch, tmp_path: Path, which: str
):
    trial = max(finished_search.trials(), key=lambda run: run.data.metrics["accuracy"])
    uri = {"trial": f"runs:/{trial.info.run_id}/model", "registered": "models:/letters@champion"}[which]
    images = [finished_search.images / label / "03.png" for label in ("A", "o", "ñandú <b>")]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCORE), finished_search.store, uri, *map(str, images)],
        cwd=tmp_path,  # another folder, without the search's cache
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},  # as activated
        capture_output=True,
        text=True,
        timeout=200,
    )
    (answer,) = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answer == "ANSWER ['A', 'o', 'ñandú <b>', None, None]"


@pytest.mark.long
def test_evaluate_scores_a_registered_model_on_a_folder(finished_search: FinishedSearch):
    arguments = ("evaluate", "--model", "models:/letters@champion", "--images", finished_search.images)
    done = tuner(finished_search.folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert "2 images left out" in done.stdout
    shown = dict(line.split() for line in done.stdout.splitlines() if line.startswith("  "))
    assert float(shown["accuracy"]) > 0.8


@pytest.mark.long
def test_evaluate_takes_images_of_one_class(finished_search: FinishedSearch, tmp_path: Path):
    shutil.copytree(finished_search.images / "o", tmp_path / "images" / "o")
    (tmp_path / "images" / "A").mkdir()
    (tmp_path / "images" / "lost+found").mkdir()
    arguments = ("evaluate", "--model", "models:/letters@champion", "--images", tmp_path / "images")
    done = tuner(finished_search.folder, *arguments)
    assert done.returncode == 0, done.stderr
    shown = dict(line.split() for line in done.stdout.splitlines() if line.startswith("  "))
    assert float(shown["accuracy"]) > 0.8
    assert "roc_auc" not in shown
    assert "The class folder(s) A of" in done.stdout
    assert "passed over: lost+found" in done.stdout


@pytest.mark.long
def test_evaluate_refuses_classes_that_the_model_does_not_know(
    finished_search: FinishedSearch, tmp_path: Path
):
    for label in ("A", "Z"):
        (tmp_path / label).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / label / "one.png")
    arguments = ("evaluate", "--model", "models:/letters@champion", "--images", tmp_path)
    done = tuner(finished_search.folder, *arguments)
    assert done.returncode == 2
    assert "the class Z, which the model" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_evaluate_refuses_a_model_that_is_not_there(finished_search: FinishedSearch):
    arguments = ("evaluate", "--model", "models:/nobody@champion", "--images", finished_search.images)
    done = tuner(finished_search.folder, *arguments)
    assert done.returncode == 2
    assert "The model models:/nobody@champion cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_worker_and_cluster_come_to_the_same_leaderboard_and_winner(
    finished_search: FinishedSearch, tmp_path: Path
):
    """The same search both ways; nobody but MLlib fits in the second."""
    options = ("--max_evals", 10, "--deterministic", "true", "--cache", tmp_path / "cache")
    boards, parents = {}, {}
    for way, said in (("worker", "in the workers"), ("spark", "by MLlib on Spark")):
        folder = tmp_path / way
        folder.mkdir()
        file = finished_search.folder / "letters.yaml"
        done = tuner(folder, "search", "--experiment", file, "--fit", way, *options)
        assert done.returncode == 0, done.stderr
        assert f"trials fit {said} (fit: {way}; " in done.stdout
        found = FinishedSearch(folder, finished_search.images)
        parents[way] = found.parent()
        table = json.loads(read(found, parents[way].info.run_id, "leaderboard.json"))
        boards[way] = pd.DataFrame(table["data"], columns=table["columns"])
    own = ["run_id", "seconds", "fit_seconds"]
    left, right = (board.drop(columns=own, errors="ignore") for board in boards.values())
    assert len(left) == 10
    pd.testing.assert_frame_equal(left, right, rtol=0, atol=1e-6)
    worker, spark = (parent.data for parent in parents.values())
    assert worker.tags["tuner.best_trial"] == spark.tags["tuner.best_trial"]
    assert "solver_difference" in worker.metrics
    assert "solver_difference" not in spark.metrics
    compared = [name for name in spark.metrics if not name.endswith("seconds")]
    assert {name: worker.metrics[name] for name in compared} == pytest.approx(
        {name: spark.metrics[name] for name in compared}, abs=1e-6
    )


@pytest.mark.long
def test_eight_trials_at_once_lose_no_run(finished_search: FinishedSearch, tmp_path: Path):
    arguments = (
        "--experiment",
        finished_search.folder / "letters.yaml",
        "--parallelism",
        8,
        "--max_evals",
        24,
    )
    done = tuner(tmp_path, "search", *arguments)
    assert done.returncode == 0, done.stderr
    assert "database is locked" not in done.stdout + done.stderr
    runs = FinishedSearch(tmp_path, finished_search.images).trials()
    assert sorted(int(run.info.run_name[:3]) for run in runs) == list(range(1, 25))
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.long
@pytest.mark.parametrize("options", [("--parallelism", 1), ("--parallelism", 3, "--deterministic", "true")])
def test_same_seed_gives_the_same_trials_and_winner(
    finished_search: FinishedSearch, tmp_path: Path, options: tuple
):
    told = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = finished_search.folder / "letters.yaml"
        done = tuner(folder, "search", "--experiment", file, "--max_evals", 24, *options)
        assert done.returncode == 0, done.stderr
        search = FinishedSearch(folder, finished_search.images)
        told.append(
            (
                sorted((run.info.run_name, *sorted(run.data.params.items())) for run in search.trials()),
                search.parent().data.tags["tuner.best_trial"],
            )
        )
    assert told[0] == told[1]


@pytest.mark.long
def test_cross_validation_with_the_one_standard_error_rule(finished_search: FinishedSearch, tmp_path: Path):
    file = finished_search.folder / "letters.yaml"
    options = ("--validation", "cv:3", "--select", "one-standard-error", "--max_evals", 6)
    done = tuner(tmp_path, "search", "--experiment", file, *options)
    assert done.returncode == 0, done.stderr
    search = FinishedSearch(tmp_path, finished_search.images)
    trials = search.trials()
    assert all("accuracy_std_error" in run.data.metrics for run in trials)
    best = max(trials, key=lambda run: run.data.metrics["accuracy"])
    limit = best.data.metrics["accuracy"] - best.data.metrics["accuracy_std_error"]
    near = [run for run in trials if run.data.metrics["accuracy"] >= limit]
    simplest = max(near, key=lambda run: float(run.data.params["regParam"]))
    assert search.parent().data.tags["tuner.best_trial"] == str(int(simplest.info.run_name[:3]))


@pytest.mark.long
def test_second_search_extracts_nothing_and_its_winner_challenges_the_first(
    finished_search: FinishedSearch, tmp_path: Path
):
    """In a copy of the store, for the tests beside this one count versions."""
    shutil.copy(finished_search.folder / "mlflow.db", tmp_path)
    text = (finished_search.folder / "letters.yaml").read_text(encoding="utf-8")
    (tmp_path / "strict.yaml").write_text(text + "gate: {min_gain: 1}\n", encoding="utf-8")
    cache = ("--cache", finished_search.folder / ".tuner")
    done = tuner(tmp_path, "search", "--experiment", "strict.yaml", "--max_evals", 1, *cache)
    assert done.returncode == 0, done.stderr
    assert "features of 62 images are cached" in done.stdout
    assert "(0 images extracted)" in done.stdout
    assert "letters version 2, challenger, stage None: models:/letters@challenger" in done.stdout
    assert "Version 2 stays challenger: " in done.stdout
    second = FinishedSearch(tmp_path, finished_search.images)
    client = second.client()
    assert aliases_of(client, "letters") == {"champion": 1, "challenger": 2}
    assert client.get_model_version("letters", "1").current_stage == "Staging"
    run_id = client.get_model_version("letters", "2").run_id
    assert {
        "comparison/report.md",
        "comparison/comparison.json",
        "comparison/disagreements.json",
    } <= artifacts(second, run_id)
    comparison = json.loads(read(second, run_id, "comparison/comparison.json"))
    assert (comparison["images"], comparison["passed"]) == (15, False)
