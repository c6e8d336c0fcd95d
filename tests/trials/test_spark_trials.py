import importlib
import inspect
import os
import sys
import time
from types import SimpleNamespace

import pytest
from hyperopt import STATUS_FAIL, STATUS_OK
from hyperopt.base import JOB_STATE_DONE, JOB_STATE_RUNNING
from hyperopt.spark import _SparkFMinState
from pyspark import cloudpickle

from tuner.classifiers.parameters import TrialParams
from tuner.experiment.schema import SearchSettings
from tuner.spark.sessions import DriverSession
from tuner.trials.spark_trials import NoGain, make_trials, run_trials, short_polls

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


def test_trials_run_in_reused_workers_other_than_the_driver(driver: DriverSession):
    pids = {doc["result"]["pid"] for doc in run(driver, search()).trials}
    assert os.getpid() not in pids
    assert 1 <= len(pids) < 8  # idle workers take turns, but no trial starts a process of its own


@pytest.mark.long
def test_deterministic_search_is_the_same_at_any_timing(driver: DriverSession):
    settings = search(deterministic=True, max_evals=26)  # TPE draws its first 20 at random

    def uneven(point: dict) -> dict:
        time.sleep(0.3 * (int(point["trial"]) % 3 == 0))
        return objective(point)

    first, second = (
        [TrialParams.from_point(doc["result"]["point"]) for doc in run(driver, settings, function).trials]
        for function in (objective, uneven)
    )
    assert len(first) == 26
    assert first == second


def test_failed_trials_do_not_end_a_search(driver: DriverSession):
    def fails(point: dict) -> dict:
        return {"status": STATUS_FAIL} if point["trial"] < 4 else objective(point)

    trials = run(driver, search(), fails)
    assert [doc["result"]["status"] for doc in trials.trials].count(STATUS_OK) == 5


@pytest.mark.parametrize("deterministic", [False, True])
def test_early_stop_ends_a_search_without_gain(driver: DriverSession, deterministic: bool):
    def flat(point: dict) -> dict:
        time.sleep(0.3)
        return {"loss": 1.0, "status": STATUS_OK}

    settings = search(early_stop=3, max_evals=60, deterministic=deterministic)
    assert 4 <= len(run(driver, settings, flat).trials) < 20


@pytest.mark.long
@pytest.mark.parametrize("deterministic", [False, True])
def test_timeout_ends_a_search(driver: DriverSession, deterministic: bool):
    def slow(point: dict) -> dict:
        time.sleep(0.5)
        return {"loss": 1.0, "status": STATUS_OK}

    trials = run(driver, search(timeout=6, max_evals=300, deterministic=deterministic), slow)
    assert 1 <= len(trials.trials) < 300


def test_no_gain_counts_only_finished_trials():
    def document(tid: int, state: int, **result) -> dict:
        return {"tid": tid, "state": state, "result": result}

    documents = SimpleNamespace(
        trials=[
            document(0, JOB_STATE_DONE, status=STATUS_OK, loss=1),
            document(1, JOB_STATE_RUNNING, status="new"),
            document(2, JOB_STATE_DONE, status=STATUS_FAIL),
            document(3, JOB_STATE_DONE, status=STATUS_OK, loss=2),
        ]
    )
    assert NoGain(2)(documents)[0]
    assert not NoGain(3)(documents)[0]
    assert not NoGain(None)(documents)[0]


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
