"""The executors of a cluster: waited for, until those that come are there."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from pyspark import SparkContext
from pyspark.sql import SparkSession

from tuner.base.errors import SessionError
from tuner.spark.jobs import cancelled_after
from tuner.spark.jvm import java_reason

_EXECUTORS_SECONDS = 60  # for them to come
_SETTLED_SECONDS = 3  # without a further one, all are taken to be there


def check_standalone(master: str) -> None:
    """Look whether a standalone master is there: Spark itself tries for a minute, and then just ends.

    Raises
    ------
    SessionError
        None of its addresses takes a connection.
    """
    places = [place.rpartition(":") for place in master.removeprefix("spark://").split(",")]
    for host, _, port in places:
        with suppress(OSError, ValueError), socket.create_connection((host.strip("[]"), int(port)), 10):
            return
    raise SessionError(
        f"No Spark master answers at {master}: check --master, and that the cluster is started."
    )


def await_slots(spark: SparkSession, parallelism: int, master: str) -> int:
    """The slots of a cluster, once its executors are there: they register one after the other.

    Raises
    ------
    SessionError
        None came within a minute.
    """
    context = spark.sparkContext
    configuration = context.getConf()
    deadline = time.monotonic() + _EXECUTORS_SECONDS
    _await_executor(spark, master)
    task_cpus = int(configuration.get("spark.task.cpus", "1") or 1)
    instances = int(configuration.get("spark.executor.instances", "0") or 0)
    cores = int(configuration.get("spark.executor.cores", "1") or 1)
    wanted = max(parallelism + 1, instances * (cores // task_cpus))
    slots, since = 0, time.monotonic()
    while time.monotonic() < deadline:
        now = task_slots(context)
        if now != slots:
            slots, since = now, time.monotonic()
        if slots >= wanted and time.monotonic() - since >= _SETTLED_SECONDS:
            break
        time.sleep(0.2)
    return slots


def task_slots(context: SparkContext) -> int:
    """How many tasks run at once on the executors that are there.

    By their cores and what a task takes of them, on each by itself. The JVM counts them for its barrier
    stages; pyspark has no way to ask. `defaultParallelism` is something else: a setting that people raise.
    """
    scala = context._jsc.sc()
    return int(scala.maxNumConcurrentTasks(scala.resourceProfileManager().defaultResourceProfile()))


def _await_executor(spark: SparkSession, master: str) -> None:
    """Wait for the first executor: without one, Spark lets every job wait for ever."""
    with cancelled_after(spark.sparkContext, _EXECUTORS_SECONDS, "executors") as late:
        try:
            spark.range(0, 1, 1, 1).count()
        except Exception as error:
            if not late.is_set():
                raise SessionError(f"The cluster {master} runs no job: {java_reason(error)}") from error
            raise SessionError(
                f"No executor of {master} came within {_EXECUTORS_SECONDS} s: see on the cluster's page "
                "that it has workers with free cores and memory, and that they reach this machine."
            ) from None
