"""Spark's start on the driver: checked, on a free port, with a token, in a thread beside other work."""

from __future__ import annotations

import os
import secrets
import shlex
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException, PySparkRuntimeError
from pyspark.sql import SparkSession

from tuner.base.errors import SessionError
from tuner.base.interrupts import is_stopping
from tuner.base.machine import reach_this_machine_directly
from tuner.base.wording import first_line
from tuner.spark.endpoint import TOKEN_VARIABLE
from tuner.spark.executors import check_standalone
from tuner.spark.jvm import (
    JAVA_VARIABLES,
    OLDEST_JAVA,
    java_program,
    java_reason,
    prepare_environment,
    start_jvm,
)
from tuner.spark.settings import (
    chosen_master,
    defaults_file,
    local_defaults,
    local_slots,
    properties,
    settings,
    user_defaults,
)
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
    """Spark as it starts; `port` and `token` are its Spark Connect endpoint's, should that be opened.

    `borrowed` is a session that was running already: it is the program's, and stays when the work ends.
    """

    parallelism: int
    port: int
    token: str = field(repr=False)
    started: Future[SparkStarted] = field(repr=False)
    borrowed: bool = False

    def wait(self) -> SparkStarted:
        """Wait until it has started.

        Raises
        ------
        SessionError
            No Java, no master, too few slots, or a session that is already running in this process and
            cannot be used.
        """
        return self.started.result()

    def close(self) -> None:
        """Stop what has started, or will have: where the work ended before it came to need Spark."""
        if self.borrowed:
            return
        if is_stopping():  # this process, which waits for nothing
            self.started.add_done_callback(_stop)
        else:
            with suppress(Exception):
                self.wait()
            _stop(self.started)


def _stop(started: Future[SparkStarted]) -> None:
    """Stop a session, if one came of it and it was not stopped yet."""
    if started.exception() is None and started.result().spark.sparkContext._jsc is not None:
        with suppress(Exception):  # of a JVM that got the same signal
            started.result().spark.stop()


def launch_spark(
    app_name: str,
    parallelism: int,
    *,
    master: str | None = None,
    port: int = 0,
    preload: Sequence[str] = (),
) -> SparkLaunch:
    """Begin to start Spark, for the JVM takes seconds, as do other imports; or use a session that runs.

    Without somebody who waits for it, or closes it, it ends with this process.

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
    running = _running()
    launch = SparkLaunch(parallelism, port, _token(), Future(), borrowed=running is not None)
    try:
        if running is not None:
            launch.started.set_result(_borrow(running, master))
            return launch
        chosen = _prepare(master, parallelism)  # here, for another thread may read the environment later
    except SessionError as error:
        launch.started.set_exception(error)
        return launch

    def run() -> None:
        try:
            launch.started.set_result(_start(app_name, parallelism, chosen, preload))
        except BaseException as error:  # whoever waits gets it
            launch.started.set_exception(error)

    threading.Thread(target=run, name="spark-launch", daemon=True).start()
    return launch


def _borrow(spark: SparkSession, master: str | None) -> SparkStarted:
    """Use the program's own session, unless another one is asked for."""
    try:
        running = str(spark.sparkContext.master)
    except PySparkException:
        raise SessionError(
            "The Spark session that is already running in this process is a client of Spark Connect, which "
            "cannot run trials: stop it (spark.stop()), or work in a process without one."
        ) from None
    if master not in (None, running):
        raise SessionError(
            f"A Spark session is already running in this process, with master {running}: leave master out "
            f"to use it, or stop it (spark.stop()) for one with {master}."
        )
    return SparkStarted(spark, running, nobody())


def _prepare(master: str | None, parallelism: int) -> str:
    """Choose the master, and set the environment right for it."""
    chosen = chosen_master(master, parallelism)
    local = local_slots(chosen)
    if local is not None:
        check_slots(local, parallelism, f"master {chosen}")
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise SessionError(f"Spark needs a folder for temporary files: {first_line(error)}.") from error
    prepare_environment(local=local is not None)
    reach_this_machine_directly()
    return chosen


def _start(app_name: str, parallelism: int, master: str, preload: Sequence[str]) -> SparkStarted:
    local = local_slots(master)
    if master.startswith("spark://"):
        check_standalone(master)
    with _starting(local=local is not None):
        spark = _launch(app_name, master)
    ahead = preload and local is not None
    workers = start_workers(spark.sparkContext, parallelism, preload) if ahead else nobody()
    return SparkStarted(spark, master, workers)


@contextmanager
def _starting(*, local: bool) -> Iterator[None]:
    """Give the JVM what it takes from the environment alone: the token, and how to start.

    A Spark setting would stand on its command line, where every user of the machine reads it.
    """
    given = {TOKEN_VARIABLE: _token()}
    with tempfile.TemporaryDirectory() as folder:
        if local:
            file = Path(folder, "spark.properties")
            file.write_text(properties(local_defaults()), encoding="utf-8")
            given["PYSPARK_SUBMIT_ARGS"] = f"--properties-file {shlex.quote(str(file))} pyspark-shell"
        os.environ.update(given)
        try:
            yield
        finally:
            for name in given:
                os.environ.pop(name, None)


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


def _running() -> SparkSession | None:
    """The session that there is, of whatever thread."""
    try:
        return SparkSession.active()
    except PySparkRuntimeError:
        return None


def _launch(app_name: str, master: str) -> SparkSession:
    conf = SparkConf(loadDefaults=False).setAppName(app_name)
    conf.setAll(list(settings(master).items()))
    try:
        SparkContext(conf=conf, gateway=start_jvm(conf))
        return SparkSession.builder.getOrCreate()
    except Exception as error:  # py4j's own error: the JVM says what went wrong in its text
        reason = java_reason(error).rstrip(".")
        if "UnsupportedClassVersionError" in reason:
            reason = f"its Java, {java_program()}, is older than {OLDEST_JAVA}"
        raise SessionError(
            f"Spark could not be started with master {master}: {reason}.{_where_to_look(master)}"
        ) from error


def _where_to_look(master: str) -> str:
    """A sentence on what else the JVM was started with; empty where that is nothing."""
    local = local_slots(master) is not None
    variables = (*JAVA_VARIABLES, "SPARK_DRIVER_MEMORY", "HADOOP_CONF_DIR")
    places = [name for name in variables if os.environ.get(name)]
    if local_defaults() if local else user_defaults():
        places.append(str(defaults_file()))
    if not local and "PYSPARK_SUBMIT_ARGS" in os.environ:
        places.append("PYSPARK_SUBMIT_ARGS (which must end with pyspark-shell)")
    return f" It may come from {' or '.join(places)}: look there." if places else ""
