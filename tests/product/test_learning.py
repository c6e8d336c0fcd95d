"""`tuner learn` as its user runs it: a whole model, new images later, a kill in the midst; bad input."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from pyspark.sql import SparkSession

from tests.conftest import glyph, tuner
from tests.helpers.models import contents_frame
from tests.helpers.searches import aliases_of, kill_tree, wait_until
from tuner.models.scorer import Scorer

LEARN = """
name: letters
images: letters
learn:
  backbone: GlyphNet
  classifier: {name: river.LogisticRegression, lr: 0.1}
  batch: 8
  epochs: 3
"""


@pytest.fixture
def folder(letters: Path, tmp_path: Path) -> Path:
    shutil.copytree(letters, tmp_path / "letters")
    (tmp_path / "learn.yaml").write_text(LEARN, encoding="utf-8")
    return tmp_path


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def runs(folder: Path) -> list[Run]:
    """Those of `tuner learn`, as they began."""
    client = client_of(folder)
    ids = [found.experiment_id for found in client.search_experiments()]
    return client.search_runs(ids, "tags.`tuner.kind` = 'learn'", order_by=["start_time ASC"])


def learned(database: Path) -> int:
    """How many images a run says that it has learned; MLflow's client would make tables with that run's."""
    if not database.exists():
        return 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as store:
        try:
            found = store.execute(
                "SELECT max(CAST(value AS INTEGER)) FROM tags WHERE key = 'tuner.learned'"
            )
        except sqlite3.OperationalError:  # there is no such table yet
            return 0
        return found.fetchone()[0] or 0


def succeeds(folder: Path, *arguments: object) -> str:
    done = tuner(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kept(folder: Path, run: Run) -> tuple[dict, pd.DataFrame, dict[str, np.ndarray]]:
    place = folder / run.info.run_id
    place.mkdir(exist_ok=True)
    found = Path(client_of(folder).download_artifacts(run.info.run_id, "learner", str(place)))
    assert {file.name for file in found.iterdir()} == {"state.json", "images.parquet", "river.npz"}
    with np.load(found / "river.npz", allow_pickle=False) as numbers:
        arrays = {name: numbers[name] for name in numbers.files}
    return json.loads((found / "state.json").read_text()), pd.read_parquet(found / "images.parquet"), arrays


@pytest.mark.long
def test_a_model_is_learned_and_then_learns_what_is_new(folder: Path, spark: SparkSession) -> None:
    said = succeeds(folder, "learn", "--experiment", "learn.yaml")
    assert "learned  39 images (39 in all): GlyphNet, river.LogisticRegression, lr 0.1" in said
    (run,) = runs(folder)
    client = client_of(folder)
    steps = [one.step for one in client.get_metric_history(run.info.run_id, "progressive_accuracy")]
    assert steps == [16, 24, 32, 39]
    assert [one.step for one in client.get_metric_history(run.info.run_id, "accuracy")] == [1, 2, 3]
    assert run.data.metrics["test_accuracy"] > 0.8
    assert run.data.params["learn.epochs"] == "3"
    state, images, _ = kept(folder, run)
    assert state["course"] == {"seed": 42, "batch": 8, "epochs": 3, "epoch": 3, "learned": 39}
    assert images["run"].all()
    split = pd.read_parquet(client.download_artifacts(run.info.run_id, "split.parquet", str(folder)))
    assert set(images["digest"]) == set(split["digest"][split["part"] == "train"])

    # A whole model, with both faces.
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    place = str(folder / "m")
    model = Path(mlflow.artifacts.download_artifacts("models:/letters@champion", dst_path=place))
    contents = [file.read_bytes() for file in sorted((folder / "letters" / "o").glob("*.png"))]
    answers = Scorer.load(model).answer(contents)
    assert (answers["prediction"] == "o").mean() > 0.8
    rows = mlflow.spark.load_model(str(model)).transform(contents_frame(spark, contents)).collect()
    found = [row.probability.toArray() for row in sorted(rows, key=lambda row: row.number)]
    np.testing.assert_allclose(found, list(answers["probability"]), atol=1e-5)
    card = Path(client.download_artifacts(run.info.run_id, "model_card.md", str(folder)))
    assert "River's logistic regression" in card.read_text(encoding="utf-8")

    # Later there are new images, and one is gone.
    for number in range(100, 106):
        glyph("A", number).save(folder / "letters" / "A" / f"{number}.png")
    gone = images["digest"].iloc[0]
    path = split.loc[split["digest"] == gone, "path"].iloc[0]
    (folder / "letters" / Path(path).parent.name / Path(path).name).unlink()
    said = succeeds(folder, "learn", "--resume", "last", "--epochs", "1")
    assert "6 of 65 images were not learned yet: A 6" in said
    assert "1 images that were learned are not there any more: what was learned of them stays" in said
    assert "learned  6 images (45 in all)" in said
    assert "on the same 12 test images" in said
    again = runs(folder)[1]
    assert again.data.tags["tuner.learned_before"] == run.info.run_id
    assert "before_test_accuracy" in again.data.metrics
    _, later, _ = kept(folder, again)
    assert (len(later), later["run"].sum()) == (45, 6)
    now = pd.read_parquet(client.download_artifacts(again.info.run_id, "split.parquet", place))
    for part in ("test", "validation"):
        assert set(now["digest"][now["part"] == part]) == set(split["digest"][split["part"] == part])
    assert set(aliases_of(client, "letters").values()) == {1, 2} or aliases_of(client, "letters") == {
        "champion": 2
    }

    said = succeeds(folder, "learn", "--resume", "last", "--json")
    assert said == "null\n"
    (folder / "letters" / "new").mkdir()
    for number in range(9):
        glyph("Q", number).save(folder / "letters" / "new" / f"{number}.png")
    done = tuner(folder, "learn", "--resume", again.info.run_id)
    assert done.returncode == 2
    assert "The classes are not those that the run" in done.stderr
    assert "there is now new. Learn anew" in done.stderr


KEEP_ALL = """
import sys, time
from tuner.searches.incremental import keeping, work
keeping._SECONDS = 0
slow = work.learn_stream
def slowly(*given, **more):
    for passed in slow(*given, **more):
        yield passed
        time.sleep(600 if passed.learned > 20 else 0)
work.learn_stream = slowly
import tuner
tuner.learn("learn.yaml")
"""


@pytest.mark.long
def test_a_run_that_is_killed_in_the_midst_of_an_epoch_goes_on_and_ends_as_if_it_had_not(
    folder: Path,
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    process = subprocess.Popen([sys.executable, "-c", KEEP_ALL], cwd=folder, env=environment)
    try:
        wait_until(lambda: learned(folder / "mlflow.db") > 20, 300)
        (at_work,) = runs(folder)
        done = tuner(folder, "learn", "--resume", at_work.info.run_id)
        assert done.returncode == 2
        sentence = f"{at_work.info.run_id} is still running (process {process.pid} on"
        assert sentence in done.stderr
    finally:
        kill_tree(process)
    said = succeeds(folder, "learn", "--resume", "last")
    assert "going on in epoch 1 of 3, at image 24" in said
    killed, went_on = runs(folder)
    assert (killed.info.status, went_on.info.status) == ("KILLED", "FINISHED")
    assert went_on.data.tags["tuner.learned_before"] == killed.info.run_id
    succeeds(folder, "learn", "--experiment", "learn.yaml")
    _, resumed, whole = (kept(folder, run) for run in runs(folder))
    assert resumed[0]["course"] == whole[0]["course"]
    pd.testing.assert_frame_equal(resumed[1], whole[1])
    for name, values in whole[2].items():
        np.testing.assert_allclose(resumed[2][name], values, atol=1e-9, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--classifier", "RandomForest"],
            "RandomForest fits on all images at once, and cannot",
        ),
        (["--batch", "40"], "learn.batch is 40, and there are 39 images to learn: lower it."),
        (["--metric", "logLoss", "--classifier", "sklearn.SGD"], "logLoss needs probabilities"),
        (["--resume", "none"], "The run of tuner learn none cannot be resumed"),
    ],
)
def test_what_cannot_work_is_a_sentence_and_ends_with_2(
    options: list[str], said: str, folder: Path
) -> None:
    experiment = [] if "--resume" in options else ["--experiment", "learn.yaml"]
    done = tuner(folder, "learn", *experiment, *options)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", ["one class", "negative"])
def test_images_that_cannot_be_learned_are_a_sentence(name: str, folder: Path) -> None:
    options = []
    if name == "one class":
        for other in list((folder / "letters").iterdir())[1:]:
            shutil.rmtree(other)
    else:
        options = ["--backbone", "GaborNet", "--classifier", "sklearn.MultinomialNB"]
    done = tuner(folder, "learn", "--experiment", "learn.yaml", *options)
    if name == "one class":
        assert done.returncode == 2
        assert "two" in done.stderr
    else:  # its features are none below 0
        assert done.returncode == 0, done.stderr
        assert "sklearn.MultinomialNB" in done.stdout
