"""Spark's start on the driver: checked, on a free port, with a token, in a thread beside other work."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache

from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from tuner.base.errors import SessionError
from tuner.spark.endpoint import TOKEN_VARIABLE
from tuner.spark.executors import check_standalone, java_reason
from tuner.spark.settings import chosen_master, local_slots, settings
from tuner.spark.worker_daemon import nobody, start_workers


@dataclass(frozen=True)
class SparkStarted:
    """A session and its master.

    `workers` ends when the workers that were to import ahead wait for tasks.
    """

    spark: SparkSession
    master: str
    workers: Future[None]


@dataclass(frozen=True)
class SparkLaunch:
    """Spark as it starts; `port` and `token` are its Spark Connect endpoint's, should that be opened."""

    parallelism: int
    port: int
    token: str = field(repr=False)
    started: Future[SparkStarted] = field(repr=False)

    def wait(self) -> SparkStarted:
        """Wait until it has started.

        Raises
        ------
        SessionError
            No Java, no master, too few slots, or a session that is already running in this process.
        """
        return self.started.result()


def launch_spark(
    app_name: str,
    parallelism: int,
    *,
    master: str | None = None,
    port: int = 0,
    preload: Sequence[str] = (),
) -> SparkLaunch:
    """Begin to start Spark: the JVM takes seconds, as do other imports.

    Without somebody who waits for it, it ends with this process.

    Parameters
    ----------
    app_name
        The application's name, as Spark's own pages show it.
    parallelism
        How many trials are to run at once.
    master
        A Spark master URL; None: that of `spark-defaults.conf`, or else local mode, on every core.
    port
        The port of the Spark Connect endpoint, should it be opened; 0: a free one.
    preload
        What Spark's workers on this machine begin to import as soon as it has started (`worker_daemon`).
    """
    launch = SparkLaunch(parallelism, port, _token(), Future())

    def run() -> None:
        try:
            launch.started.set_result(_start(app_name, parallelism, master, preload))
        except BaseException as error:  # whoever waits gets it
            launch.started.set_exception(error)

    threading.Thread(target=run, name="spark-launch", daemon=True).start()
    return launch


def _start(app_name: str, parallelism: int, master: str | None, preload: Sequence[str]) -> SparkStarted:
    _check_java()
    if _is_running():
        raise SessionError(
            "A Spark session is already running in this process: stop it (spark.stop()) before a "
            "search, which starts one of its own."
        )
    master = chosen_master(master, parallelism)
    local = local_slots(master)
    if local is not None:
        check_slots(local, parallelism, f"master {master}")
    elif master.startswith("spark://"):
        check_standalone(master)
    # Workers must run the Python that holds these packages. The token goes by the environment: a Spark
    # setting would stand on the JVM's command line, where every user of the machine reads it.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ[TOKEN_VARIABLE] = _token()
    if local is not None:
        # Trials side by side use the cores; threads of an OpenBLAS, where MLlib finds one, are in the way.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        spark = _launch(app_name, master)
    finally:
        del os.environ[TOKEN_VARIABLE]
    ahead = preload and local is not None
    workers = start_workers(spark.sparkContext, parallelism, preload) if ahead else nobody()
    return SparkStarted(spark, master, workers)


def check_slots(slots: int, parallelism: int, where: str) -> None:
    """Refuse a parallelism at which trials hold every slot and their MLlib jobs wait for ever.

    Raises
    ------
    SessionError
        Fewer than `parallelism` + 1 slots.
    """
    if slots <= parallelism:
        raise SessionError(
            f"With parallelism {parallelism}, the trials would hold all of the {slots} task slots of "
            f"{where} and their MLlib jobs would wait for ever: lower parallelism to {slots - 1} or "
            "give Spark more slots."
        )


@lru_cache(maxsize=1)
def _token() -> str:
    """The token of this process: its JVM outlives a session, and keeps the environment it began with."""
    return secrets.token_urlsafe(32)


def _is_running() -> bool:
    """Whether there is a session, of whatever thread."""
    try:
        SparkSession.active()
    except PySparkRuntimeError:
        return False
    return True


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if not (home and shutil.which("java", path=f"{home}/bin")) and not shutil.which("java"):
        raise SessionError(
            "Spark needs Java 17 or newer and none was found: install a JRE (Debian, Ubuntu: apt-get "
            "install default-jre-headless) or set JAVA_HOME."
        )


def _launch(app_name: str, master: str) -> SparkSession:
    builder = SparkSession.builder.appName(app_name)
    for key, value in settings(master).items():
        builder = builder.config(key, value)
    try:
        return builder.getOrCreate()
    except Exception as error:  # py4j's own error: the JVM says what went wrong in its text
        raise SessionError(
            f"Spark could not be started with master {master}: {java_reason(error)}"
        ) from error
