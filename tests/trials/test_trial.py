"""Trials on real workers, on made-up features: fitted there, and by MLlib through Spark Connect."""

import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from hyperopt import STATUS_OK
from pyspark.ml import PipelineModel
from pyspark.ml.functions import array_to_vector
from pyspark.sql import functions as F
from sqlalchemy import create_engine, text

from tests.helpers.databases import PostgresServer
from tests.helpers.hadoop import mount
from tuner.base.errors import SearchError
from tuner.classifiers.heads.files import read_head
from tuner.classifiers.table import CLASSIFIERS
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.schema import Experiment
from tuner.experiment.search import SearchSettings
from tuner.models.flavor import write_model_files
from tuner.networks.resolution import resolve_network
from tuner.networks.store import NetworkStore
from tuner.preparation.matrices import FeatureMatrices
from tuner.reports.search import log_trials
from tuner.searches.resume import EarlierSearch, ended_trials
from tuner.spark.sessions import DriverSession
from tuner.tracking import answering
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import RunLog
from tuner.tracking.runs import trial_runs
from tuner.tracking.store import Tracking, open_tracking
from tuner.tracking.unsent_trials import push
from tuner.trials.space import NUMBER
from tuner.trials.spark_trials import make_trials, results_of, run_trials
from tuner.trials.trial import Trial

LABELS = ("a", "b", "c")
EXPERIMENT = Experiment(name="e", images="i", search=SearchSettings(backbone="GlyphNet"))


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}?timeout=60"
    client = mlflow.MlflowClient(uri)
    return Tracking(uri, client.create_experiment("trials", artifact_location=str(folder / "artifacts")))


def made_up_rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    label = np.tile(np.arange(3), 40)
    values = rng.normal(size=(120, 128)) + 2 * np.eye(3)[label] @ rng.normal(size=(3, 128))
    return pd.DataFrame(
        {
            "path": [f"{number:03d}" for number in range(120)],
            "label_index": label.astype("int32"),
            "part": np.where(np.arange(120) < 60, "train", "validation"),
            "values": list(values.astype(np.float32)),
        }
    )


def matrices_of(rows: pd.DataFrame, folder: Path) -> FeatureMatrices:
    """What the driver writes for the workers."""
    folder.mkdir()
    rows = rows.sort_values(["part", "path"])
    rows.drop(columns="values").to_parquet(folder / "rows.parquet")
    values = np.stack(list(rows["values"]))
    np.save(folder / "0-GlyphNet.npy", values)
    return FeatureMatrices(folder, {"GlyphNet": "0-GlyphNet.npy"}, values.nbytes)


def view_of(driver: DriverSession, rows: pd.DataFrame, name: str) -> str:
    """What the cluster holds of the same."""
    frame = driver.spark.createDataFrame(rows).withColumn("features", array_to_vector(F.col("values")))
    frame.drop("values").coalesce(1).cache().createOrReplaceGlobalTempView(name)
    return f"global_temp.{name}"


@pytest.fixture
def trial(tracking: Tracking, tmp_path: Path) -> Trial:
    """One that fits in the worker."""
    network = resolve_network(NetworkSpec(name="GlyphNet"), "float32", NetworkStore(tmp_path))
    parent = tracking.client().create_run(tracking.experiment_id)
    write_model_files(tmp_path / "model", b"the bytes of an image")
    return Trial(
        tracking=tracking,
        parent_id=parent.info.run_id,
        networks={"GlyphNet": replace(network, width=128)},
        labels=LABELS,
        folds=0,
        metric="accuracy",
        model_files=tmp_path / "model",
        saved=tmp_path / "saved",
        unsent=tmp_path / "unsent",
        matrices=matrices_of(made_up_rows(), tmp_path / "features"),
    )


@pytest.fixture
def spark_trial(driver: DriverSession, trial: Trial) -> Trial:
    """The same, that fits on the cluster."""
    view = view_of(driver, made_up_rows(), "made_up")
    return replace(
        trial,
        networks=dict.fromkeys(["GlyphNet", "gone"], trial.networks["GlyphNet"]),
        matrices=None,
        on_spark=frozenset({"LogisticRegression"}),
        tables={"GlyphNet": view, "gone": "global_temp.no_such_view"},
        endpoint=driver.endpoint,
    )


def on_worker(driver: DriverSession, trial: Trial, **point) -> dict:
    """Call the trial where SparkTrials does: in a Spark task."""
    point = POINT | point

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


@pytest.mark.parametrize("way", ["trial", pytest.param("spark_trial", marks=pytest.mark.long)])
def test_a_trial_fits_and_logs_what_it_did(driver: DriverSession, request: pytest.FixtureRequest, way: str):
    trial = request.getfixturevalue(way)
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
    models = trial.tracking.client().search_logged_models([trial.tracking.experiment_id])
    (model,) = [model for model in models if model.source_run_id == result.run_id]
    assert {metric.key for metric in model.metrics} >= {"accuracy", "logLoss"}


POINT = {NUMBER: 1, "backbone": "GlyphNet", "regParam": 0.01, "elasticNetParam": 0.5, "maxIter": 9}
OTHERS = {
    "sklearn.Ridge": {"alpha": 1.0, "prestep": {"prestep": "PCA", "k": 9.0}},
    "sklearn.RandomForest": {"n_estimators": 5},
    "LogisticRegression": {"regParam": 0.01, "maxIter": 5, "elasticNetParam": 0.5, "prestep": "Normalizer"},
    "DecisionTree": {"maxDepth": 3, "prestep": {"prestep": "PCA", "k": 9.0}},
    "LinearSVC": {"maxIter": 3},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_trial_of_any_classifier_logs_a_model_whose_two_faces_agree(
    driver: DriverSession, trial: Trial, name: str, tmp_path: Path
) -> None:
    view = view_of(driver, made_up_rows(), "others")
    either = replace(
        trial,
        tables={"GlyphNet": view},
        endpoint=driver.endpoint,
        on_spark=frozenset({"DecisionTree", "LinearSVC"}),
    )
    if name == "LinearSVC":  # as on a cluster whose machines share no folder
        either = replace(either, saved=f"{mount(driver.spark, tmp_path / 'below')}/saved")
    nested = {"backbone": "GlyphNet", "classifier": {"classifier": name, **OTHERS[name]}, NUMBER: 1}
    (document,) = driver.spark.sparkContext.parallelize([nested], 1).map(either).collect()
    result = result_of(document)
    row = CLASSIFIERS[name]
    assert ("logLoss" in result.metrics) == (row.gives == "probability")
    run = trial.tracking.client().get_run(result.run_id)
    assert run.data.params["classifier"] == name
    assert TrialResult.of_run(run, "accuracy") is not None
    given = set(OTHERS[name]) | ({"k"} if isinstance(OTHERS[name].get("prestep"), dict) else set())
    assert set(run.data.params) == {"backbone", "classifier"} | given

    models = trial.tracking.client().search_logged_models([trial.tracking.experiment_id])
    (model,) = [model for model in models if model.source_run_id == result.run_id]
    folder = Path(model.artifact_location.removeprefix("file://"))
    kind = json.loads((folder / "scorer/scorer.json").read_text())["head"]
    head = read_head(folder / "scorer", kind)
    assert head.gives == row.gives
    rows = driver.spark.table(view).collect()
    expected = head.score(np.stack([row.features.toArray() for row in rows]))
    pipeline = PipelineModel.load(str(folder / "sparkml"))
    assert len(pipeline.stages) == 3 + (kind == "stepped")
    answers = PipelineModel(pipeline.stages[1:-1]).transform(driver.spark.table(view)).collect()
    np.testing.assert_allclose(np.stack([a[row.gives].toArray() for a in answers]), expected, atol=1e-9)
    assert [answer.prediction for answer in answers] == expected.argmax(axis=1).tolist()


ENDS_THE_FIRST_WRITER = """
create sequence writers;
create function end_the_first() returns trigger language plpgsql as $$
begin
  if nextval('writers') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if;
  return new;
end $$;
create trigger first_writer before insert on metrics for each row execute function end_the_first();
"""


@pytest.mark.long
def test_what_a_trial_found_is_logged_again_when_its_database_cut_it_off(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    server = PostgresServer(tmp_path)
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    store = open_tracking("trials")
    parent = store.client().create_run(store.experiment_id).info.run_id
    with create_engine(server.uri).begin() as connection:
        connection.execute(text(ENDS_THE_FIRST_WRITER))
    result = result_of(replace(trial, tracking=store, parent_id=parent)(POINT))
    assert result.finished
    assert not result.unsent
    runs = {run.info.run_id: run for run in trial_runs(store, parent)}
    assert sorted(run.info.status for run in runs.values()) == ["FAILED", "FINISHED"]
    assert runs[result.run_id].data.metrics["accuracy"] == result.metrics["accuracy"]
    (ended,) = ended_trials(EarlierSearch(store, parent, EXPERIMENT, None, "KILLED", datetime.now()))
    assert ended.finished
    server.stop()


@pytest.mark.long
def test_what_a_trial_found_waits_on_disk_when_its_database_is_gone(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(answering, "_WAIT_SECONDS", 2)
    server = PostgresServer(tmp_path)
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    store = open_tracking("trials")
    parent = store.client().create_run(store.experiment_id).info.run_id
    server.stop()
    result = result_of(replace(trial, tracking=store, parent_id=parent)(POINT))
    assert result.finished
    assert result.unsent
    server.start()
    mlflow.set_tracking_uri(server.uri)
    assert push(trial.unsent) == (1, [parent])
    assert [run.info.status for run in trial_runs(store, parent)] == ["FINISHED"]
    server.stop()


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_worker_and_cluster_find_the_same(
    driver: DriverSession, trial: Trial, spark_trial: Trial, class_weight: str
):
    found = [
        result_of(on_worker(driver, replace(each, class_weight=class_weight))).metrics
        for each in (trial, spark_trial)
    ]
    names = found[0].keys() - {"fit_seconds"}
    assert {name: found[0][name] for name in names} == pytest.approx(
        {name: found[1][name] for name in names}, abs=1e-6
    )


def test_folds_give_mean_metrics_their_errors_and_pooled_predictions(
    driver: DriverSession, trial: Trial, tmp_path: Path
):
    rows = made_up_rows()
    rows["part"] = [f"fold-{int(path) % 4}" for path in rows["path"]]
    folded = replace(trial, folds=4, matrices=matrices_of(rows, tmp_path / "folds"))
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
    driver: DriverSession, spark_trial: Trial, point: dict, reason: str
):
    trial = spark_trial
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


def test_trial_that_takes_too_long_is_a_failed_run_that_says_so(driver: DriverSession, trial: Trial):
    result = result_of(on_worker(driver, replace(trial, timeout=1e-4)))
    assert result.reason == "The trial took longer than trial_timeout, 0.0001 s, and was ended"
    assert trial.tracking.client().get_run(result.run_id).info.status == "FAILED"


@pytest.mark.long
def test_search_whose_trials_all_fail_says_why(driver: DriverSession, spark_trial: Trial):
    trial = spark_trial
    experiment = Experiment(
        name="e", images="i", search=SearchSettings(backbone="gone", max_evals=3, parallelism=2)
    )
    trials = make_trials(driver.spark, experiment.search)
    run_trials(trials, trial, experiment.search)
    run = RunLog(trial.tracking.client(), trial.parent_id, trial.tracking.experiment_id)
    with pytest.raises(SearchError, match=r"^None of the 3 trials succeeded: .*no_such_view"):
        log_trials(run, results_of(trials), experiment.search.metric)


def test_loss_of_a_metric_where_lower_is_better_is_the_metric(driver: DriverSession, trial: Trial):
    document = on_worker(driver, replace(trial, metric="logLoss"))
    assert document["loss"] == result_of(document).metrics["logLoss"] > 0
