import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from pyspark.sql import SparkSession

from tuner.worker_daemon import FOR_EXTRACTION, FOR_TRIALS, VARIABLE, preloading


@pytest.mark.parametrize(
    ("names", "there", "absent"),
    [
        (["tuner.trial"], {"tuner.trial", "mlflow", "sklearn"}, {"tensorflow", "keras"}),
        (
            FOR_EXTRACTION,
            {"tensorflow", "keras", "tuner.feature_writing"},
            {"matplotlib", "sklearn", "mlflow"},
        ),
    ],
)
def test_workers_are_born_with_what_their_tasks_need(
    spark: SparkSession, names: Sequence[str], there: set[str], absent: set[str]
) -> None:
    def loaded(rows):
        """What a worker's process had when its first task came, and whose child it is."""
        list(rows)
        yield sorted(sys.modules), os.getppid()

    tasks = spark.sparkContext.parallelize([0], 1).mapPartitions(loaded)
    with preloading(spark.sparkContext, names):
        ((modules, parent),) = tasks.collect()
    assert there <= set(modules)
    assert not absent & set(modules)
    command = subprocess.run(["ps", "-o", "args=", "-p", str(parent)], capture_output=True, text=True)
    assert "tuner.worker_daemon" in command.stdout
    assert VARIABLE not in spark.sparkContext.environment


@pytest.mark.parametrize("names", [FOR_TRIALS, FOR_EXTRACTION])
def test_what_is_imported_ahead_starts_no_thread_of_python(names: Sequence[str]) -> None:
    """A fork keeps the thread that forks alone."""
    code = (
        "import os, threading\nfrom pyspark import daemon\nfrom tuner.worker_daemon import VARIABLE, main\n"
        f"os.environ[VARIABLE] = {','.join(names)!r}\n"
        "daemon.manager = lambda: print(threading.active_count())\nmain()"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "1"
