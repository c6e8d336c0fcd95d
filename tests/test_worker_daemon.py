import os
import subprocess
import sys

import pytest
from pyspark.sql import SparkSession

from tuner.worker_daemon import TRIAL_MODULES, VARIABLE


@pytest.fixture
def preloading(spark: SparkSession):
    environment = spark.sparkContext.environment
    before = dict(environment)
    environment[VARIABLE] = "tuner.trial"
    yield
    environment.clear()
    environment.update(before)


def test_workers_of_trials_are_born_with_their_imports(spark: SparkSession, preloading) -> None:
    def loaded(rows):
        """What a worker's process had when its first task came, and whose child it is."""
        list(rows)
        yield sorted(sys.modules), os.getppid()

    ((modules, parent),) = spark.sparkContext.parallelize([0], 1).mapPartitions(loaded).collect()
    assert {"tuner.trial", "mlflow", "sklearn"} <= set(modules)
    assert not {"tensorflow", "keras"} & set(modules)
    command = subprocess.run(["ps", "-o", "args=", "-p", str(parent)], capture_output=True, text=True)
    assert "tuner.worker_daemon" in command.stdout


def test_preloaded_modules_start_no_thread_of_python() -> None:
    """A fork keeps the thread that forks alone."""
    code = (
        f"import importlib, threading\nfor name in {TRIAL_MODULES!r}: importlib.import_module(name)\n"
        "print(threading.active_count())"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "1"
