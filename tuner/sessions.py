"""Spark sessions: the driver's, with its Spark Connect endpoint, and the worker's client of it.

A trial runs inside a Spark task, where no SparkContext may be made. It is a Spark Connect client of the
same application instead: the driver's JVM serves the endpoint, and MLlib fits there, on the cluster.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

from tuner.errors import SessionError, TrialError
from tuner.machine import machine_cores, memory_mib

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession as ConnectSession

_TOKEN_VARIABLE = "SPARK_CONNECT_AUTHENTICATE_TOKEN"
_TASK_ATTEMPTS = 4  # Spark's default on clusters; its local mode gives up at the first dead worker
_PORTS_TRIED = 3  # another process may take a free port between choosing and binding it


@dataclass(frozen=True)
class Endpoint:
    """Where a worker reaches the driver's Spark Connect server, and the token that lets it in."""

    host: str
    port: int
    token: str = field(repr=False)  # never in a log, a tag or a command line

    @property
    def address(self) -> str:
        """Host and port, as gRPC writes them."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class DriverSession:
    """The driver's classic session and its endpoint.

    `cores` is what the machine or the cluster computes with; `slots` is how many tasks run at once.
    """

    spark: SparkSession
    endpoint: Endpoint
    cores: int
    slots: int


def _local_slots(master: str) -> int | None:
    """The slots of a `local[…]` master; None for a cluster's."""
    if master == "local":
        return 1
    if not master.startswith("local["):
        return None
    count = master.removeprefix("local[").rstrip("]").split(",")[0]
    return machine_cores() if count == "*" else int(count)


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


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if not (home and shutil.which("java", path=f"{home}/bin")) and not shutil.which("java"):
        raise SessionError(
            "Spark needs Java 17 or newer and none was found: install a JRE (Debian, Ubuntu: apt-get "
            "install default-jre-headless) or set JAVA_HOME."
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _configuration(master: str, host: str, port: int) -> dict[str, str]:
    log4j = resources.files("tuner") / "log4j2.properties"
    settings = {
        "spark.master": master,
        "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
        "spark.connect.grpc.binding.address": host,
        "spark.connect.grpc.binding.port": str(port),
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log4j}",
        "spark.scheduler.mode": "FAIR",  # the MLlib jobs of several trials share the slots
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "1000",  # of image contents: 10,000 may be GBs
        "spark.ui.showConsoleProgress": "false",
    }
    if _local_slots(master) is not None:
        # One machine: its other users and the network have no business with this application.
        settings |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": str(machine_cores()),
        }
        if "SPARK_DRIVER_MEMORY" not in os.environ:
            settings["spark.driver.memory"] = f"{_driver_memory_mib()}m"
    return settings


def _driver_memory_mib() -> int:
    """A quarter of the machine's memory, from 1 to 8 GiB: in local mode the driver holds the features."""
    return min(max(memory_mib() // 4, 1024), 8192)


def _launch(app_name: str, master: str, host: str, port: int) -> SparkSession:
    builder = SparkSession.builder.appName(app_name)
    for key, value in _configuration(master, host, port).items():
        builder = builder.config(key, value)
    try:
        return builder.getOrCreate()
    except Exception as error:  # py4j's own error: the JVM says what went wrong in its text
        if "BindException" in str(error):
            raise SessionError(
                f"Port {port} on {host} is in use, so Spark Connect cannot listen there: choose another "
                "with --connect-port, or 0 for any free one."
            ) from None
        reason = str(error).strip().splitlines()[0]
        raise SessionError(f"Spark could not be started with master {master}: {reason}") from error


def _launch_on_free_port(app_name: str, master: str, host: str, port: int) -> tuple[SparkSession, int]:
    for attempt in range(1, _PORTS_TRIED + 1):
        chosen = port or _free_port()
        try:
            return _launch(app_name, master, host, chosen), chosen
        except SessionError as error:
            if port or "is in use" not in str(error) or attempt == _PORTS_TRIED:
                raise
    raise AssertionError("unreachable")


@contextmanager
def driver_session(
    app_name: str, parallelism: int, *, master: str | None = None, port: int = 0
) -> Iterator[DriverSession]:
    """Start Spark on the driver, with a Spark Connect endpoint for its trials; stop it at the end.

    Parameters
    ----------
    app_name
        The application's name, as Spark's own pages show it.
    parallelism
        How many trials are to run at once. Without `master`, local mode gets a slot for each of
        them beside one for each core, so that the MLlib jobs of the trials find theirs.
    master
        A Spark master URL; None: local mode, on every core.
    port
        The endpoint's port; 0: a free one.

    Raises
    ------
    SessionError
        No Java, a port in use, too few slots, or a session that is already running in this process.
    """
    _check_java()
    if SparkSession.getActiveSession() is not None:
        raise SessionError(
            "A Spark session is already running in this process: stop it (spark.stop()) before a "
            "search, which starts one with a Spark Connect endpoint of its own."
        )
    cores = machine_cores()
    master = master or f"local[{cores + parallelism},{_TASK_ATTEMPTS}]"
    local = _local_slots(master)
    if local is not None:
        check_slots(local, parallelism, f"master {master}")
    host = "127.0.0.1" if local is not None else socket.getfqdn()
    token = secrets.token_urlsafe(32)
    # Workers must run the Python that holds these packages. The token goes by the environment: a
    # Spark setting would stand on the JVM's command line, where every user of the machine reads it.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ[_TOKEN_VARIABLE] = token
    try:
        spark, bound = _launch_on_free_port(app_name, master, host, port)
    finally:
        del os.environ[_TOKEN_VARIABLE]
    try:
        slots = spark.sparkContext.defaultParallelism
        check_slots(slots, parallelism, f"master {master}")
        yield DriverSession(
            spark=spark,
            endpoint=Endpoint(host, bound, token),
            cores=min(cores, slots) if local is not None else slots,
            slots=slots,
        )
    finally:
        spark.stop()


@lru_cache(maxsize=1)
def connect_from_worker(endpoint: Endpoint) -> ConnectSession:
    """Open the worker's client of the driver's session; kept for the next trial of this process.

    Raises
    ------
    TrialError
        The endpoint does not answer within some seconds, or refuses the token.
    """
    # pyspark.ml asks this variable, not the session, whether it speaks Connect.
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    # A local worker inherits the JVM's environment. With a token pyspark speaks TLS to every host but
    # `localhost`, and the driver's server speaks none: the token goes as a plain header instead.
    os.environ.pop(_TOKEN_VARIABLE, None)
    from pyspark.errors import PySparkException
    from pyspark.sql.connect.client import DefaultChannelBuilder
    from pyspark.sql.connect.client.retries import DefaultPolicy
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    channel = DefaultChannelBuilder(f"sc://{endpoint.address}")
    channel.set("authorization", f"Bearer {endpoint.token}")
    session = ConnectSession.builder.channelBuilder(channel).create()
    # The default policy retries for over ten minutes in silence.
    session.client.set_retry_policies([DefaultPolicy(max_retries=5, max_backoff=4000)])
    try:
        _ = session.version
    except PySparkException as error:
        reason = "it refuses the token" if "UNAUTHENTICATED" in str(error) else "it does not answer"
        raise TrialError(
            f"The driver's Spark Connect endpoint {endpoint.address} cannot be used: {reason}."
        ) from error
    return session


@contextmanager
def interrupted_after(session: ConnectSession, seconds: float | None) -> Iterator[None]:
    """Cancel what a worker's client runs once it has taken `seconds`; None: never.

    Raises
    ------
    TrialError
        It took longer.
    """
    if seconds is None:
        yield
        return
    ended, late = threading.Event(), threading.Event()

    def interrupt() -> None:
        if not ended.wait(seconds):
            late.set()
            session.interruptAll()
            while not ended.wait(1):  # between two operations there was nothing to interrupt
                session.interruptAll()

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        yield
    except Exception as error:
        if late.is_set():
            raise TrialError(too_long(seconds)) from error
        raise
    finally:
        ended.set()


def too_long(seconds: float) -> str:
    """What is said of a trial that was ended."""
    return f"The trial took longer than trial_timeout, {seconds:g} s, and was ended."
