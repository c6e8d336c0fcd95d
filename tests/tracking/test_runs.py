from pathlib import Path

import mlflow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.searches import TrackingServer
from tuner.tracking.runs import answers, parent_run, trial_runs
from tuner.tracking.store import Tracking, open_tracking


@pytest.mark.long
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=5)
@given(st.lists(st.tuples(st.sampled_from(["trial", "search", None]), st.booleans()), max_size=6))
def test_the_trials_of_a_search_are_its_children_of_that_kind(
    store: Tracking, made: list[tuple[str | None, bool]]
) -> None:
    client = store.client()
    parent = client.create_run(store.experiment_id).info.run_id
    expected = []
    for start, (kind, ours) in enumerate(made, start=1):  # 0 is "now" to MLflow
        tags = {"mlflow.parentRunId": parent if ours else "0" * 32}
        tags |= {"tuner.kind": kind} if kind else {}
        run = client.create_run(store.experiment_id, start_time=start, tags=tags)
        expected += [run.info.run_id] if ours and kind == "trial" else []
    assert [run.info.run_id for run in trial_runs(store, parent)] == expected


def test_a_search_of_more_trials_than_a_page_has_them_all(store: Tracking) -> None:
    client = store.client()
    parent = client.create_run(store.experiment_id).info.run_id
    tags = {"mlflow.parentRunId": parent, "tuner.kind": "trial"}
    first = client.search_runs([store.experiment_id], max_results=1)
    assert first.token is None
    for start in range(3):
        client.create_run(store.experiment_id, start_time=start, tags=tags)
    assert len(trial_runs(store, parent)) == 3


@pytest.mark.long
def test_a_server_answers_while_it_is_there(server: TrackingServer, tmp_path: Path) -> None:
    there = Tracking(server.uri, "0")
    assert answers(there)
    server.stop()
    assert not answers(there)
    assert answers(Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "0"))
    mlflow.set_tracking_uri(None)


def test_in_a_program_that_has_a_run_the_search_s_is_a_child_of_it(store: Tracking) -> None:
    mlflow.set_experiment("the program's own")
    with mlflow.start_run() as outer:
        tracking = open_tracking("another")
        assert tracking.experiment_id == outer.info.experiment_id
        with parent_run(tracking, "mine", "search") as log:
            assert mlflow.active_run().info.run_id == log.run_id
        assert mlflow.active_run().info.run_id == outer.info.run_id
        with pytest.raises(ValueError, match="x"), parent_run(tracking, "failed", "search"):
            raise ValueError("x")
        assert mlflow.active_run().info.run_id == outer.info.run_id
    run = tracking.client().get_run(log.run_id)
    assert run.data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert (run.info.status, run.info.run_name) == ("FINISHED", "mine")
    assert tracking.client().get_run(outer.info.run_id).info.status == "FINISHED"
