"""PySpark's worker daemon for a search on one machine: imports what trials need once, and forks workers.

Spark starts it with the environment of the tasks that it serves; only the daemon of trials imports ahead.
"""

from __future__ import annotations

import importlib
import os

from pyspark import daemon

VARIABLE = "TUNER_PRELOAD"  # in the environment of tasks: modules to import, separated by commas
# Not TensorFlow: its threads would not survive the fork. The others start none by being imported.
TRIAL_MODULES = (
    "pyspark.worker",
    "pyspark.sql.connect.session",
    "pyspark.ml.connect.proto",
    "mlflow.store.tracking.sqlalchemy_store",
    "tuner.trial",
)


def main() -> None:
    """Import what the environment names, then wait for Spark to ask for workers."""
    for name in filter(None, os.environ.get(VARIABLE, "").split(",")):
        importlib.import_module(name)
    daemon.manager()


if __name__ == "__main__":
    main()
