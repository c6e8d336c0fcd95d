"""Trials on real workers, through Spark Connect, on a table of made-up features."""

import json
import os
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from hyperopt import STATUS_OK
from pyspark.ml.functions import array_to_vector
from pyspark.sql import functions as F

from tuner.base.errors import SearchError
from tuner.experiment.schema import Experiment, NetworkSpec, SearchSettings
from tuner.networks.resolution import resolve_network
from tuner.networks.store import NetworkStore
from tuner.reports.search import log_trials
from tuner.spark.sessions import DriverSession
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import RunLog
from tuner.tracking.store import Tracking
from tuner.trials.space import NUMBER
from tuner.trials.spark_trials import make_trials, results_of, run_trials
from tuner.trials.trial import Trial

LABELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}?timeout=60"
    client = mlflow.MlflowClient(uri)
    return Tracking(uri, client.create_experiment("trials", artifact_location=str(folder / "artifacts")))


@pytest.fixture(scope="module")
def view(driver: DriverSession) -> str:
    rng = np.random.default_rng(0)
    label = np.tile(np.arange(3), 40)
    rows = pd.DataFrame(
        {
            "path": [f"{number:03d}" for number in range(120)],
            "label_index": label.astype("int32"),
            "part": np.where(np.arange(120) < 60, "train", "validation"),
            "values": list(rng.normal(size=(120, 128)) + 2 * np.eye(3)[label] @ rng.normal(size=(3, 128))),
        }
    )
    frame = driver.spark.createDataFrame(rows).withColumn("features", array_to_vector(F.col("values")))
    frame.drop("values").coalesce(1).cache().createOrReplaceGlobalTempView("made_up")
    return "global_temp.made_up"


@pytest.fixture
def trial(driver: DriverSession, tracking: Tracking, view: str, tmp_path: Path) -> Trial:
    backbone = resolve_network(NetworkSpec(name="GlyphNet"), "float32", NetworkStore(tmp_path))
    parent = tracking.client().create_run(tracking.experiment_id)
    return Trial(
        endpoint=driver.endpoint,
        tracking=tracking,
        parent_id=parent.info.run_id,
        tables={"GlyphNet": view, "gone": "global_temp.no_such_view"},
        networks={"GlyphNet": backbone},
        labels=LABELS,
        folds=0,
        metric="accuracy",
        staging=tmp_path,
        example=b"the bytes of an image",
        unsent=tmp_path / "unsent",
    )


def on_worker(driver: DriverSession, trial: Trial, **point) -> dict:
    """Call the trial where SparkTrials does: in a Spark task."""
    point = {
        NUMBER: 1,
        "backbone": "GlyphNet",
        "regParam": 0.01,
        "elasticNetParam": 0.5,
        "maxIter": 9,
    } | point

    def run(_):
        return {"pid": os.getpid(), "document": trial(point)}

    (answer,) = driver.spark.sparkContext.parallelize([0], 1).map(run).collect()
    assert answer["pid"] != os.getpid()
    return answer["document"]


def result_of(document: dict) -> TrialResult:
    result = TrialResult.of_document(document)
    assert result is not None
    assert (document["status"] == STATUS_OK) == result.finished, result
    return result


def test_trial_fits_on_the_cluster_and_logs_what_it_did(driver: DriverSession, trial: Trial):
    document = on_worker(driver, trial)
    result = result_of(document)
    assert document["loss"] == -result.metrics["accuracy"]
    assert result.metrics["accuracy"] > 0.9
    run = trial.tracking.client().get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "001-glyphnet"
    assert run.data.params == {
        "backbone": "GlyphNet",
        "regParam": "0.01",
        "elasticNetParam": "0.5",
        "maxIter": "9",
    }
    (model,) = trial.tracking.client().search_logged_models([trial.tracking.experiment_id])
    assert model.source_run_id == result.run_id


def test_folds_give_mean_metrics_their_errors_and_pooled_predictions(driver: DriverSession, trial: Trial):
    frame = driver.spark.table("global_temp.made_up")
    fold = F.concat(F.lit("fold-"), (F.col("path").cast("int") % 4).cast("string"))
    frame.withColumn("part", fold).cache().createOrReplaceGlobalTempView("made_up_folds")
    folded = Trial(**{**vars(trial), "folds": 4, "tables": {"GlyphNet": "global_temp.made_up_folds"}})
    result = result_of(on_worker(driver, folded))
    assert result.metrics["accuracy_std_error"] >= 0
    file = mlflow.artifacts.download_artifacts(
        f"runs:/{result.run_id}/predictions.json", tracking_uri=trial.tracking.uri
    )
    table = json.loads(Path(file).read_text(encoding="utf-8"))
    assert sorted(row[0] for row in table["data"]) == [f"{number:03d}" for number in range(120)]


@pytest.mark.parametrize(
    ("point", "reason"),
    [({"regParam": -1.0}, "regParam"), ({"backbone": "gone"}, "no_such_view")],
)
def test_failing_trial_is_a_failed_run_with_its_reason(
    driver: DriverSession, trial: Trial, point: dict, reason: str
):
    result = result_of(on_worker(driver, trial, **point))
    assert not result.finished
    assert reason in result.reason
    assert "\n" not in result.reason
    run = trial.tracking.client().get_run(result.run_id)
    assert run.info.status == "FAILED"
    file = mlflow.artifacts.download_artifacts(
        f"runs:/{result.run_id}/error.txt", tracking_uri=trial.tracking.uri
    )
    text = Path(file).read_text(encoding="utf-8")
    assert reason in text
    assert "Traceback" in text


def test_search_whose_trials_all_fail_says_why(driver: DriverSession, trial: Trial):
    experiment = Experiment(
        name="e", images="i", search=SearchSettings(backbone="gone", max_evals=3, parallelism=2)
    )
    trials = make_trials(driver.spark, experiment.search)
    run_trials(trials, trial, experiment.search)
    run = RunLog(trial.tracking.client(), trial.parent_id)
    with pytest.raises(SearchError, match=r"^None of the 3 trials succeeded: .*no_such_view"):
        log_trials(run, results_of(trials), experiment.search.metric)


def test_loss_of_a_metric_where_lower_is_better_is_the_metric(driver: DriverSession, trial: Trial):
    document = on_worker(driver, Trial(**{**vars(trial), "metric": "logLoss"}))
    assert document["loss"] == result_of(document).metrics["logLoss"] > 0
