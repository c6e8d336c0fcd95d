import os
from pathlib import Path

import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from tuner.spark.sessions import DriverSession
from tuner.spark.worker_daemon import FOR_TRIALS, nobody, preloading
from tuner.tracking.store import Tracking, open_tracking
from tuner.trials import warm_up
from tuner.trials.warm_up import start_warm_up


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spark: SparkSession):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return open_tracking("warm-up")


@pytest.mark.parametrize("rehearse", [False, True])
def test_workers_are_connected_before_their_first_trial(
    driver: DriverSession, store: Tracking, rehearse: bool
) -> None:
    def connected(rows):
        """How many sessions of the endpoint a worker's process has opened, and which process it is."""
        from tuner.spark.sessions import connect_from_worker

        list(rows)
        yield connect_from_worker.cache_info().currsize, os.getpid()

    start_warm_up(driver, store, parallelism=2, rehearse=rehearse, workers=nobody()).result(timeout=120)
    with preloading(driver.spark.sparkContext, FOR_TRIALS):  # as the trials' tasks
        found = driver.spark.sparkContext.parallelize(range(2), 2).mapPartitions(connected).collect()
    assert {count for count, _ in found} == {1}
    assert MlflowClient(store.uri).search_runs([store.experiment_id]) == []


def test_one_that_takes_too_long_is_given_up(
    driver: DriverSession, store: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_up, "_LONGEST_SECONDS", 0.05)
    start_warm_up(driver, store, parallelism=1, rehearse=True, workers=nobody()).result(timeout=60)
    assert driver.spark.range(3).count() == 3
