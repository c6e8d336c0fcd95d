import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import mlflow
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from sqlalchemy.engine import make_url

from tuner.base.errors import StoreError, TrackingError
from tuner.tracking.answering import without_credentials
from tuner.tracking.run_log import read_artifact
from tuner.tracking.runs import CutOffTrials, fail_trial, parent_run, trial_run, trial_runs
from tuner.tracking.store import Tracking, named_experiment, open_tracking


def artifact(store: Tracking, run_id: str, file: str) -> str:
    path = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/{file}", tracking_uri=store.uri)
    return Path(path).read_text(encoding="utf-8")


def test_experiment_is_made_and_found_again(store: Tracking):
    assert open_tracking("an experiment") == store
    assert "timeout=60" in store.uri


def test_opening_a_store_leaves_no_experiment_active(store: Tracking):
    assert "MLFLOW_EXPERIMENT_ID" not in os.environ


def test_deleted_experiment_is_one_sentence(store: Tracking):
    MlflowClient(store.uri).delete_experiment(store.experiment_id)
    with pytest.raises(TrackingError, match=r"was deleted: restore it"):
        open_tracking("an experiment")


@pytest.mark.parametrize(
    ("name", "value"),
    [("MLFLOW_RUN_ID", "0123456789abcdef"), ("MLFLOW_EXPERIMENT_ID", "999"), ("MLFLOW_EXPERIMENT_ID", "x")],
)
def test_a_variable_that_names_what_is_not_there_is_named(
    store: Tracking, monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    monkeypatch.setenv(name, value)
    with pytest.raises(TrackingError, match=rf"{value}.* \({name} is set: unset it, or .*\)\.$") as caught:
        open_tracking("an experiment")
    assert "\n" not in str(caught.value)


def test_an_empty_variable_names_nothing(store: Tracking, monkeypatch: pytest.MonkeyPatch):
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "")
    assert open_tracking("an experiment") == store


def test_run_that_mlflow_run_started_is_the_parent(store: Tracking, monkeypatch: pytest.MonkeyPatch):
    client = MlflowClient(store.uri)
    outer = client.create_run(client.create_experiment("outer"), run_name="by mlflow run")
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.info.run_id)
    inner = open_tracking("an experiment")
    assert inner.experiment_id == outer.info.experiment_id
    with parent_run(inner, "ignored", "search") as run:
        assert run.run_id == outer.info.run_id
    ended = client.get_run(outer.info.run_id)
    assert ended.info.run_name == "by mlflow run"
    assert ended.data.tags["tuner.kind"] == "search"


def test_a_run_that_mlflow_put_into_default_points_to_one_where_it_belongs(
    store: Tracking, monkeypatch: pytest.MonkeyPatch
):
    client = MlflowClient(store.uri)
    outer = client.create_run("0", run_name="aged-ox-796").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)  # as `mlflow run` does, without --experiment-name
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    assert named_experiment(None) is None
    assert open_tracking("an experiment") == store
    with parent_run(store, "mine", "search") as run:
        assert run.run_id != outer
    made, pointing = client.get_run(run.run_id), client.get_run(outer)
    assert (made.info.run_name, made.info.experiment_id) == ("mine", store.experiment_id)
    assert (made.info.status, pointing.info.status) == ("FINISHED", "RUNNING")  # MLflow ends its own
    assert pointing.data.tags["tuner.run_id"] == run.run_id
    assert (
        f"[mine](#/experiments/{store.experiment_id}/runs/{run.run_id})"
        in (pointing.data.tags["mlflow.note.content"])
    )
    assert "tuner.kind" not in pointing.data.tags
    assert open_tracking("an experiment") == store  # of a second search in the same process


def test_a_search_that_is_called_default_goes_on_with_the_run_that_is_there(
    store: Tracking, monkeypatch: pytest.MonkeyPatch
):
    outer = MlflowClient(store.uri).create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    with parent_run(open_tracking("Default"), "ignored", "search") as run:
        assert run.run_id == outer


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (ValueError("why"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_parent_ends_as_its_body_does(store: Tracking, error: BaseException | None, status: str):
    try:
        with parent_run(store, "a search", "search") as run:
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert MlflowClient(store.uri).get_run(run.run_id).info.status == status
    if status == "FAILED":
        assert artifact(store, run.run_id, "error.txt") == "why\n"


def test_a_table_comes_back_as_it_was_written(store: Tracking, tmp_path: Path):
    table = pd.DataFrame({"path": ["ñ.png", "b"], "n": [1, 2]})
    with parent_run(store, "a search", "search") as run:
        run.parquet(table, "tables/split.parquet")
    pd.testing.assert_frame_equal(
        pd.read_parquet(read_artifact(store, run.run_id, "tables/split.parquet", tmp_path)), table
    )
    with pytest.raises(TrackingError, match=r"has no other\.parquet that can be read"):
        read_artifact(store, run.run_id, "other.parquet", tmp_path)


def test_what_the_store_refuses_in_a_run_is_one_sentence(store: Tracking):
    with (
        pytest.raises(StoreError, match=r"refuses, or stopped answering: .*metric") as caught,
        parent_run(store, "a search", "search") as run,
    ):
        run.batch(metrics={"not: a; name": 1})
    assert "\n" not in str(caught.value)
    assert MlflowClient(store.uri).get_run(run.run_id).info.status == "FAILED"


def test_trials_are_children_by_number_and_those_left_running_are_closed(store: Tracking):
    client = MlflowClient(store.uri)
    parent = client.create_run(store.experiment_id).info.run_id
    with trial_run(store, parent, 3, {"backbone": "ResNet50"}) as run:
        run.batch(params={"a": 1}, metrics={"m": 0.5}, histories={"h": [3, 2, 1]}, tags={"t": "x"})
    with pytest.raises(ValueError), trial_run(store, parent, 4, {"backbone": "VGG16"}) as failed:
        raise ValueError("no good")
    left = client.create_run(
        store.experiment_id, tags={"mlflow.parentRunId": parent, "tuner.kind": "trial"}
    ).info.run_id
    CutOffTrials(store, parent).close()
    runs = {run.info.run_id: run for run in trial_runs(store, parent)}
    assert [item.info.status for item in runs.values()] == ["FINISHED", "FAILED", "KILLED"]
    assert left in runs
    assert runs[run.run_id].info.run_name == "003-resnet50"
    assert runs[run.run_id].data.params == {"backbone": "ResNet50", "a": "1"}
    assert [point.value for point in client.get_metric_history(run.run_id, "h")] == [3, 2, 1]
    assert artifact(store, failed.run_id, "error.txt").startswith("no good\n")


def test_a_trial_that_took_its_end_for_a_failure_was_killed(store: Tracking):
    """A worker whose connection the stop cut off writes FAILED, be it after the search closed its run."""
    parent = MlflowClient(store.uri).create_run(store.experiment_id).info.run_id
    numbers = {}
    for number, error in enumerate((None, ValueError, ConnectionError), 1):
        with (
            suppress(ValueError, ConnectionError),
            trial_run(store, parent, number, {"backbone": "B"}) as run,
        ):
            numbers[run.run_id] = number
            if error:
                raise error("no good")
    left = CutOffTrials(store, parent)
    left.know(run_id for run_id, number in numbers.items() if number < 3)
    left.close()
    ends = {numbers[run.info.run_id]: run.info.status for run in trial_runs(store, parent)}
    assert ends == {1: "FINISHED", 2: "FAILED", 3: "KILLED"}


@pytest.mark.parametrize("came_to", ["nothing", "its run", "its end"])
def test_a_trial_whose_process_was_ended_fails_however_far_it_came(store: Tracking, came_to: str):
    client = MlflowClient(store.uri)
    parent = client.create_run(store.experiment_id).info.run_id
    params = {"backbone": "VGG16", "regParam": 0.1}
    with trial_run(store, parent, 1, params):
        pass
    if came_to == "its end":
        with trial_run(store, parent, 2, params):
            pass
    if came_to == "its run":
        tags = {"mlflow.parentRunId": parent, "tuner.kind": "trial", "tuner.trial": "2"}
        client.create_run(store.experiment_id, tags=tags)
    run_id = fail_trial(store, parent, 2, params, "took too long")
    other, failed = trial_runs(store, parent)
    assert (other.info.status, failed.info.status) == ("FINISHED", "FAILED")
    assert failed.info.run_id == run_id
    assert failed.data.tags["tuner.trial"] == "2"
    assert failed.data.params == {"backbone": "VGG16", "regParam": "0.1"}
    assert artifact(store, run_id, "error.txt") == "took too long\n"


def test_many_writers_share_one_sqlite_file(store: Tracking):
    parent = MlflowClient(store.uri).create_run(store.experiment_id).info.run_id
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            with trial_run(store, parent, number, {"backbone": "net"}) as run:
                for step in range(10):
                    run.batch(metrics={f"m{step}": step})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert {run.info.status for run in trial_runs(store, parent)} == {"FINISHED"}
    assert len(trial_runs(store, parent)) == 8


@pytest.mark.timeout(120)
@pytest.mark.parametrize("listening", [False, True])
def test_server_that_does_not_answer_is_one_sentence(
    store: Tracking, monkeypatch: pytest.MonkeyPatch, listening: bool
):
    """Nobody listens; or somebody does and never says a word."""
    monkeypatch.setattr("tuner.tracking.answering._CHECK_SECONDS", 2)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        mlflow.set_tracking_uri(f"http://user:secret@127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(TrackingError, match="cannot be used") as caught:
            open_tracking("an experiment")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    mlflow.set_tracking_uri(store.uri)


def test_store_that_cannot_be_written_is_one_sentence(store: Tracking):
    mlflow.set_tracking_uri("sqlite:////proc/no/mlflow.db")
    with pytest.raises(TrackingError, match="cannot be used"):
        open_tracking("an experiment")
    mlflow.set_tracking_uri(store.uri)


@pytest.mark.parametrize(
    ("uri", "masked"),
    [
        ("https://user:pass@host:5000/x", "https://***@host:5000/x"),
        ("https://token@host/x", "https://***@host/x"),
        ("https://user:pa/ss@host/x", "https://***@host/x"),
        ("https://host:5000/a@b", "https://host:5000/a@b"),
        ("http://[::1]:5000/a@b", "http://[::1]:5000/a@b"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("postgresql://user:pa/ss@host:5432/db", "postgresql://***@host:5432/db"),
        ("postgresql://user:p@/ss@host/db", "postgresql://***@host/db"),
        ("mysql+pymysql://u:p#x?y:z@host/db", "mysql+pymysql://***@host/db"),
        ("postgresql://host/db?user=a&password=b&x=1", "postgresql://host/db?user=a&password=***&x=1"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3Db", "mssql+pyodbc:///?odbc_connect=***"),
        ("see 'postgresql://u:p@h/d' and a@b", "see 'postgresql://***@h/d' and a@b"),
    ],
)
def test_credentials_are_masked(uri: str, masked: str):
    assert without_credentials(uri) == masked


secrets = st.text("abcXYZ0189/:#?&=%+;,!$()*.~-", min_size=6, max_size=12).map(lambda text: f"s3{text}")


@given(secrets, st.sampled_from(["postgresql", "mysql+pymysql", "https"]))
def test_no_sign_in_a_password_makes_it_seen(secret: str, scheme: str):
    assert secret not in without_credentials(f"It is {scheme}://user:{secret}@host:5432/db, and no more.")
    if scheme != "https":  # that it is one
        assert make_url(f"{scheme}://user:{secret}@host:5432/db").password == unquote(secret)


def test_an_at_in_a_password_is_asked_for_as_a_database_reads_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:pa@ss/word@host/db")
    with pytest.raises(
        TrackingError, match=r"postgresql://\*\*\*@host/db cannot be used: the @ in its user or"
    ) as it:
        open_tracking("an experiment")
    assert "ss/word" not in str(it.value)
