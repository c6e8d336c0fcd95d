import csv
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import mlflow
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from mlflow.entities import LoggedModel, Run
from mlflow.models import Model
from mlflow.pyfunc import add_to_model
from PIL import Image

from tests.helpers.experiments import experiments
from tuner.base.errors import TrackingError
from tuner.experiment.file import read_experiment
from tuner.experiment.schema import Experiment
from tuner.tracking.names import EXPERIMENT_FILE
from tuner.tracking.run_log import RunLog, read_artifact
from tuner.tracking.store import Tracking


@pytest.fixture
def log(store: Tracking) -> RunLog:
    return new_log(store)


def new_log(store: Tracking) -> RunLog:
    client = store.client()
    return RunLog(client, client.create_run(store.experiment_id).info.run_id, store.experiment_id)


def resumed(store: Tracking, log: RunLog) -> RunLog:
    return RunLog(store.client(), log.run_id, store.experiment_id, run_of(store, log))


def run_of(store: Tracking, log: RunLog) -> Run:
    return store.client().get_run(log.run_id)


def text(store: Tracking, log: RunLog, file: str) -> str:
    path = mlflow.artifacts.download_artifacts(f"runs:/{log.run_id}/{file}", tracking_uri=store.uri)
    return Path(path).read_bytes().decode("utf-8")


def test_a_batch_writes_all_that_a_run_holds(store: Tracking, log: RunLog) -> None:
    log.batch(params={"p": 1}, metrics={"m": 0.5}, tags={"t": 2}, histories={"h": [3, 2, 1]})
    data = run_of(store, log).data
    assert (data.params, data.metrics["m"], data.tags["t"]) == ({"p": "1"}, 0.5, "2")
    history = store.client().get_metric_history(log.run_id, "h")
    assert [(point.step, point.value) for point in history] == [(0, 3), (1, 2), (2, 1)]


def test_what_is_written_is_there_whatever_the_environment_says_of_waiting(
    store: Tracking, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS", "3")
    log.batch(params={"p": 1}, metrics={"m": 0.5}, tags={"t": 2})
    data = run_of(store, log).data
    assert (data.params, data.metrics, data.tags["t"]) == ({"p": "1"}, {"m": 0.5}, "2")


def test_a_parameter_that_changed_in_a_resumed_search_is_a_tag(store: Tracking, log: RunLog) -> None:
    """MLflow changes no parameter."""
    log.batch(params={"same": 1, "changed": 2})
    resumed(store, log).batch(params={"same": 1, "changed": 3, "new": 4})
    data = run_of(store, log).data
    assert data.params == {"same": "1", "changed": "2", "new": "4"}
    assert data.tags["changed"] == "3"
    assert "same" not in data.tags


@pytest.mark.parametrize("file", ["leaderboard.json", "tables/leaderboard.json"])
def test_a_table_of_a_resumed_search_is_replaced(store: Tracking, log: RunLog, file: str) -> None:
    """MLflow's own `log_table` would append to it."""
    before, after = pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2, 3], "b": [None, "ñ"]})
    log.table(before, file)
    assert json.loads(text(store, log, file)) == {"columns": ["a"], "data": [[1]]}
    resumed(store, log).table(after, file)
    assert json.loads(text(store, log, file)) == {"columns": ["a", "b"], "data": [[2, None], [3, "ñ"]]}


def tables_of(store: Tracking, log: RunLog) -> list[dict[str, str]]:
    """What tells MLflow's UI which artifacts are tables."""
    return json.loads(run_of(store, log).data.tags["mlflow.loggedArtifacts"])


def test_tables_are_what_mlflow_s_own_client_writes(store: Tracking, log: RunLog) -> None:
    table = pd.DataFrame(
        {"path": ["ñ <b>.png", "b"], "share": [0.1, None], "day": pd.Timestamp("2024-05-01")}
    )
    theirs, client = new_log(store), store.client()
    for file in ("leaderboard.json", "tables/other.json", "predictions.json"):
        client.log_table(theirs.run_id, table, file)
    log.table(table, "leaderboard.json")
    log.table(table, "tables/other.json")
    log.batch(tags=log.tables_tag("predictions.json"))  # of one that is uploaded with other files
    assert tables_of(store, log) == tables_of(store, theirs)
    for file in ("leaderboard.json", "tables/other.json"):
        assert text(store, log, file) == text(store, theirs, file)


def test_all_tables_of_a_resumed_search_stay_tables(store: Tracking, log: RunLog) -> None:
    log.table(pd.DataFrame({"a": [1]}), "leaderboard.json")
    log.table(pd.DataFrame({"a": [1]}), "disagreements.json")
    again = resumed(store, log)
    again.table(pd.DataFrame({"a": [2]}), "leaderboard.json")
    again.batch(tags=again.tables_tag("predictions.json"))
    names = [table["path"] for table in tables_of(store, log)]
    assert names == ["leaderboard.json", "disagreements.json", "predictions.json"]


def test_a_csv_keeps_names_that_hold_line_ends_and_quotes(store: Tracking, log: RunLog) -> None:
    names = ["two\nlines", 'a "quoted", name', "ñ"]
    log.csv(pd.DataFrame({"path": names, "reason": "why"}), "quarantine.csv")
    rows = list(csv.reader(io.StringIO(text(store, log, "quarantine.csv"), newline="")))
    assert rows == [["path", "reason"], *([name, "why"] for name in names)]


def test_each_kind_of_artifact_is_read_back(store: Tracking, log: RunLog, tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["ñ.png", "b"], "n": [1, 2]})
    log.parquet(table, "tables/split.parquet")
    log.json({"a": [1]}, "a.json")
    log.image(Image.new("L", (3, 2)), "picture")
    log.finish()
    folder = tmp_path / "read"
    folder.mkdir()
    found = read_artifact(store, log.run_id, "tables/split.parquet", folder)
    pd.testing.assert_frame_equal(pd.read_parquet(found), table)
    assert json.loads(read_artifact(store, log.run_id, "a.json", folder).read_text()) == {"a": [1]}
    images = {Path(file.path).suffix for file in store.client().list_artifacts(log.run_id, "images")}
    assert ".png" in images
    assert run_of(store, log).info.status == "FINISHED"


def test_an_artifact_that_is_not_there_is_one_sentence(
    store: Tracking, log: RunLog, tmp_path: Path
) -> None:
    with pytest.raises(TrackingError, match=r"^The run \w+ has no other\.json that can be read: [^\n]+\.$"):
        read_artifact(store, log.run_id, "other.json", tmp_path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=experiments)
def test_an_experiment_comes_back_equal_from_its_run(
    store: Tracking, log: RunLog, tmp_path: Path, data: dict
) -> None:
    """Of any kind: `tests/experiment` tries more of them, without MLflow."""
    experiment = Experiment.model_validate(data)
    log.yaml(experiment.to_yaml_dict(), EXPERIMENT_FILE)
    read = read_experiment(read_artifact(store, log.run_id, EXPERIMENT_FILE, tmp_path))
    assert read == experiment


def test_a_folder_becomes_artifacts_once_it_is_whole(store: Tracking, log: RunLog) -> None:
    with log.folder() as folder:
        (folder / "report.json").write_text('{"ñ": 1}', encoding="utf-8")
        (folder / "charts").mkdir()
        (folder / "charts" / "one.html").write_text("<p>")
        assert store.client().list_artifacts(log.run_id) == []
    assert text(store, log, "report.json") == '{"ñ": 1}'
    assert text(store, log, "charts/one.html") == "<p>"
    assert not folder.exists()


def test_a_folder_that_was_not_finished_is_no_artifact(store: Tracking, log: RunLog) -> None:
    def write_half(folder: Path) -> NoReturn:
        (folder / "half.json").write_text("{")
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"), log.folder() as folder:
        write_half(folder)
    assert store.client().list_artifacts(log.run_id) == []


# Models


def save_model(path: str, mlflow_model: Model, **_: Any) -> None:
    """Write a model as a flavor of MLflow's does."""
    folder = Path(path)
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "weights").write_text("1 2 3")
    add_to_model(mlflow_model, loader_module="any")
    mlflow_model.save(str(folder / "MLmodel"))


def described(model: LoggedModel) -> dict[str, Any]:
    """What MLflow says of a model, without ids and times; tags tell whose process it was."""
    own = (
        "model_id",
        "artifact_location",
        "creation_timestamp",
        "last_updated_timestamp",
        "source_run_id",
        "tags",
    )
    said = {name: value for name, value in model.to_dictionary().items() if name not in own}
    return said | {"metrics": {metric.key: metric.value for metric in model.metrics or []}}


def files_of(store: Tracking, model: LoggedModel, folder: Path) -> dict[str, str]:
    """A model's files by their names, without ids and times."""
    folder.mkdir()
    uri = f"models:/{model.model_id}"
    mlflow.artifacts.download_artifacts(uri, dst_path=str(folder), tracking_uri=store.uri)
    texts = {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}
    said = texts["MLmodel"].replace(model.model_id, "MODEL").replace(str(model.source_run_id), "RUN")
    lines = [line for line in said.splitlines() if not line.startswith("utc_time_created")]
    return texts | {"MLmodel": "\n".join(lines)}


def test_a_model_is_what_mlflow_itself_would_have_logged(
    store: Tracking, log: RunLog, tmp_path: Path
) -> None:
    params, metrics = {"backbone": "GlyphNet", "regParam": 0.1}, {"accuracy": 0.75, "logLoss": 0.5}
    client, theirs = store.client(), new_log(store)
    os.environ["MLFLOW_EXPERIMENT_ID"] = store.experiment_id  # where `Model.log` puts its model
    theirs.batch(params=params, metrics=metrics)
    flavor = SimpleNamespace(save_model=save_model)
    info = Model.log(artifact_path=None, name="model", flavor=flavor, run_id=theirs.run_id)
    log.batch(params=params)
    logged = log.model("model", save_model)
    log.batch(metrics=metrics, model_id=logged.model_id)

    mine, other = client.get_logged_model(logged.model_id), client.get_logged_model(info.model_id)
    assert described(mine) == described(other)
    assert described(mine)["metrics"] == metrics
    assert mine.params == {"backbone": "GlyphNet", "regParam": "0.1"}
    assert (mine.source_run_id, other.source_run_id) == (log.run_id, theirs.run_id)
    for each, model in ((log, mine), (theirs, other)):
        outputs = run_of(store, each).outputs.model_outputs
        assert [(output.model_id, output.step) for output in outputs] == [(model.model_id, 0)]
    assert files_of(store, mine, tmp_path / "mine") == files_of(store, other, tmp_path / "other")
    assert run_of(store, log).data.metrics == metrics
    found = client.search_logged_models([store.experiment_id], "metrics.accuracy > 0.7")
    assert {model.model_id for model in found} == {mine.model_id, other.model_id}


def test_a_model_that_could_not_be_written_is_not_ready(store: Tracking, log: RunLog) -> None:
    def fails(path: str, mlflow_model: Model) -> NoReturn:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        log.model("model", fails)
    (model,) = store.client().search_logged_models([store.experiment_id])
    assert model.status != "READY"
