import socket
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from tests.helpers.searches import free_port
from tuner.base.errors import SessionError
from tuner.spark.executors import await_slots, check_standalone, java_reason

OF_PY4J = """An error occurred while calling o1.count.
: org.apache.spark.SparkException: Job aborted
\tat org.apache.spark.Here(There.scala:1)
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (OF_PY4J, "org.apache.spark.SparkException: Job aborted"),
        (
            OF_PY4J
            + "Caused by: java.io.IOException: first\n\tat x\nCaused by: java.net.BindException: last\n",
            "java.net.BindException: last",
        ),
        ("  no Java at all\nmore", "no Java at all"),
    ],
)
def test_the_jvm_s_last_cause_is_the_reason(text: str, reason: str) -> None:
    assert java_reason(RuntimeError(text)) == reason


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
