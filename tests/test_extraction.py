import subprocess
import sys

import pytest

AHEAD = """
import os, subprocess, time
from tuner.extraction import start_workers
from tuner.sessions import driver_session
from tuner.worker_daemon import FOR_EXTRACTION, preloading

def workers():
    table = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True).stdout
    daemons = {line.split()[0] for line in table.splitlines() if "-m tuner.worker_daemon" in line}
    return {int(line.split()[0]) for line in table.splitlines() if line.split()[1] in daemons}

def pid(rows):
    list(rows)
    yield os.getpid()

with driver_session("ahead", 1) as session:
    others = workers()
    start_workers(session.spark, 2)
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
def test_workers_that_were_started_ahead_are_those_of_the_extraction() -> None:
    """In a process of its own, where none were started before."""
    seen = subprocess.run([sys.executable, "-c", AHEAD], capture_output=True, text=True, timeout=180)
    assert seen.stdout.strip() == "2 True", seen.stderr
