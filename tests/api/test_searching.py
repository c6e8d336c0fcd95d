"""The API in a program of its own: a search, its result, and the program's MLflow run and Spark session."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

import tuner
from tuner.base.errors import ExperimentError

# What a program may have set in its process, by what it is; and what a call may make of it: nothing.
STATE = """
import logging, os, signal, sys
import mlflow

def state():
    signals = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    loggers = ("py4j", "hyperopt-spark", "mlflow", "alembic")
    levels = {name: logging.getLogger(name).level for name in loggers}
    uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    return dict(os.environ), uri, signals, levels, logging.root.level, os.getcwd()
"""

SEARCH = (
    STATE
    + """
import numpy as np
from pathlib import Path
from PIL import Image
import tuner

images, away = sys.argv[1:]
before = state()
with mlflow.start_run() as outer:
    space = {"backbone": ["GlyphNet"], "regParam": (1e-4, 1)}
    result = tuner.search(images, **space, max_evals=8, seed=1, name="api")
    assert mlflow.active_run().info.run_id == outer.info.run_id
assert state() == before, [(a, b) for a, b in zip(before, state()) if a != b]
os.chdir(away)  # the result does not hang on the working folder

client = mlflow.MlflowClient(result.tracking.uri)
run = client.get_run(result.run_id)
assert run.info.status == "FINISHED"
assert run.data.tags["mlflow.parentRunId"] == outer.info.run_id
assert run.info.experiment_id == outer.info.experiment_id == result.experiment_id
assert len(result.trials) == 8 and (result.trials["status"] == "FINISHED").all()
assert result.trials["regParam"].between(1e-4, 1).all()
assert result.best.version.name == "api"

file = sorted(Path(images, "A").glob("*.png"))[0]
picture = Image.open(file)
scores = result.model.score([file, file.read_bytes(), picture, np.asarray(picture)])
assert scores.shape == (4, 3) and np.allclose(scores, scores[0], rtol=1e-5)
assert list(result.model.predict(file)["prediction"]) == ["A"]
rows = [result.test.report[label] for label in result.test.labels]
assert result.test.confusion.sum() == sum(row["support"] for row in rows)

for figure in (result.plot_history(), result.plot_confusion(), result.plot_importance()):
    assert figure.to_dict()["layout"]["title"]["text"]
page = result._repr_html_()
assert "GlyphNet" in page and "models:/api" in page and "accuracy" in page

first, second = result.register("other"), result.register("other")
assert (first.alias, second.alias) == ("champion", "challenger"), (first, second)
try:
    result.register("a/b")
except tuner.InvalidInput as error:
    assert "name" in str(error)
else:
    raise AssertionError("a/b was taken")
assert not os.listdir(away), os.listdir(away)
assert state()[:-1] == before[:-1]
print("all is well")
"""
)

BORROWED = (
    STATE
    + """
from pyspark.sql import SparkSession
import tuner

images = sys.argv[1]
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
before = state()
done = tuner.features(images, backbone=["GlyphNet"])
assert done.arrays["GlyphNet"].shape == (60, 192) and done.labels.shape == (60,)
assert [Path for Path in done.paths if done.label_names[0] in Path]
result = tuner.search(images, backbone=["GlyphNet"], max_evals=2, parallelism=1, console=None)
assert result.extracted == 0
assert state() == before, [(a, b) for a, b in zip(before, state()) if a != b]
assert spark.range(3).count() == 3  # it is the program's, and stays
try:
    tuner.search(images, backbone=["GlyphNet"], classifier=["NaiveBayes"], fit="spark", max_evals=1)
except tuner.InvalidInput as error:
    assert "Spark Connect" in str(error), error
else:
    raise AssertionError("a session without a token was used")
spark.stop()
print("all is well")
"""
)


def run(program: str, folder: Path, *arguments: object) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == "all is well"


@pytest.mark.long
def test_a_search_in_a_program_that_has_a_run(letters: Path, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    run(SEARCH, tmp_path, letters, tmp_path / "away")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert {model.name for model in client.search_registered_models()} == {"api", "other"}


@pytest.mark.long
def test_a_session_that_runs_is_used_and_stays(letters: Path, tmp_path: Path) -> None:
    run(BORROWED, tmp_path, letters)


def test_a_search_of_nothing_is_refused() -> None:
    with pytest.raises(ExperimentError, match="There is nothing to search"):
        tuner.search()
    with pytest.raises(ExperimentError, match="--force is for a search that another process has"):
        tuner.search("builtin:digits", force=True)
    with pytest.raises(ExperimentError, match="over the best -1"):
        tuner.spot_check("builtin:digits", then_search=-1)


def test_spark_starts_before_what_takes_seconds_is_imported() -> None:
    """The command line and the API import these while the JVM starts; a name alone imports none of them."""
    slow = ("mlflow", "pyspark", "tensorflow", "keras", "pandas", "sklearn")
    program = f"import sys, tuner; tuner.search; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
