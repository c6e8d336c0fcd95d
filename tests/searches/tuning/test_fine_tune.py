"""Whole fine-tunings as a user runs them, in a folder of their own."""

import json
import os
import re
import signal
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.conftest import tuner
from tests.helpers.searches import SearchProcess, tracking, wait_until
from tuner.models.loading import load_model
from tuner.networks.files import open_network

pytestmark = pytest.mark.long

_EXPERIMENT = """\
name: letters
images: {images}
search: {{backbone: GlyphNet, seed: {seed}, max_evals: 1}}
fine_tune:
  units: 8
  batch_size: 8
  warm_up_epochs: 2
  warm_up_learning_rate: 1e-2
  epochs: 2
  unfreeze: -3
"""


class Tuned:
    """A fine-tuning that ran in a folder."""

    def __init__(self, folder: Path, images: Path) -> None:
        self.folder = folder
        (folder / "a.yaml").write_text(_EXPERIMENT.format(images=images, seed=42))
        self.done = tuner(folder, "fine-tune", "--experiment", "a.yaml", "--json")
        assert self.done.returncode == 0, self.done.stderr

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def run(self) -> Run:
        return latest(MlflowClient(self.store))


def latest(client: MlflowClient) -> Run:
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, "tags.`tuner.kind` = 'fine-tune'", order_by=["start_time DESC"])[0]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, letters: Path) -> Tuned:
    return Tuned(tmp_path_factory.mktemp("tuned"), letters)


def test_every_epoch_is_logged_and_the_model_registered_with_both_faces(tuned: Tuned) -> None:
    client, run = MlflowClient(tuned.store), tuned.run()
    assert run.info.status == "FINISHED"
    steps = client.get_metric_history(run.info.run_id, "validation_accuracy")
    assert sorted(metric.step for metric in steps) == [1, 2, 3, 4]
    version = client.get_model_version_by_alias("letters", "champion")
    assert version.tags["tuner.search_run_id"] == run.info.run_id
    assert "GlyphNet, trained on these images" in version.description
    with tracking(tuned.store):
        flavors = mlflow.models.get_model_info("models:/letters@champion").flavors
        assert {"spark", "python_function", "tuner"} <= set(flavors)
        scorer = load_model("models:/letters@champion")
        whole = mlflow.keras.load_model(f"runs:/{run.info.run_id}/keras")
        file = Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/network"))
    images = np.random.default_rng(1).uniform(0, 1, (3, 32, 32, 3)).astype(np.float32)
    features = open_network(file / "network.keras", (32, 32), "float32")(images)
    expected = np.asarray(whole(images, training=False))
    np.testing.assert_allclose(scorer.head.score(features), expected, atol=1e-5)
    assert json.loads((file / "network.json").read_text())["run_id"] == run.info.run_id
    parts = pd.read_parquet(file / "split.parquet")["part"]
    assert set(parts) == {"train", "validation", "test"}
    assert not list((tuned.folder / ".tuner" / "training").iterdir())


def test_the_result_is_json_for_scripts_and_onnx_runtime_serves_the_network(tuned: Tuned) -> None:
    run, result = tuned.run(), json.loads(tuned.done.stdout)
    assert result["run_id"] == run.info.run_id
    assert result["test"]["accuracy"] == run.data.metrics["test_accuracy"]
    best = result["epochs"][result["best_epoch"] - 1]
    assert best["validation_accuracy"] == result["validation"]["accuracy"]
    assert [epoch["number"] for epoch in result["epochs"]] == [1, 2, 3, 4]
    assert result["trials"] is None
    assert "GlyphNet-tuned is served as ONNX: features differ by" in tuned.done.stderr
    assert run.data.metrics["onnx_other_classes"] == 0
    with tracking(tuned.store):
        folder = Path(mlflow.artifacts.download_artifacts(result["model"]["uri"]))
    assert len(list(folder.rglob("*.onnx"))) == 1
    assert "tensorflow" not in (folder / "requirements.txt").read_text()


def test_a_search_takes_the_tuned_network_with_the_same_split_only(tuned: Tuned, letters: Path) -> None:
    run_id = tuned.run().info.run_id
    backbone = f"[{{name: tuned, file: runs:/{run_id}/network}}]"
    for seed in (42, 7):
        text = _EXPERIMENT.format(images=letters, seed=seed).partition("fine_tune:")[0]
        (tuned.folder / f"{seed}.yaml").write_text(text.replace("GlyphNet", backbone))
    refused = tuner(tuned.folder, "search", "--experiment", "7.yaml")
    assert refused.returncode == 2
    assert re.search(r"The network tuned was tuned on images that this split holds back \(", refused.stderr)
    done = tuner(tuned.folder, "search", "--experiment", "42.yaml")
    assert done.returncode == 0, done.stderr
    assert "62 images extracted" in done.stdout


def test_a_fine_tuning_that_was_killed_goes_on(tmp_path: Path, letters: Path) -> None:
    (tmp_path / "a.yaml").write_text(_EXPERIMENT.format(images=letters, seed=42))
    options = ("--experiment", "a.yaml", "--epochs", "60")
    with SearchProcess(tmp_path, "fine-tune", *options) as first:
        wait_until(lambda: "epoch 5/62" in first.said(), seconds=500)
        os.kill(first.process.pid, signal.SIGKILL)
        first.end()
    with SearchProcess(tmp_path, "fine-tune", "--resume", "last") as second:
        wait_until(lambda: "epochs ended before and count" in second.said(), seconds=500)
        wait_until(lambda: re.search(r"epoch \d+/62", second.said()), seconds=500)
        second.process.send_signal(signal.SIGINT)
        assert second.end(60) == 130
        said = second.said()
    epochs = [int(number) for number in re.findall(r"epoch (\d+)/62", said)]
    assert min(epochs) >= 5
    run = latest(MlflowClient(second.uri))
    assert run.info.status == "KILLED"
    assert f"Resume it with: tuner fine-tune --resume {run.info.run_id}" in said
    assert "Traceback" not in said


def test_trials_that_are_behind_are_stopped_and_it_is_said(tmp_path: Path, letters: Path) -> None:
    text = _EXPERIMENT.format(images=letters, seed=42).partition("fine_tune:")[0]
    settings = "{base: small-cnn, units: 8, epochs: 4, learning_rate: '1e-4:1e-2', max_evals: 4}"
    (tmp_path / "a.yaml").write_text(f"{text}fine_tune: {settings}\n")
    done = tuner(tmp_path, "fine-tune", "--experiment", "a.yaml", "--batch_size", 8)
    assert done.returncode == 0, done.stderr
    assert "4 trials of learning_rate: 4 to epoch 1, 2 to epoch 2, 1 to epoch 4" in done.stdout
    assert "epoch 1: 2 go on; behind and stopped: 0" in done.stdout
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = latest(client)
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    trials = client.search_runs([run.info.experiment_id], query)
    assert {trial.info.status for trial in trials} == {"FINISHED"}
    told = [trial.data.tags.get("tuner.halved", "") for trial in trials]
    assert len(trials) == 4
    assert sorted(bool(text) for text in told) == [False, True, True, True]
    assert sum("stopped after epoch 1: rank" in text for text in told) == 2


def test_a_saved_model_is_trained_and_registered_as_one(tmp_path: Path, letters: Path) -> None:
    from tuner.networks.embedded.files import NETWORK_FILES
    from tuner.networks.files import import_keras

    import_keras().models.load_model(NETWORK_FILES["GlyphNet"]).export(tmp_path / "graph", verbose=False)
    text = _EXPERIMENT.format(images=letters, seed=42).replace("unfreeze: -3", "unfreeze: all")
    base = f"base: {{name: mine, file: {tmp_path / 'graph'}, input_size: 32, preprocessing: unit}}"
    (tmp_path / "a.yaml").write_text(text.replace("fine_tune:", f"fine_tune:\n  {base}"))
    done = tuner(tmp_path, "fine-tune", "--experiment", "a.yaml")
    assert done.returncode == 0, done.stderr
    with tracking(f"sqlite:///{tmp_path / 'mlflow.db'}"):
        file = Path(
            mlflow.artifacts.download_artifacts(f"runs:/{latest(MlflowClient()).info.run_id}/network")
        )
        scorer = load_model("models:/letters@champion")
    assert (file / "saved_model" / "saved_model.pb").is_file()
    answers, reasons = scorer.score([(letters / "A" / "00.png").read_bytes()])
    assert reasons == [None]
    assert answers.shape == (1, 3)
