"""The driver's Spark session: waited for, with its cores and slots, and stopped at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pyspark.sql import SparkSession

from tuner.base.distribution import pack_package
from tuner.base.errors import SessionError
from tuner.base.machine import machine_cores
from tuner.base.uris import file_uri
from tuner.spark.endpoint import Endpoint, open_endpoint
from tuner.spark.executors import await_slots
from tuner.spark.jobs import freed_main_thread, stopped_at_end
from tuner.spark.launch import SparkLaunch, check_slots, launch_spark
from tuner.spark.settings import local_slots


@dataclass(frozen=True)
class DriverSession:
    """The driver's classic session.

    `cores` is what the machine or the cluster computes with; `slots` is how many tasks run at once;
    `connect_port` is where its Spark Connect endpoint listens, once it is opened, 0 for a free port;
    a session that is `borrowed` from the program has none.
    """

    spark: SparkSession
    cores: int
    slots: int
    token: str = field(repr=False)
    connect_port: int = 0
    borrowed: bool = False

    @cached_property
    def endpoint(self) -> Endpoint:
        """Where workers reach MLlib; opened when it is asked for: one that is not there needs no guard.

        Raises
        ------
        SessionError
            The port is in use, the endpoint does not keep to the application's token, or the session is the
            program's, whose JVM knows no token.
        """
        if self.borrowed:
            raise SessionError(
                "What MLlib fits on the cluster reaches it through Spark Connect, which the Spark session "
                "that was already running in this process does not guard: stop it (spark.stop()), so that "
                "tuner starts its own, or search classifiers that fit in workers (fit: worker)."
            )
        return open_endpoint(self.spark, self.connect_port, self.token)


@contextmanager
def driver_session(
    app_name: str, parallelism: int, *, master: str | None = None, port: int = 0
) -> Iterator[DriverSession]:
    """Start Spark on the driver, and stop it at the end; a session that runs is used, and stays.

    The executors of a cluster get the tuner package itself. The parameters are those of `launch_spark`.

    Raises
    ------
    SessionError
        No Java, no master, no executors, a port in use, too few slots, or a session that is already
        running in this process and cannot be used.
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
    borrowed = launch.borrowed
    with freed_main_thread(spark.sparkContext, borrowed=True) if borrowed else stopped_at_end(spark):
        slots = local or await_slots(spark, launch.parallelism, master)
        if not borrowed:  # in which no trial waits for a job of its own
            check_slots(slots, launch.parallelism, f"master {master}")
        cores = slots if local is None else min(machine_cores(), slots)
        with tempfile.TemporaryDirectory() as folder:
            if local is None:
                spark.sparkContext.addPyFile(file_uri(pack_package(Path(folder))))
            yield DriverSession(spark, cores, slots, launch.token, launch.port, borrowed)
