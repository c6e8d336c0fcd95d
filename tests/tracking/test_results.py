import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FinishedSearch
from tuner.base.choices import loss_of
from tuner.classifiers.parameters import TrialParams
from tuner.tracking.results import SEE_ERROR_FILE, TrialResult
from tuner.tracking.runs import trial_run, trial_runs
from tuner.tracking.store import Tracking

PARAMS = TrialParams.of("GlyphNet", regParam=0.1, elasticNetParam=0.5, maxIter=7)
trial_params = st.builds(
    TrialParams.of,
    st.text(),
    regParam=st.floats(0, 9),
    elasticNetParam=st.floats(0, 1),
    maxIter=st.integers(0, 100),
)
results = st.one_of(
    st.builds(
        TrialResult,
        trial=st.integers(1, 999),
        params=trial_params,
        name=st.text(),
        run_id=st.text(),
        metrics=st.dictionaries(st.text(), st.floats(-9, 9)).map(lambda others: others | {"f1": 0.5}),
        seconds=st.floats(0, 1e6),
        unsent=st.booleans(),
    ),
    st.builds(
        TrialResult,
        trial=st.integers(1, 999),
        params=trial_params,
        name=st.text(),
        run_id=st.none() | st.text(),
        reason=st.text(),
    ),
)


@given(results)
def test_hyperopt_keeps_a_result_as_plain_data(result: TrialResult) -> None:
    document = result.to_document("f1")
    assert TrialResult.of_document(document) == result
    assert TrialResult.of_document(json.loads(json.dumps(document))) == result
    assert document["status"] == ("ok" if result.finished else "fail")
    assert document.get("loss") == (-0.5 if result.finished else None)


def test_what_never_came_to_a_result_gives_none() -> None:
    assert TrialResult.of_document({"status": "new"}) is None


def test_a_row_of_the_table_holds_parameters_and_metrics() -> None:
    finished = TrialResult(3, PARAMS, "003-glyphnet", "id", {"f1": 0.5}, 1.5)
    assert finished.row() == {
        "trial": 3,
        "run_id": "id",
        "backbone": "GlyphNet",
        "regParam": 0.1,
        "elasticNetParam": 0.5,
        "maxIter": 7,
        "status": "FINISHED",
        "f1": 0.5,
        "seconds": 1.5,
    }
    failed = TrialResult(4, PARAMS, "004-glyphnet", reason="no good")
    assert (failed.row()["status"], failed.row()["seconds"]) == ("FAILED", None)


def test_the_runs_of_a_search_give_back_its_results(finished_search: FinishedSearch) -> None:
    for run in finished_search.trials():
        result = TrialResult.of_run(run, "logLoss")
        assert result is not None
        assert result.finished
        assert result.name == f"{result.trial:03}-{result.params.backbone.lower()}"
        assert result.run_id == run.info.run_id
        assert result.params.to_dict() == {
            name: type(result.params.to_dict()[name])(value) for name, value in run.data.params.items()
        }
        assert result.loss("logLoss") == loss_of("logLoss", run.data.metrics["logLoss"])
        assert "objectiveHistory" not in result.metrics
        assert result.seconds > 0


@pytest.mark.parametrize("end", ["failed", "without the metric", "before its parameters"])
def test_a_run_that_came_to_no_score_has_no_metrics(store: Tracking, end: str) -> None:
    parent = store.client().create_run(store.experiment_id).info.run_id
    params = {"backbone": "GlyphNet"} if end == "before its parameters" else PARAMS.to_dict()
    try:
        with trial_run(store, parent, 3, params) as log:
            log.batch(metrics={"f1": 0.5})
            if end == "failed":
                raise ValueError("no good")
    except ValueError:
        pass
    (run,) = trial_runs(store, parent)
    result = TrialResult.of_run(run, "accuracy")
    if end == "failed":
        assert result == TrialResult(3, PARAMS, "003-glyphnet", run.info.run_id, reason=SEE_ERROR_FILE)
    else:
        assert result is None
