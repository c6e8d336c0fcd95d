import importlib
import inspect
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hyperopt import STATUS_FAIL, STATUS_OK
from hyperopt.base import JOB_STATE_DONE, JOB_STATE_ERROR, JOB_STATE_RUNNING
from hyperopt.spark import _SparkFMinState
from pyspark import cloudpickle

from tuner.classifiers.parameters import TrialParams
from tuner.experiment.search import SearchSettings
from tuner.spark.sessions import DriverSession
from tuner.tracking.results import TrialResult
from tuner.trials.spark_trials import make_trials, results_of, run_trials, short_polls, since_gain

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests


def search(**settings) -> SearchSettings:
    return SearchSettings(backbone="VGG16,VGG19", **({"max_evals": 8, "parallelism": 2} | settings))


def objective(point: dict) -> dict:
    # The odd trials end long after the even ones, so that the order of ends is not that of starts.
    time.sleep(0.4 * (int(point["trial"]) % 2))
    loss = (point["regParam"] - 0.1) ** 2 + point["elasticNetParam"]
    return {"loss": loss, "status": STATUS_OK, "pid": os.getpid(), "point": point}


def run(driver: DriverSession, settings: SearchSettings, function=objective):
    trials = make_trials(driver.spark, settings)
    run_trials(trials, function, settings)
    return trials


@pytest.mark.long
def test_trials_run_in_reused_workers_other_than_the_driver(driver: DriverSession):
    pids = {doc["result"]["pid"] for doc in run(driver, search()).trials}
    assert os.getpid() not in pids
    assert 1 <= len(pids) < 8  # idle workers take turns, but no trial starts a process of its own


@pytest.mark.long
def test_deterministic_search_is_the_same_at_any_timing_and_parallelism(driver: DriverSession):
    def uneven(point: dict) -> dict:
        time.sleep(0.3 * (int(point["trial"]) % 3 == 0))
        return objective(point)

    def told(parallelism: int, function: Callable[[dict], dict]) -> list[TrialParams]:
        settings = search(deterministic=True, max_evals=18, parallelism=parallelism)  # 5 of them at random
        documents = run(driver, settings, function).trials
        return [TrialParams.from_point(doc["result"]["point"]) for doc in documents]

    first = told(2, objective)
    assert len(set(first)) == 18
    for parallelism, function in ((2, uneven), (1, objective), (4, uneven)):
        assert told(parallelism, function) == first


def test_failed_trials_do_not_end_a_search(driver: DriverSession):
    def fails(point: dict) -> dict:
        return {"status": STATUS_FAIL} if point["trial"] < 4 else objective(point)

    trials = run(driver, search(), fails)
    assert [doc["result"]["status"] for doc in trials.trials].count(STATUS_OK) == 5


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("status", [STATUS_OK, STATUS_FAIL])
def test_early_stop_ends_a_search_without_gain(driver: DriverSession, deterministic: bool, status: str):
    def flat(point: dict) -> dict:
        time.sleep(0.3)
        return {"loss": 1.0, "status": status}

    settings = search(early_stop=3, max_evals=60, deterministic=deterministic)
    trials = run(driver, settings, flat)
    assert 3 <= len(trials.trials) < 20
    assert trials.reason == "3 trials in a row brought no gain (search.early_stop)"


class Slow:
    """An objective that leaves a file when it begins, and takes its time."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds

    def __call__(self, point: dict) -> dict:
        number = int(point["trial"])
        (self.folder / str(number)).touch()
        time.sleep(self.seconds)
        params = TrialParams.from_point(point)
        result = TrialResult(number, params, str(number), metrics={"accuracy": 0.5})
        return result.to_document("accuracy")

    def begun(self) -> list[int]:
        return sorted(int(file.name) for file in self.folder.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("limit", [{"timeout": 4}, {"early_stop": 1}])
def test_trials_that_run_when_no_more_begin_end_and_count(
    driver: DriverSession, tmp_path: Path, deterministic: bool, limit: dict
):
    slow = Slow(tmp_path, seconds=3)
    trials = run(driver, search(max_evals=300, deterministic=deterministic, **limit), slow)
    assert slow.begun() == [result.trial for result in results_of(trials)]
    assert 2 <= len(slow.begun()) < 300
    assert trials.reason


def test_a_result_that_ends_a_search_is_not_the_only_one_that_counts(driver: DriverSession, tmp_path: Path):
    slow, settings = Slow(tmp_path, seconds=1), search(max_evals=300)
    trials = make_trials(driver.spark, settings)
    run_trials(trials, slow, settings, ends=lambda result: result.trial == 1)
    assert slow.begun() == [result.trial for result in results_of(trials)]
    assert 1 <= len(slow.begun()) < 10


def test_trials_without_a_gain_are_those_that_ended():
    def document(tid: int, state: int, **result) -> dict:
        return {"tid": tid, "state": state, "result": result}

    documents = [
        document(4, JOB_STATE_ERROR, status="new"),  # lost with its worker
        document(0, JOB_STATE_DONE, status=STATUS_OK, loss=1),
        document(1, JOB_STATE_RUNNING, status="new"),
        document(2, JOB_STATE_DONE, status=STATUS_FAIL),
        document(3, JOB_STATE_DONE, status=STATUS_OK, loss=2),
    ]
    assert since_gain([]) == 0
    assert since_gain(documents) == 3
    assert since_gain([*documents, document(5, JOB_STATE_DONE, status=STATUS_OK, loss=0.5)]) == 0


def test_polls_are_where_hyperopt_sleeps():
    """Fails when hyperopt changes how it waits: then `short_polls` has no effect any more."""
    fmin_module = importlib.import_module("hyperopt.fmin")
    spark_module = importlib.import_module("hyperopt.spark")
    assert fmin_module.time is time
    assert spark_module.time is time
    assert "time.sleep(self.poll_interval_secs)" in inspect.getsource(fmin_module.FMinIter.run)
    assert "time.sleep(1)" in inspect.getsource(_SparkFMinState.launch_dispatcher)
    with short_polls():
        assert fmin_module.time.sleep is not time.sleep
        assert spark_module.time.time is time.time
    assert fmin_module.time is time
