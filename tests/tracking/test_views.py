"""What MLflow's UI is told of searches; tests/product/test_ui.py looks at it in a browser."""

import json
from typing import Any

import pytest
from mlflow.utils import name_utils

from tuner.classifiers.table import CLASSIFIERS
from tuner.tracking.store import Tracking
from tuner.tracking.views import is_generated, last_search, name_search, runs_link, write_view


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("digits", "digits · 16 trials · GlyphNet 0.993"),
        ("digits · 8 trials · GaborNet 0.990", "digits · 16 trials · GlyphNet 0.993"),
        ("aged-ox-796", "digits · 16 trials · GlyphNet 0.993"),
        ("digits again", "digits again"),
        ("my-run-3", "my-run-3"),
    ],
)
def test_a_name_says_what_came_of_a_search_unless_it_was_given(
    store: Tracking, name: str, after: str
) -> None:
    run_id = store.client().create_run(store.experiment_id, run_name=name).info.run_id
    name_search(store, run_id, "digits", "16 trials · GlyphNet 0.993")
    assert store.client().get_run(run_id).info.run_name == after


def test_the_names_that_mlflow_makes_up_are_known() -> None:
    made = [name_utils._generate_random_name() for _ in range(200)]
    assert [name for name in made if not is_generated(name)] == []


def view(store: Tracking, kind: str) -> dict[str, Any]:
    tag = store.client().get_experiment(store.experiment_id).tags[f"mlflow.sharedViewState.{kind}"]
    found: dict[str, Any] = json.loads(tag)
    return found | {"state": json.loads(found["state"])}


def test_a_view_has_parameters_and_metrics_in_columns_best_first(store: Tracking) -> None:
    write_view(store, "search", "accuracy", ["backbone", "regParam"])
    state = view(store, "search")["state"]
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`accuracy`", False)
    assert state["selectedColumns"][:4] == [
        "params.`backbone`",
        "params.`regParam`",
        "metrics.`accuracy`",
        "metrics.`f1`",
    ]
    parallel, *_ = state["compareRunCharts"]
    assert parallel["selectedParams"] == ["backbone", "regParam"]
    write_view(store, "search", "logLoss", ["backbone", "classifier", "numTrees"])  # of the next search
    parallel, *_ = view(store, "search")["state"]["compareRunCharts"]
    assert parallel["selectedParams"] == ["backbone", "classifier"]  # which every run has
    assert view(store, "search")["state"]["orderByAsc"] is True
    assert view(store, "search")["name"] == "search: best logLoss first"


def test_a_view_that_somebody_changed_stays(store: Tracking) -> None:
    write_view(store, "search", "accuracy", ["backbone"])
    changed = view(store, "search") | {"updatedAt": 1, "name": "mine", "state": "{}"}
    tag = "mlflow.sharedViewState.search"
    store.client().set_experiment_tag(store.experiment_id, tag, json.dumps(changed))
    write_view(store, "search", "accuracy", ["backbone"])
    assert view(store, "search")["name"] == "mine"


def test_a_link_leads_to_the_server_or_to_where_the_ui_will_be(store: Tracking) -> None:
    shown = "/runs?viewStateShareKey=search&workflowType=machine_learning"
    place = f"#/experiments/{store.experiment_id}{shown}"
    assert runs_link(store, "search") == f"http://127.0.0.1:5000/{place}"
    assert runs_link(store, "search", port=81) == f"http://127.0.0.1:81/{place}"
    server = Tracking("https://mlflow.example/a/", "3")
    assert runs_link(server, "search") == f"https://mlflow.example/a/#/experiments/3{shown}"
    assert runs_link(Tracking("databricks://profile", "3"), "search") is None
    assert str(runs_link(Tracking(store.uri, ""), "search")).endswith(
        "/#/experiments?workflowType=machine_learning"
    )


def test_the_last_search_is_found_whatever_its_experiment(store: Tracking) -> None:
    client = store.client()
    assert last_search(store)[0].experiment_id == ""
    other = client.create_experiment("other")
    kinds = [(store.experiment_id, "search"), (other, "spot-check"), (store.experiment_id, "trial")]
    for start, (experiment, kind) in enumerate(kinds, start=1):
        client.create_run(experiment, start_time=start, tags={"tuner.kind": kind})
    found, kind = last_search(store)
    assert (found.experiment_id, kind) == (other, "spot-check")


def test_a_view_of_every_classifier_is_as_long_as_a_tag_may_be(store: Tracking) -> None:
    parameters = dict.fromkeys(name for row in CLASSIFIERS.values() for name in row.by_name)
    write_view(
        store, "search", "weightedPrecision", ["backbone", "classifier", *parameters, "class_weight"]
    )
    tag = store.client().get_experiment(store.experiment_id).tags["mlflow.sharedViewState.search"]
    assert len(tag) < 5_000
