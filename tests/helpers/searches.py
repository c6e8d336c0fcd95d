"""A search in a process of its own, for tests that disturb it, and what MLflow says of it afterwards."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run


@contextmanager
def tracking(store: str) -> Iterator[None]:
    """Let MLflow's fluent calls use a store; what was set before, if anything, is set again."""
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(store)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def aliases_of(client: MlflowClient, name: str) -> dict[str, int]:
    """The version that each alias of a model stands for; MLflow gives it as a number or as text."""
    return {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait for something to become true; fail if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that they started."""
    for thread in Path(f"/proc/{pid}/task").glob("*"):  # each lists its own
        try:
            children = (thread / "children").read_text().split()
        except OSError:  # it ended
            continue
        for child in map(int, children):
            yield child
            yield from descendants(child)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:  # it ended
        return ""


def kill_tree(process: "subprocess.Popen[Any]") -> None:
    """End a process that a test started, and those that it started, at once."""
    for pid in list(descendants(process.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.kill()  # does nothing once it has ended
    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class SearchProcess:
    """`tuner` in a folder; `uri` is the MLflow store, by default the folder's own."""

    def __init__(
        self, folder: Path, *arguments: object, uri: str | None = None, stdout: int | None = None
    ) -> None:
        self.folder = folder
        self.uri = uri or f"sqlite:///{folder / 'mlflow.db'}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        self.log = (folder / "output.log").open("a+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tuner", *map(str, arguments)],
            cwd=folder,
            env=environment | {"MLFLOW_TRACKING_URI": self.uri},
            stdout=stdout or self.log,
            stderr=self.log,
            text=True,
            start_new_session=True,  # a Ctrl-C of the test run is not the search's
        )
        self.said_before = len(self.output())

    def said(self) -> str:
        """What this process wrote, and not those that were there before it."""
        return self.output()[self.said_before :]

    def __enter__(self) -> "SearchProcess":
        return self

    def __exit__(self, *_: object) -> None:
        kill_tree(self.process)
        self.log.close()

    def end(self, seconds: float = 240) -> int:
        """Wait for the end; gives the exit code."""
        return self.process.wait(seconds)

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def search(self) -> Run:
        """The latest search's run."""
        client = self.client()
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        return client.search_runs(ids, "tags.`tuner.kind` = 'search'", order_by=["start_time DESC"])[0]

    def trials(self, *statuses: str) -> list[Run]:
        """Its trials' runs, of these statuses or of all, oldest first."""
        search = self.search()
        query = f"tags.`mlflow.parentRunId` = '{search.info.run_id}'"
        runs = self.client().search_runs(
            [search.info.experiment_id], query, order_by=["start_time ASC"], max_results=1000
        )
        return [run for run in runs if not statuses or run.info.status in statuses]

    def numbers(self, *statuses: str) -> list[int]:
        return sorted(int(run.data.tags["tuner.trial"]) for run in self.trials(*statuses))

    def running(self) -> bool:
        """Whether a trial is at work: its run is there, and its parameters."""
        try:
            return any(run.data.params for run in self.trials("RUNNING"))
        except Exception:  # the store or the run is not there yet
            return False

    @contextmanager
    def amid_a_trial(self, finished: int = 0) -> Iterator[None]:
        """Hold the search where a trial is at work and so many have finished: its store takes no writes."""
        wait_until(lambda: self.running() or self.process.poll() is not None, 400)
        while self.process.poll() is None:
            with closing(
                sqlite3.connect(self.uri.removeprefix("sqlite:///"), 60, isolation_level=None)
            ) as store:
                store.execute("BEGIN IMMEDIATE")  # others may read
                if self.running() and len(self.trials("FINISHED")) >= finished:
                    yield
                    return
            time.sleep(0.05)
        raise AssertionError(f"The search ended before it could be held: {self.output()[-3000:]}")

    def workers(self) -> list[int]:
        """The Python workers: forks of a daemon."""
        below = descendants(self.process.pid)
        daemons = [pid for pid in below if "-m tuner.spark.worker_daemon" in command_line(pid)]
        return [pid for pid in daemons if any(pid in descendants(daemon) for daemon in daemons)]

    def assert_whole(self, wanted: int) -> None:
        """Each trial finished once, nothing is left running, and the registered winner loads."""
        assert self.numbers("FINISHED") == list(range(1, wanted + 1)), self.output()[-3000:]
        assert self.trials("RUNNING", "SCHEDULED") == []
        assert self.search().info.status == "FINISHED"
        with tracking(self.uri):
            name = self.client().search_registered_models()[0].name
            assert mlflow.pyfunc.load_model(f"models:/{name}@champion").unwrap_python_model is not None


class TrackingServer:
    """A real tracking server on loopback, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        artifacts = ["--artifacts-destination", str(self.folder / "artifacts")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, *store, *artifacts],
            cwd=self.folder,
            # Else it starts eight processes for jobs of GenAI, which nobody here gives it.
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until(self.listens, 300)
        except BaseException:
            self.stop()
            raise

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None:
            kill_tree(self.process)
            self.process = None
