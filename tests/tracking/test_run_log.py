import csv
import io
import json
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run
from PIL import Image

from tuner.base.errors import TrackingError
from tuner.tracking.run_log import RunLog, read_artifact
from tuner.tracking.store import Tracking


@pytest.fixture
def log(store: Tracking) -> RunLog:
    return RunLog(
        store.client(), store.client().create_run(store.experiment_id).info.run_id, store.experiment_id
    )


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


def test_a_parameter_that_changed_in_a_resumed_search_is_a_tag(store: Tracking, log: RunLog) -> None:
    """MLflow changes no parameter."""
    log.batch(params={"same": 1, "changed": 2})
    resumed = RunLog(store.client(), log.run_id, store.experiment_id, run_of(store, log))
    resumed.batch(params={"same": 1, "changed": 3, "new": 4})
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
    resumed = RunLog(store.client(), log.run_id, store.experiment_id, run_of(store, log))
    resumed.table(after, file)
    assert json.loads(text(store, log, file)) == {"columns": ["a", "b"], "data": [[2, None], [3, "ñ"]]}


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
