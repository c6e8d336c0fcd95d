"""A guest in somebody else's program: what tuner changes in this process is as it was afterwards."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tuner.base.interrupts import Interrupted, is_listening

# Those whose levels tuner sets; they may be made meanwhile.
LOGGERS = (
    "alembic",
    "hyperopt-spark",
    "mlflow.pyfunc",
    "mlflow.spark",
    "mlflow.store.db.utils",
    "mlflow.tracking.fluent",
    "py4j",
    "sqlalchemy.pool",
)
_STORE = "MLFLOW_TRACKING_URI"
_RUN_OF_MLFLOW_RUN = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")


@contextmanager
def as_it_was() -> Iterator[None]:
    """Give back what is changed meanwhile: environment, tracking URI, levels of logs, signals.

    A signal that stopped the work is given on to who takes signals in this program; by default, Ctrl-C is a
    `KeyboardInterrupt` then. Meanwhile, other threads see what is changed.
    """
    listening = is_listening()
    try:
        with _environment(), _tracking_uri(), _log_levels():
            yield
    except Interrupted as stopped:
        if not listening:  # the signals are the program's again
            signal.raise_signal(stopped.signum)
        raise


@contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in _RUN_OF_MLFLOW_RUN:  # MLflow goes on with it once
            if name not in os.environ:
                before.pop(name, None)
        for name in set(os.environ) - set(before):
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value


@contextmanager
def _tracking_uri() -> Iterator[None]:
    """Keep what `mlflow.set_tracking_uri` was called with, if it was; the variable is the environment's."""
    before = _called_with() if "mlflow" in sys.modules else None
    try:
        yield
    finally:
        if "mlflow" in sys.modules:
            import mlflow  # which takes a second, in which Spark starts

            mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None: as if it was never called


def _called_with() -> str | None:
    import mlflow

    variable = os.environ.pop(_STORE, None)
    try:
        is_set = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
        return mlflow.get_tracking_uri() if is_set else None
    finally:
        if variable is not None:
            os.environ[_STORE] = variable


@contextmanager
def _log_levels() -> Iterator[None]:
    made = logging.root.manager.loggerDict.values()
    loggers = {logging.root, *map(logging.getLogger, LOGGERS)}
    loggers |= {logger for logger in made if isinstance(logger, logging.Logger)}
    before = {logger: logger.level for logger in loggers}
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)
