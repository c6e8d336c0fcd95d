"""The Spark Connect endpoint of the driver's application, and a worker's client of it.

A trial runs inside a Spark task, where no SparkContext may be made. Where MLlib is to fit on the cluster,
the trial is a Spark Connect client of the same application, whose driver serves it; MLlib fits there.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from tuner.base.errors import SessionError, TrialError

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession as ConnectSession

TOKEN_VARIABLE = "SPARK_CONNECT_AUTHENTICATE_TOKEN"
# A proxy of the environment is for the web, and no_proxy would have to name the driver.
_NO_PROXY = [("grpc.enable_http_proxy", 0)]
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


def open_endpoint(spark: SparkSession, port: int, token: str) -> Endpoint:
    """Start the Spark Connect server of an application that runs, for this application's token only.

    Parameters
    ----------
    spark
        The driver's classic session.
    port
        Where to listen; 0: a free port.
    token
        What the JVM was started with (`TOKEN_VARIABLE`).

    Raises
    ------
    SessionError
        The port is in use, or the endpoint does not keep to the token.
    """
    configuration = spark.sparkContext.getConf()
    host = str(configuration.get("spark.driver.host"))
    chosen = _start_server(spark, port)
    endpoint = Endpoint(host, chosen, token)
    _check_guarded(endpoint, str(configuration.get("spark.driver.bindAddress", host)))
    return endpoint


def _start_server(spark: SparkSession, port: int) -> int:
    """Start the server; gives its port.

    Spark's plugin starts it with the application, needed or not. There is no public way to start it later:
    this is what the plugin calls.
    """
    context = spark.sparkContext._jsc.sc()
    java = cast("Any", spark.sparkContext._jvm).org.apache.spark
    service = java.sql.connect.service
    for attempt in range(1, _PORTS_TRIED + 1):
        chosen = port or _free_port()
        context.conf().set("spark.connect.grpc.binding.port", str(chosen))
        try:
            service.SparkConnectService.start(context)
        except Py4JJavaError as error:
            if "BindException" not in str(error):
                raise
            if port or attempt == _PORTS_TRIED:
                raise SessionError(
                    f"Port {chosen} of this machine is in use, so Spark Connect cannot listen there: "
                    "choose another with --connect-port, or 0 for any free one."
                ) from None
        else:
            return chosen
    raise AssertionError("unreachable")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def _check_guarded(endpoint: Endpoint, host: str) -> None:
    """Refuse to go on with an endpoint that lets strangers in, or that does not take the token."""
    from grpc import RpcError, insecure_channel  # type: ignore[import-untyped]
    from pyspark.sql.connect.proto import ConfigRequest, SparkConnectServiceStub

    question = ConfigRequest(session_id=str(uuid.uuid4()))
    question.operation.get_all.SetInParent()
    answers = []
    with insecure_channel(f"{host}:{endpoint.port}", options=_NO_PROXY) as channel:
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

    channel = DefaultChannelBuilder(f"sc://{endpoint.address}", channelOptions=_NO_PROXY)
    channel.set("authorization", f"Bearer {endpoint.token}")
    session = ConnectSession.builder.channelBuilder(channel).create()
    # The default policy retries for over ten minutes in silence.
    session.client.set_retry_policies([DefaultPolicy(max_retries=5, max_backoff=4000)])
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"\[RETRIES_EXCEEDED\]")  # the error says it
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
