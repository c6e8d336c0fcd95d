"""Spark sessions: the driver's, with its Spark Connect endpoint, and the worker's client of it.

A trial runs inside a Spark task, where no SparkContext may be made. It is a Spark Connect client of the
same application instead: the driver's JVM serves the endpoint, and MLlib fits there, on the cluster.
"""

from __future__ import annotations

import os
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

from tuner.base.errors import SessionError, TrialError
from tuner.base.machine import machine_cores
from tuner.spark.executors import await_slots
from tuner.spark.launch import TOKEN_VARIABLE, SparkLaunch, check_slots, launch_spark
from tuner.spark.package_zip import pack_package
from tuner.spark.settings import local_slots

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession as ConnectSession


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

    The executors of a cluster get the tuner package itself. The parameters are those of `launch_spark`.

    Raises
    ------
    SessionError
        No Java, no master, no executors, a port in use, too few slots, or a session that is already
        running in this process.
    """
    with launched_session(launch_spark(app_name, parallelism, master=master, port=port)) as session:
        yield session


@contextmanager
def launched_session(launch: SparkLaunch) -> Iterator[DriverSession]:
    """Wait for Spark, which starts already; as `driver_session`.

    Raises
    ------
    SessionError
        As `driver_session`.
    """
    started = launch.wait()
    spark, master, local = started.spark, started.master, local_slots(started.master)
    try:
        configuration = spark.sparkContext.getConf()
        host = str(configuration.get("spark.driver.host"))
        endpoint = Endpoint(host, started.port, launch.token)
        _check_guarded(endpoint, str(configuration.get("spark.driver.bindAddress", host)))
        slots = local or await_slots(spark, launch.parallelism, master)
        check_slots(slots, launch.parallelism, f"master {master}")
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
    os.environ.pop(TOKEN_VARIABLE, None)
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
