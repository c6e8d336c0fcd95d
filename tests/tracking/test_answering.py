"""Servers and databases that answer, refuse, or are away for a while."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from tests.helpers.databases import PostgresServer
from tests.helpers.searches import free_port
from tuner.base.errors import TrackingError
from tuner.tracking import answering
from tuner.tracking.answering import check_answers, is_database
from tuner.tracking.runs import answers, parent_run
from tuner.tracking.store import Tracking, open_tracking


@contextmanager
def answering_with(status: int) -> Iterator[str]:
    """A server with one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [200, 401, 403, 404])
def test_a_server_that_refuses_is_there(status: int) -> None:
    with answering_with(status) as uri:
        check_answers(uri)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_whose_own_store_is_away_does_not_answer(status: int) -> None:
    with answering_with(status) as uri, pytest.raises(ConnectionError, match=f"answers with {status}"):
        check_answers(uri)


@pytest.mark.parametrize("kind", ["http", "postgresql"])
def test_nobody_there_is_one_line(kind: str) -> None:
    with pytest.raises(ConnectionError) as caught:  # or a driver that is not installed
        check_answers(f"{kind}://user:secret@127.0.0.1:{free_port()}/mlflow")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_always_answers(tmp_path: Path) -> None:
    check_answers(f"sqlite:///{tmp_path / 'none' / 'mlflow.db'}")


def test_databases_are_known_by_their_scheme() -> None:
    assert is_database("postgresql://host/name")
    assert is_database("mysql+pymysql://host/name")
    assert not is_database("sqlite:////mlflow.db")
    assert not is_database("https://postgresql/")


def test_threads_that_ask_leave_the_environment_alone() -> None:
    uri, before = f"http://127.0.0.1:{free_port()}", dict(os.environ)
    seen, over = [], threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.append(dict(os.environ) == before)

    def ask() -> None:
        with pytest.raises(ConnectionError):
            check_answers(uri)

    watcher = threading.Thread(target=watch)
    watcher.start()
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    watcher.join()
    assert all(seen)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def kept(database: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    """An MLflow store in a database."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.uri)
    return open_tracking("an experiment")


@pytest.mark.long
def test_a_database_that_is_away_for_a_while_is_waited_for(
    kept: Tracking, database: PostgresServer
) -> None:
    run_id = kept.client().create_run(kept.experiment_id).info.run_id
    database.stop()
    assert not answers(kept)
    threading.Timer(3, database.start).start()
    kept.client().log_metric(run_id, "accuracy", 1)
    assert answers(kept)
    assert kept.client().get_run(run_id).data.metrics == {"accuracy": 1}


@pytest.mark.long
def test_a_database_that_stays_away_is_waited_for_once(
    kept: Tracking, database: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_WAIT_SECONDS", 2)
    run_id = kept.client().create_run(kept.experiment_id).info.run_id
    database.stop()
    pauses, sleep = [], answering.time.sleep
    monkeypatch.setattr(answering.time, "sleep", lambda seconds: pauses.append(seconds) or sleep(seconds))
    for _ in range(2):
        with pytest.raises(MlflowException):
            kept.client().log_metric(run_id, "accuracy", 1)
    # The second request finds that the time is over.
    assert 3 <= pauses.count(answering._PAUSE_SECONDS) <= 5
    with pytest.raises(TrackingError, match=r"postgresql.*//\*\*\*@127.0.0.1.*cannot be used: .*refused"):
        open_tracking("an experiment")
    with pytest.raises(OperationalError):  # somebody else's, which is no business of tuner's
        create_engine(database.uri.replace("/postgres", "/other")).connect()
    database.start()


@pytest.mark.long
def test_a_run_whose_database_is_gone_hides_no_error(
    kept: Tracking, database: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_WAIT_SECONDS", 2)

    def work() -> None:
        with parent_run(kept, "a search", "search"):
            database.stop()
            raise ValueError("what went wrong")

    with pytest.raises(ValueError, match="what went wrong"):
        work()
    database.start()
    with parent_run(kept, "another", "search"):  # the one before is not active any more
        pass
