import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.helpers.clusters import Cluster
from tests.helpers.searches import free_port
from tuner.base.errors import SessionError
from tuner.spark.executors import await_slots, check_standalone, task_slots
from tuner.spark.sessions import DriverSession


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_master_that_listens_is_there(listening: int) -> None:
    check_standalone(f"spark://127.0.0.1:{listening}")
    check_standalone(f"spark://127.0.0.1:{free_port()},127.0.0.1:{listening}")


@pytest.mark.parametrize(
    "master", ["spark://127.0.0.1:{port}", "spark://[::1]:{port}", "spark://nowhere", "spark://"]
)
def test_a_master_that_is_not_there_is_one_sentence(master: str) -> None:
    address = master.format(port=free_port())
    with pytest.raises(SessionError, match=r"^No Spark master answers at spark://[^\n]*: check --master, "):
        check_standalone(address)


def test_slots_are_those_of_the_executors_that_are_there(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.spark.executors._SETTLED_SECONDS", 0.1)
    slots = spark.sparkContext.defaultParallelism
    assert await_slots(spark, slots - 1, "local") == slots


def test_where_fewer_come_than_are_wanted_those_are_given_after_a_while(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.spark.executors._EXECUTORS_SECONDS", 5)
    slots = spark.sparkContext.defaultParallelism
    assert await_slots(spark, slots, "local") == slots


def test_slots_are_what_runs_at_once(driver: DriverSession, spark: SparkSession) -> None:
    """Of the JVM's own method: it is no part of pyspark, and could be called otherwise one day."""
    assert task_slots(spark.sparkContext) == driver.slots


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.mark.long
@pytest.mark.parametrize(
    ("settings", "slots"),
    [
        ({"spark_default_parallelism": "64"}, 4),
        ({"spark_task_cpus": "2", "spark_default_parallelism": "64"}, 2),
        # Two executors of three cores would have one slot each for tasks of two; here, of one core, none.
        ({"spark_executor_cores": "1", "spark_cores_max": "3"}, 3),
    ],
    ids=["parallelism raised", "tasks of two cores", "cores limited"],
)
def test_a_cluster_has_the_slots_of_its_executors(
    cluster: Cluster, settings: dict[str, str], slots: int
) -> None:
    cluster.configure(**settings)
    script = (
        "from tuner.spark.sessions import driver_session\n"
        f"with driver_session('slots', 1, master={cluster.url!r}) as session:\n"
        "    print(session.slots)\n"
        "from tuner.base.errors import SessionError\n"
        "try:\n"
        f"    with driver_session('slots', {slots}, master={cluster.url!r}): pass\n"
        "except SessionError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | cluster.environment(),
        cwd=Path(cluster.folder),
    )
    counted, refused = done.stdout.splitlines()
    assert int(counted) == slots, done.stderr
    assert f"would hold all of the {slots} task slots" in refused
