"""PySpark's worker daemon for a search on one machine: imports what tasks need once, and forks workers.

Spark starts a daemon for each environment that tasks state: one for trials, one for extraction, one for
the rest, which imports nothing ahead.
"""

from __future__ import annotations

import os
import pkgutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TypeVar

from pyspark import RDD, SparkContext, daemon

T = TypeVar("T")

VARIABLE = "TUNER_PRELOAD"  # in the environment of tasks: what to import, separated by commas
# Modules, and functions that import (`module:function`). A fork loses threads: these start none that count.
FOR_TRIALS = (
    "pyspark.worker",
    "mlflow.store.tracking.sqlalchemy_store",
    "tuner.trials.trial",
)
FOR_TRAINING = (
    "pyspark.worker",
    "mlflow.store.tracking.sqlalchemy_store",
    "tuner.trials.fine_tuning",
    "tuner.networks.files:import_tensorflow_lightly",
)
FOR_EXTRACTION = (
    "pyspark.worker",
    "tuner.extraction.worker",
    "tuner.networks.files:import_tensorflow_lightly",
)


@contextmanager
def preloading(context: SparkContext, names: Sequence[str]) -> Iterator[None]:
    """Let the tasks whose functions are handed to Spark meanwhile state what is to be imported for them."""
    before = dict(context.environment)
    context.environment[VARIABLE] = ",".join(names)
    try:
        yield
    finally:
        context.environment.clear()
        context.environment.update(before)


def hand_over(work: RDD[T], names: Sequence[str]) -> RDD[T]:
    """Hand an RDD's function to Spark here, with what its tasks need, and not where it is collected."""
    with preloading(work.context, names):
        work.id()
    return work


def start_workers(context: SparkContext, count: int, names: Sequence[str]) -> Future[None]:
    """Begin to start workers, and a daemon that imports for them, beside what the driver does next.

    The future ends when they wait for tasks. Only on one machine: a cluster's workers have no daemon that
    imports ahead.
    """
    idle: Future[None] = Future()
    work = hand_over(context.parallelize(range(count), count).mapPartitions(lambda rows: rows), names)

    def run() -> None:
        with suppress(Exception):  # what is wrong, those who need the workers would tell
            work.collect()
        idle.set_result(None)

    threading.Thread(target=run, name="start-workers", daemon=True).start()
    return idle


def nobody() -> Future[None]:
    """What `start_workers` gives, where there is nobody to wait for."""
    idle: Future[None] = Future()
    idle.set_result(None)
    return idle


def main() -> None:
    """Import what the environment names, then wait for Spark to ask for workers."""
    for name in filter(None, os.environ.get(VARIABLE, "").split(",")):
        found = pkgutil.resolve_name(name)
        if ":" in name:
            found()
    daemon.manager()


if __name__ == "__main__":
    main()
