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
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

from tuner.errors import SessionError, TrialError
from tuner.executors import await_slots, check_standalone, java_reason
from tuner.machine import machine_cores
from tuner.package_zip import pack_package
from tuner.spark_settings import chosen_master, local_slots, settings

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession as ConnectSession

_TOKEN_VARIABLE = "SPARK_CONNECT_AUTHENTICATE_TOKEN"
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
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def _launch(app_name: str, master: str, port: int) -> SparkSession:
    builder = SparkSession.builder.appName(app_name)
    for key, value in settings(master, port).items():
        builder = builder.config(key, value)
    try:
        return builder.getOrCreate()
    except Exception as error:  # py4j's own error: the JVM says what went wrong in its text
        if "BindException" in str(error) and str(port) in str(error):
            raise SessionError(
                f"Port {port} of this machine is in use, so Spark Connect cannot listen there: choose "
                "another with --connect-port, or 0 for any free one."
            ) from None
        raise SessionError(
            f"Spark could not be started with master {master}: {java_reason(error)}"
        ) from error


def _launch_on_free_port(app_name: str, master: str, port: int) -> tuple[SparkSession, int]:
    for attempt in range(1, _PORTS_TRIED + 1):
        chosen = port or _free_port()
        try:
            return _launch(app_name, master, chosen), chosen
        except SessionError as error:
            if port or "is in use" not in str(error) or attempt == _PORTS_TRIED:
                raise
    raise AssertionError("unreachable")


@lru_cache(maxsize=1)
def _token() -> str:
    """The token of this process: its JVM outlives a session, and keeps the environment it began with."""
    return secrets.token_urlsafe(32)


def _check_guarded(endpoint: Endpoint, host: str) -> None:
    """Refuse to go on with an endpoint that lets strangers in, or that does not take the token."""
    from grpc import RpcError, insecure_channel  # type: ignore[import-untyped]
    from pyspark.sql.connect.proto import ConfigRequest, SparkConnectServiceStub

    question = ConfigRequest(session_id=str(uuid.uuid4()))
    question.operation.get_all.SetInParent()
    answers = []
    with insecure_channel(f"{host}:{endpoint.port}") as channel:
        ask = SparkConnectServiceStub(channel).Config  # type: ignore[no-untyped-call]
        for metadata in ([], [("authorization", f"Bearer {endpoint.token}")]):
            try:
                ask(question, metadata=metadata, timeout=30)
                answers.append("")
            except RpcError as error:
                answers.append(error.code().name)
    if answers != ["UNAUTHENTICATED", ""]:
        raise SessionError(
            "The Spark Connect endpoint does not keep to this application's token: start tuner by itself, "
            "not with spark-submit or beside another Spark application in the same process, and take "
            "spark.connect.authenticate.token out of spark-defaults.conf."
        )


@contextmanager
def driver_session(
    app_name: str, parallelism: int, *, master: str | None = None, port: int = 0
) -> Iterator[DriverSession]:
    """Start Spark on the driver, with a Spark Connect endpoint for its trials; stop it at the end.

    The executors of a cluster get the tuner package itself.

    Parameters
    ----------
    app_name
        The application's name, as Spark's own pages show it.
    parallelism
        How many trials are to run at once.
    master
        A Spark master URL; None: that of `spark-defaults.conf`, or else local mode, on every core.
    port
        The endpoint's port; 0: a free one.

    Raises
    ------
    SessionError
        No Java, no master, no executors, a port in use, too few slots, or a session that is already
        running in this process.
    """
    _check_java()
    if SparkSession.getActiveSession() is not None:
        raise SessionError(
            "A Spark session is already running in this process: stop it (spark.stop()) before a "
            "search, which starts one with a Spark Connect endpoint of its own."
        )
    master = chosen_master(master, parallelism)
    local = local_slots(master)
    if local is not None:
        check_slots(local, parallelism, f"master {master}")
    elif master.startswith("spark://"):
        check_standalone(master)
    # Workers must run the Python that holds these packages. The token goes by the environment: a
    # Spark setting would stand on the JVM's command line, where every user of the machine reads it.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ[_TOKEN_VARIABLE] = _token()
    try:
        spark, bound = _launch_on_free_port(app_name, master, port)
    finally:
        del os.environ[_TOKEN_VARIABLE]
    try:
        configuration = spark.sparkContext.getConf()
        host = str(configuration.get("spark.driver.host"))
        endpoint = Endpoint(host, bound, _token())
        _check_guarded(endpoint, str(configuration.get("spark.driver.bindAddress", host)))
        slots = local or await_slots(spark, parallelism, master)
        check_slots(slots, parallelism, f"master {master}")
        cores = slots if local is None else min(machine_cores(), slots)
        with tempfile.TemporaryDirectory() as folder:
            if local is None:
                spark.sparkContext.addPyFile(str(pack_package(Path(folder))))
            yield DriverSession(spark, endpoint, cores, slots)
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
        # MLlib's check for NaN gives each fit code of another name, to generate and compile anew.
        session.conf.set("spark.sql.codegen.wholeStage", "false")
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
