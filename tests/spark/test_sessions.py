import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tuner.base.errors import SessionError, TrialError
from tuner.spark.endpoint import Endpoint, connect_from_worker
from tuner.spark.launch import launch_spark
from tuner.spark.sessions import DriverSession, check_slots, driver_session


def run(script: str, *, timeout: int = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh process: sessions, and the mode that pyspark is in, last as long as one does."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | environment,
    )


def ask(endpoint: Endpoint) -> subprocess.CompletedProcess[str]:
    return run(
        f"""
        from tuner.spark.endpoint import Endpoint, connect_from_worker
        session = connect_from_worker(Endpoint({endpoint.host!r}, {endpoint.port}, {endpoint.token!r}))
        print(session.range(5).count())
        """
    )


def test_client_with_the_token_computes_on_the_drivers_cluster(driver: DriverSession):
    assert ask(driver.endpoint).stdout.strip() == "5"


@pytest.mark.parametrize("token", ["", "wrong"])
def test_client_without_the_token_is_refused(driver: DriverSession, token: str):
    answer = ask(Endpoint(driver.endpoint.host, driver.endpoint.port, token))
    assert answer.returncode != 0
    assert "TrialError" in answer.stderr
    assert "refuses the token" in answer.stderr


@pytest.mark.long
def test_endpoint_that_does_not_answer_fails_in_seconds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPARK_CONNECT_MODE_ENABLED", "1")  # set by the call: undone with the test
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets the port
        with pytest.raises(TrialError, match="does not answer"):
            connect_from_worker(Endpoint("127.0.0.1", unused.getsockname()[1], "token"))


def test_token_stands_nowhere_that_others_read(driver: DriverSession):
    token = driver.endpoint.token
    assert token not in repr(driver)
    assert all(token not in value for _, value in driver.spark.sparkContext.getConf().getAll())
    command_lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert any(b"spark.connect.grpc.binding.address" in line for line in command_lines)
    assert not any(token.encode() in line for line in command_lines)


def test_endpoint_listens_on_loopback_alone(driver: DriverSession):
    other = socket.gethostbyname(socket.gethostname())
    if other.startswith("127."):
        other = "127.0.0.2"
    with socket.socket() as client:
        client.settimeout(5)
        with pytest.raises(OSError):
            client.connect((other, driver.endpoint.port))


def test_local_mode_has_slots_for_trials_and_for_their_jobs(driver: DriverSession):
    assert driver.slots == driver.cores + 2


def test_parallelism_that_starves_mllib_is_refused():
    with pytest.raises(SessionError, match="lower parallelism to 3"):
        check_slots(4, 4, "master local[4]")
    check_slots(5, 4, "master local[5]")


def test_a_second_session_with_another_master_is_refused(driver: DriverSession):
    with pytest.raises(SessionError, match="already running"), driver_session("two", 1, master="local[9]"):
        pass


def test_a_session_that_runs_is_used_and_stays(driver: DriverSession):
    with driver_session("two", 30) as session:  # more than there are slots: some trials would wait
        assert session.borrowed
        assert session.spark.sparkContext is driver.spark.sparkContext
        assert session.slots == driver.slots
        with pytest.raises(SessionError, match="reaches it through Spark Connect"):
            _ = session.endpoint
    assert driver.spark.range(3).count() == 3


def test_a_launch_that_borrowed_a_session_leaves_it(driver: DriverSession):
    launch_spark("two", 1).close()
    assert driver.spark.range(3).count() == 3


def test_starving_master_is_refused_before_anything_runs():
    answer = run(
        """
        from tuner.base.errors import SessionError
        from tuner.spark.sessions import driver_session
        try:
            with driver_session("refused", 2, master="local[2]"):
                pass
        except SessionError as error:
            print(error)
        """
    )
    assert "lower parallelism to 1" in answer.stdout


def test_missing_java_is_one_sentence(tmp_path: Path):
    answer = run(
        """
        from tuner.spark.sessions import driver_session
        with driver_session("no-java", 1):
            pass
        """,
        PATH=str(tmp_path),
        JAVA_HOME=str(tmp_path),
    )
    assert "SessionError: Spark needs Java 17 or newer" in answer.stderr
