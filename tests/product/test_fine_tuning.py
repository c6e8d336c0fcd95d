"""`tuner fine-tune` as its user runs it: whole, killed and stopped, halved, and what cannot work."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from pyspark.sql import SparkSession

import tuner as package
from tests.conftest import glyph, tuner
from tests.helpers.hadoop import mount_settings
from tests.helpers.models import CHAMPION, contents_frame
from tests.helpers.searches import SearchProcess, aliases_of, tracking, wait_until
from tests.helpers.training import small_network
from tuner.images.decoding import load_input
from tuner.networks.embedded.files import NETWORK_FILES
from tuner.networks.files import import_keras, open_network
from tuner.tracking.store import Tracking

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SEARCH = """\
name: letters
images: {images}
split: {split}
search: {{backbone: {backbone}, seed: {seed}, maxIter: 5, max_evals: 1, parallelism: 2}}
"""
FINE_TUNE = """\
fine_tune:
  units: 8
  batch_size: 8
  augment: {rotation: 10, shift: 0.1}
  warm_up_epochs: 1
  warm_up_learning_rate: 1e-2
  epochs: 3
  unfreeze: -3
  class_weight: balanced
"""
HALVED = """\
fine_tune:
  base: small-cnn
  units: 8
  batch_size: 8
  epochs: 8
  learning_rate: [1e-5, 1e30, 1e-2, 1e-3]
  dropout: [0.2, 0.5]
  max_evals: 4
"""


@dataclass(frozen=True)
class FineTuning:
    """What MLflow says of the latest fine-tuning of a folder."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @cached_property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def run(self) -> Run:
        ids = [found.experiment_id for found in self.client.search_experiments()]
        query = "tags.`tuner.kind` = 'fine-tune'"
        return self.client.search_runs(ids, query, order_by=["start_time DESC"])[0]

    def trials(self) -> list[Run]:
        """By their numbers."""
        run = self.run()
        query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        found = self.client.search_runs([run.info.experiment_id], query)
        return sorted(found, key=lambda trial: int(trial.data.tags["tuner.trial"]))

    def epochs(self, run: Run) -> dict[str, dict[int, float]]:
        """Of each metric that has a value an epoch, what was logged last for each."""
        return {
            name: {one.step: one.value for one in self.client.get_metric_history(run.info.run_id, name)}
            for name in run.data.metrics
            if name in ("loss", "train_accuracy") or name.startswith("validation_")
        }

    def artifact(self, name: str) -> Path:
        place = self.folder / "fetched"
        place.mkdir(exist_ok=True)
        return Path(self.client.download_artifacts(self.run().info.run_id, name, str(place)))

    def leaderboard(self) -> pd.DataFrame:
        data = json.loads(self.artifact("leaderboard.json").read_text())
        return pd.DataFrame(data["data"], columns=data["columns"])

    def weights(self) -> list[np.ndarray]:
        """Of the whole network that is kept."""
        with tracking(self.uri):
            return list(mlflow.keras.load_model(f"runs:/{self.run().info.run_id}/keras").get_weights())


def experiment(
    folder: Path,
    images: object,
    more: str,
    *,
    backbone: str = "GlyphNet",
    seed: int = 42,
    split: str = "{test: 1/4, validation_ratio: 1/3}",
) -> None:
    text = SEARCH.format(images=images, backbone=backbone, seed=seed, split=split)
    (folder / "a.yaml").write_text(text + more, encoding="utf-8")


def succeeds(folder: Path, *arguments: object) -> str:
    done = tuner(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def refused(folder: Path, *arguments: object, code: int = 2) -> str:
    done = tuner(folder, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def no_number(epoch: int) -> str:
    return f"The loss is no number any more at epoch {epoch} (tuning): lower learning_rate, which is 1e+30."


def some_files(images: Path, count: int = 9) -> list[bytes]:
    return [file.read_bytes() for file in sorted(images.glob("*/*.png"))[::6][:count]]


def answers(store: str, contents: Sequence[bytes], model: str = CHAMPION) -> np.ndarray:
    """What the model that was registered says of images, by MLflow's own face, without a JVM."""
    with tracking(store):
        found = mlflow.pyfunc.load_model(model).predict(pd.DataFrame({"content": list(contents)}))
    return np.array(list(found["probability"]))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, letters: Path) -> FineTuning:
    folder = tmp_path_factory.mktemp("tuned")
    experiment(folder, letters, FINE_TUNE)
    done = tuner(folder, "fine-tune", "--experiment", "a.yaml", "--json")
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stderr)
    (folder / "result.json").write_text(done.stdout)
    return FineTuning(folder)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory, letters: Path) -> FineTuning:
    folder = tmp_path_factory.mktemp("halved")
    experiment(folder, letters, HALVED)
    (folder / "said.txt").write_text(succeeds(folder, "fine-tune", "--experiment", "a.yaml"))
    return FineTuning(folder)


def test_every_epoch_is_logged_and_the_model_is_registered_with_both_faces(
    tuned: FineTuning, letters: Path, spark: SparkSession
) -> None:
    run = tuned.run()
    assert run.info.status == "FINISHED"
    for metric, history in tuned.epochs(run).items():
        assert sorted(history) == [1, 2, 3, 4], metric
    said = (tuned.folder / "said.txt").read_text()
    assert re.findall(r"epoch (\d)/4 · ([\w-]+) · loss", said) == [
        ("1", "warm-up"),
        ("2", "tuning"),
        ("3", "tuning"),
        ("4", "tuning"),
    ]
    assert "of the base GlyphNet learn 3 of its" in said
    assert aliases_of(tuned.client, "letters") == {"champion": 1}
    version = tuned.client.get_model_version_by_alias("letters", "champion")
    assert version.tags["tuner.search_run_id"] == run.info.run_id
    assert "GlyphNet, trained on these images" in version.description
    assert run.data.metrics["test_accuracy"] > 0.6
    assert "validation_accuracy" in tuned.artifact("charts/training.html").read_text(encoding="utf-8")
    assert not list((tuned.folder / ".tuner" / "training").iterdir())

    # The test's answers, both faces, the network as Keras has it, and as a backbone: all say the same.
    table = json.loads(tuned.artifact("predictions.json").read_text())
    frame = pd.DataFrame(table["data"], columns=table["columns"])
    contents = [Path(path).read_bytes() for path in frame["path"]]
    probability = answers(tuned.uri, contents)
    predicted = np.array(sorted(set(frame["label"])))[probability.argmax(axis=1)]
    assert list(predicted) == list(frame["prediction"])
    with tracking(tuned.uri):
        place = mlflow.artifacts.download_artifacts(CHAMPION, dst_path=str(tuned.folder / "model"))
        rows = mlflow.spark.load_model(place).transform(contents_frame(spark, contents)).collect()
        whole = mlflow.keras.load_model(f"runs:/{run.info.run_id}/keras")
    by_spark = [row.probability.toArray() for row in sorted(rows, key=lambda row: row.number)]
    np.testing.assert_allclose(by_spark, probability, atol=1e-5)
    images = np.random.default_rng(1).uniform(0, 1, (3, 32, 32, 3)).astype(np.float32)
    network = tuned.artifact("network")
    features = open_network(network / "network.keras", (32, 32), "float32")(images)
    weights, biases = whole.layers[-1].get_weights()
    logits = features @ weights + biases
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = np.asarray(whole(images, training=False))
    np.testing.assert_allclose(shares / shares.sum(axis=1, keepdims=True), expected, atol=1e-5)
    split = pd.read_parquet(network / "split.parquet")
    assert set(split["part"]) == {"train", "validation", "test"}
    assert len(split) == 60


def test_the_result_is_json_for_scripts_and_onnx_runtime_serves_the_network(tuned: FineTuning) -> None:
    run, result = tuned.run(), json.loads((tuned.folder / "result.json").read_text())
    assert result["run_id"] == run.info.run_id
    assert result["test"]["accuracy"] == run.data.metrics["test_accuracy"]
    best = result["epochs"][result["best_epoch"] - 1]
    assert best["validation_accuracy"] == result["validation"]["accuracy"]
    assert [epoch["number"] for epoch in result["epochs"]] == [1, 2, 3, 4]
    assert result["trials"] is None
    said = (tuned.folder / "said.txt").read_text()
    assert "GlyphNet-tuned is served as ONNX: features differ by" in said
    assert run.data.metrics["onnx_other_classes"] == 0
    with tracking(tuned.uri):
        folder = Path(mlflow.artifacts.download_artifacts(result["model"]["uri"]))
    assert len(list(folder.rglob("*.onnx"))) == 1
    assert "tensorflow" not in (folder / "requirements.txt").read_text()


def test_a_search_takes_the_tuned_network_only_with_its_split(tuned: FineTuning, letters: Path) -> None:
    backbone = f"[{{name: tuned, file: runs:/{tuned.run().info.run_id}/network}}]"
    experiment(tuned.folder, letters, "", backbone=backbone, seed=7)
    sentence = refused(tuned.folder, "search", "--experiment", "a.yaml")
    assert re.search(
        r"The network tuned was tuned on images that this split holds back \(\d+ for test", sentence
    )
    assert not list((tuned.folder / ".tuner").glob("features/*"))
    experiment(tuned.folder, letters, "", backbone=backbone)
    assert "62 images extracted" in succeeds(tuned.folder, "search", "--experiment", "a.yaml")


AMID_AN_EPOCH = """
import os, signal
from tuner.training import loop
made = loop._stops_at_nan
def killing(number, phase):
    callback = made(number, phase)
    look = callback.on_train_batch_end
    def look_and_die(batch, logs=None):
        look(batch, logs)
        if (number, batch) == (3, 1):
            os.kill(os.getpid(), signal.SIGKILL)
    callback.on_train_batch_end = look_and_die
    return callback
loop._stops_at_nan = killing
from tuner.cli.main import main
main()
"""


def test_what_is_killed_amid_an_epoch_comes_to_the_same_end(
    tuned: FineTuning, letters: Path, tmp_path: Path
) -> None:
    experiment(tmp_path, letters, FINE_TUNE)
    killed = subprocess.run(
        [sys.executable, "-c", AMID_AN_EPOCH, "fine-tune", "--experiment", "a.yaml"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "epoch 2/4" in killed.stdout
    assert "epoch 3/4" not in killed.stdout
    said = succeeds(tmp_path, "fine-tune", "--resume", "last")
    assert "2 epochs ended before and count" in said
    assert re.findall(r"epoch (\d)/4", said) == ["3", "4"]
    gone_on = FineTuning(tmp_path)
    assert gone_on.run().info.status == "FINISHED"
    assert gone_on.epochs(gone_on.run()) == tuned.epochs(tuned.run())
    assert all(map(np.array_equal, gone_on.weights(), tuned.weights()))
    tests = [
        {name: value for name, value in one.run().data.metrics.items() if name.startswith("test_")}
        for one in (gone_on, tuned)
    ]
    assert tests[0] == tests[1]
    sentence = refused(tmp_path, "fine-tune", "--resume", "last")
    assert f"The fine-tuning {gone_on.run().info.run_id} has come to its end" in sentence


def stop(process: SearchProcess, run: Run) -> None:
    """Ctrl-C at a terminal: all processes get it; it is over in seconds, and says how to go on."""
    os.killpg(process.process.pid, signal.SIGINT)
    assert process.end(60) == 128 + signal.SIGINT, process.output()
    how = f"Resume it with: tuner fine-tune --resume {run.info.run_id}\n"
    assert process.said().endswith(f"tuner: stopped.\nThe epochs that ended are kept.\n{how}")
    assert "Traceback" not in process.said()


def test_ctrl_c_stops_a_training_in_order(letters: Path, tmp_path: Path) -> None:
    experiment(tmp_path, letters, FINE_TUNE)
    found = FineTuning(tmp_path)
    with SearchProcess(
        tmp_path, "fine-tune", "--experiment", "a.yaml", "--epochs", 5000, "--unfreeze", -2
    ) as process:
        wait_until(lambda: "epoch 3/5001" in process.said(), 400)
        stop(process, found.run())
    assert found.run().info.status == "KILLED"
    assert "tuner.stopped" in found.run().data.tags
    assert not (tmp_path / ".tuner" / "training" / found.run().info.run_id / "images").exists()
    sentence = refused(tmp_path, "fine-tune", "--resume", "last", "--learning_rate", "0.5")
    assert "fine_tune.learning_rate was 0.001 and is 0.5" in sentence


def test_trials_that_are_behind_are_stopped_and_the_winner_is_trained_to_the_end(
    halved: FineTuning,
) -> None:
    said = (halved.folder / "said.txt").read_text()
    assert "4 trials of learning_rate, dropout: 4 to epoch 2, 2 to epoch 4, 1 to epoch 8" in said
    run, trials, table = halved.run(), halved.trials(), halved.leaderboard()
    assert len(trials) == 4
    rates = [float(trial.data.params["learning_rate"]) for trial in trials]
    nan = [number for number, rate in enumerate(rates, start=1) if rate == 1e30]
    assert nan  # what is drawn from this seed has one at least
    for trial in trials:
        number, status = int(trial.data.tags["tuner.trial"]), trial.info.status
        assert status == ("FAILED" if number in nan else "FINISHED")
        if number in nan:
            assert f"trial {number:03d} failed: {no_number(1).rstrip('.')}" in said
    best = int(run.data.tags["tuner.best_trial"])
    stopped = [trial for trial in trials if "tuner.halved" in trial.data.tags]
    behind = {int(trial.data.tags["tuner.trial"]) for trial in stopped}
    assert behind == {1, 2, 3, 4} - set(nan) - {best}
    for trial in stopped:
        why = trial.data.tags["tuner.halved"]
        assert re.match(r"stopped after epoch [24]: rank \d of \d by accuracy \(0\.\d+\); \d go on", why)
        assert re.search(rf"behind and stopped: .*{int(trial.data.tags['tuner.trial']):03d} \(acc", said)
    epochs = table.set_index("trial")["epochs"].to_dict()
    assert epochs[best] == 8
    assert sorted(halved.epochs(trials[best - 1])["loss"]) == list(range(1, 9))
    assert all(epochs[number] in (2, 4) for number in behind)
    assert run.info.status == "FINISHED"
    assert "test_accuracy" in run.data.metrics
    assert aliases_of(halved.client, "letters") == {"champion": 1}
    assert not list((halved.folder / ".tuner" / "training").iterdir())


def test_trials_that_were_killed_and_stopped_come_to_the_same_end(
    halved: FineTuning, letters: Path, tmp_path: Path
) -> None:
    experiment(tmp_path, letters, HALVED)
    found = FineTuning(tmp_path)

    def at_work() -> bool:
        """Whether a trial is in the midst of its epochs; no store is made here."""
        return (tmp_path / "mlflow.db").exists() and any(tmp_path.glob(".tuner/training/*/*/last.npz"))

    with SearchProcess(tmp_path, "fine-tune", "--experiment", "a.yaml") as process:
        wait_until(at_work, 400)
        process.process.kill()
        process.end()
    with SearchProcess(tmp_path, "fine-tune", "--resume", "last") as process:
        wait_until(lambda: "epoch 2: " in process.said(), 400)
        stop(process, found.run())
    assert found.run().info.status == "KILLED"
    assert not {"RUNNING", "SCHEDULED"} & {trial.info.status for trial in found.trials()}
    succeeds(tmp_path, "fine-tune", "--resume", "last")
    tables = [one.leaderboard().drop(columns=["run_id", "seconds"]) for one in (found, halved)]
    pd.testing.assert_frame_equal(*tables)
    statuses = [[trial.info.status for trial in one.trials()] for one in (found, halved)]
    assert statuses[0] == statuses[1]
    assert all(map(np.array_equal, found.weights(), halved.weights()))


def test_who_was_stopped_stays_stopped_even_if_others_fail(letters: Path, tmp_path: Path) -> None:
    """After the warm-up, which is the same for all, the first three go on, and two of them fail."""
    settings = FINE_TUNE.replace("epochs: 3", "epochs: 7")
    rates = "  learning_rate: [1e30, 1e-3, 1e-2, 1e29, 1e-4]\n  max_evals: 5\n"
    experiment(tmp_path, letters, settings + rates)
    said = succeeds(tmp_path, "fine-tune", "--experiment", "a.yaml")
    assert "5 to epoch 1, 3 to epoch 2, 2 to epoch 4, 1 to epoch 8" in said
    assert "epoch 1: 3 go on; behind and stopped: 004" in said
    assert "epoch 2: 1 go on; behind and stopped: none" in said
    found = FineTuning(tmp_path)
    trials = found.trials()
    assert [trial.info.status for trial in trials] == ["FAILED", "FAILED", *["FINISHED"] * 3]
    assert ["tuner.halved" in trial.data.tags for trial in trials] == [False] * 3 + [True] * 2
    assert [max(found.epochs(trial)["loss"]) for trial in trials] == [1, 1, 8, 1, 1]


def test_where_all_that_went_on_fail_the_best_that_was_stopped_wins(letters: Path, tmp_path: Path) -> None:
    settings = FINE_TUNE.replace("epochs: 3", "epochs: 7")
    rates = "  learning_rate: [1e30, 1e-3, 1e-2, 1e29, 1e-4]\n  max_evals: 5\n  reduction: 3\n"
    experiment(tmp_path, letters, settings + rates)
    said = succeeds(tmp_path, "fine-tune", "--experiment", "a.yaml")
    assert "5 to epoch 1, 2 to epoch 3, 1 to epoch 8" in said
    assert "of those that were stopped, 003 is the best, as it was after epoch 1" in said
    found = FineTuning(tmp_path)
    assert found.run().data.tags["tuner.best_trial"] == "3"
    assert found.run().data.metrics["best_epoch"] == 1
    assert found.leaderboard()["trial"].tolist()[0] == 3
    assert aliases_of(found.client, "letters") == {"champion": 1}


def test_a_loss_that_is_no_number_ends_it_with_the_epoch(letters: Path, tmp_path: Path) -> None:
    experiment(tmp_path, letters, FINE_TUNE)
    sentence = refused(tmp_path, "fine-tune", "--experiment", "a.yaml", "--learning_rate", "1e30", code=1)
    assert no_number(2) in sentence
    found = FineTuning(tmp_path)
    assert found.run().info.status == "FAILED"
    assert "at epoch 2" in found.artifact("error.txt").read_text()


def test_what_cannot_be_trained_is_one_sentence(letters: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    small_network().save(tmp_path / "twelve.keras")
    own = "{{name: mine, file: {}, input_size: {}, preprocessing: unit}}"
    bases = {
        own.format("empty", 32): "has no serving signature serving_default, so it is not known what to",
        own.format("twelve.keras", 32): "takes images of 12 x 12 pixels, and its input_size is stated",
        own.format("nowhere.keras", 32): "There is no file nowhere.keras for the network mine",
    }
    for base, sentence in bases.items():
        experiment(tmp_path, letters, f"fine_tune: {{base: {base}}}\n")
        assert sentence in refused(tmp_path, "fine-tune", "--experiment", "a.yaml")
    experiment(tmp_path, letters, FINE_TUNE)
    sentence = refused(tmp_path, "fine-tune", "--experiment", "a.yaml", "--batch_size", "99")
    assert "fine_tune.batch_size is 99, and there are 30 images to learn from: set it to 30" in sentence
    shutil.copytree(letters / "A", tmp_path / "one" / "A")
    sentence = refused(tmp_path, "fine-tune", "--experiment", "a.yaml", "--images", "one")
    assert "There is only the class A in" in sentence


def test_a_saved_model_is_trained_registered_and_a_backbone_as_one(letters: Path, tmp_path: Path) -> None:
    import_keras().models.load_model(NETWORK_FILES["GlyphNet"]).export(tmp_path / "graph", verbose=False)
    base = "base: {name: mine, file: graph, input_size: 32, preprocessing: unit}"
    settings = FINE_TUNE.replace(
        "unfreeze: -3", f"unfreeze: all\n  {base}\n  early_stop: 1\n  batch_normalization: false"
    ).replace(
        "warm_up_epochs: 1\n  warm_up_learning_rate: 1e-2",
        "warm_up_epochs: 4\n  warm_up_learning_rate: 1e-12",
    )
    experiment(tmp_path, letters, settings)
    said = succeeds(tmp_path, "fine-tune", "--experiment", "a.yaml")
    assert (
        "warm-up ended after epoch 2: 1 epochs brought no gain on the validation part since epoch 1" in said
    )
    assert "epoch 5/7 · tuning" in said
    found = FineTuning(tmp_path)
    assert (found.artifact("network") / "saved_model" / "saved_model.pb").is_file()
    contents = some_files(letters)
    shutil.rmtree(tmp_path / "graph")
    with tracking(found.uri):
        whole = mlflow.keras.load_model(f"runs:/{found.run().info.run_id}/keras")
    images = np.stack([load_input(content, (32, 32), "unit") for content in contents])
    expected = np.asarray(whole.serve(images))
    np.testing.assert_allclose(answers(found.uri, contents), expected, atol=1e-5)
    backbone = f"[{{name: tuned, file: runs:/{found.run().info.run_id}/network}}]"
    experiment(tmp_path, letters, "", backbone=backbone)
    assert "62 images extracted" in succeeds(tmp_path, "search", "--experiment", "a.yaml")


def test_a_small_cnn_learns_from_parquet_on_a_hadoop_filesystem(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spark writes images as Parquet; trained, saved and loaded again, the network answers the same."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "conf").mkdir()
    lines = [
        f"spark.hadoop.{name} {value}" for name, value in mount_settings(tmp_path / "disk", "c").items()
    ]
    (tmp_path / "conf" / "spark-defaults.conf").write_text("\n".join(lines))
    for number in range(20):
        for letter in "AX":
            (tmp_path / "pictures" / letter).mkdir(parents=True, exist_ok=True)
            glyph(letter, number).save(tmp_path / "pictures" / letter / f"{number}.png")
    files = spark.read.format("binaryFile").load(str(tmp_path / "pictures" / "*" / "*.png"))
    table = files.selectExpr("path", "content", "element_at(split(path, '/'), -2) as label")
    table.repartition(3, "path").write.parquet(str(tmp_path / "disk" / "pictures"))
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "conf"))
    settings = "fine_tune: {base: small-cnn, units: 8, batch_size: 8, epochs: 3}\n"
    split = "{test: 1/4, validation: cv:3}"
    experiment(tmp_path, "viewfs://c/mounted/pictures", settings, split=split)
    said = succeeds(tmp_path, "fine-tune", "--experiment", "a.yaml")
    assert "fold-0 validates, and all other folds are learned from" in said
    assert "small-cnn, trained: epoch" in said
    found = FineTuning(tmp_path)
    contents = {row.path: bytes(row.content) for row in table.collect()}
    table_ = json.loads(found.artifact("predictions.json").read_text())
    frame = pd.DataFrame(table_["data"], columns=table_["columns"])
    probability = answers(found.uri, [contents[path] for path in frame["path"]])
    np.testing.assert_allclose(probability.max(axis=1), frame["probability"], atol=1e-5)


def test_python_trains_as_the_command_does(letters: Path, store: Tracking, driver: object) -> None:
    """In the session that runs already, for which no worker imports ahead."""
    with mlflow.start_run() as outer:
        result = package.fine_tune(
            letters,
            name="from python",
            base="small-cnn",
            epochs=2,
            batch_size=8,
            learning_rate=(1e-4, 1e-2),
            max_evals=2,
            parallelism=1,
            cache="cache",
        )
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == outer.info.run_id
    assert (result.base, len(result.epochs)) == ("small-cnn", 2)
    assert result.trials is not None
    assert sorted(result.trials["epochs"]) == [1, 2]
    assert result.values["learning_rate"] in set(result.trials["learning_rate"])
    assert result.network == f"runs:/{result.run_id}/network"
    assert set(result.test.metrics) >= {"accuracy", "logLoss"}
    run = store.client().get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert run.data.params["fine_tune.epochs"] == "2"
    assert (result.version.name, result.version.version) == ("from python", "1")


def test_mlflow_run_fine_tunes(letters: Path, tmp_path: Path) -> None:
    experiment(tmp_path, letters, "fine_tune: {units: 8, precision: bfloat16}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    given = {
        "experiment": tmp_path / "a.yaml",
        "base": "small-cnn",
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 0.01,
        "cache": tmp_path / ".tuner",
    }
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "mlflow",
                "run",
                str(ROOT),
                "-e",
                "fine_tune",
                "--env-manager",
                "local",
            ),
            *(part for name, value in given.items() for part in ("-P", f"{name}={value}")),
        ],
        cwd=tmp_path,
        env=environment
        | {
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = FineTuning(tmp_path)
    run = found.run()
    assert found.client.get_experiment(run.info.experiment_id).name == "letters"
    assert run.data.params["fine_tune.learning_rate"] == "0.01"
    assert sorted(found.epochs(run)["loss"]) == [1]
