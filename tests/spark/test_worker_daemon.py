import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
from pyspark.sql import SparkSession

from tuner.spark.worker_daemon import FOR_EXTRACTION, FOR_TRIALS, VARIABLE, preloading

AHEAD = """
import os, subprocess, time
from tuner.spark.sessions import driver_session
from tuner.spark.worker_daemon import FOR_EXTRACTION, preloading, start_workers

def workers():
    table = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True).stdout
    daemons = {line.split()[0] for line in table.splitlines() if "-m tuner.spark.worker_daemon" in line}
    return {int(line.split()[0]) for line in table.splitlines() if line.split()[1] in daemons}

def pid(rows):
    list(rows)
    yield os.getpid()

with driver_session("ahead", 1) as session:
    others = workers()
    start_workers(session.spark.sparkContext, 2, FOR_EXTRACTION)
    deadline = time.monotonic() + 60
    while len(workers() - others) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    ahead = workers() - others
    time.sleep(1)  # until they are idle
    with preloading(session.spark.sparkContext, FOR_EXTRACTION):
        found = session.spark.sparkContext.parallelize([0, 1], 2).mapPartitions(pid).collect()
    print(len(ahead), set(found) <= ahead)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("names", "there", "absent"),
    [
        (["tuner.trials.trial"], {"tuner.trials.trial", "mlflow", "sklearn"}, {"tensorflow", "keras"}),
        (
            FOR_EXTRACTION,
            {"tensorflow", "keras", "tuner.extraction.worker"},
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
    assert "tuner.spark.worker_daemon" in command.stdout
    assert VARIABLE not in spark.sparkContext.environment


@pytest.mark.long
@pytest.mark.parametrize("names", [FOR_TRIALS, FOR_EXTRACTION])
def test_what_is_imported_ahead_starts_no_thread_of_python(names: Sequence[str]) -> None:
    """A fork keeps the thread that forks alone."""
    code = (
        "import os, threading\nfrom pyspark import daemon\n"
        "from tuner.spark.worker_daemon import VARIABLE, main\n"
        f"os.environ[VARIABLE] = {','.join(names)!r}\n"
        "daemon.manager = lambda: print(threading.active_count())\nmain()"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "1"


@pytest.mark.long
def test_workers_that_were_started_ahead_are_those_that_tasks_get() -> None:
    """In a process of its own, where none were started before."""
    seen = subprocess.run([sys.executable, "-c", AHEAD], capture_output=True, text=True, timeout=180)
    assert seen.stdout.strip() == "2 True", seen.stderr
