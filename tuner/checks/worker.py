"""What a worker answers before a search counts on it; imports nothing that a worker may lack."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tuner.base.errors import (
    CacheError,
    ImageSourceError,
    SessionError,
    TrackingError,
    TrialError,
    TunerError,
)


@dataclass(frozen=True)
class WorkerChecks:
    """What a worker is to check; plain values, for what they stand for may not be importable there.

    Parameters
    ----------
    packages
        The distributions that it needs.
    probe, word
        A folder of the driver in the feature cache, with a file `word` that holds this word; None: none.
    images
        A file or folder that it must see; None: none.
    endpoint
        Host, port and token of the Spark Connect endpoint; None: it is not used.
    tracking
        What `Tracking` is made of, a run and an artifact that the run has; None: not used.
    """

    packages: tuple[str, ...]
    probe: str | None = None
    word: str = ""
    images: str | None = None
    endpoint: tuple[str, int, str] | None = field(default=None, repr=False)
    tracking: tuple[str, str, Mapping[str, str], str, str] | None = field(default=None, repr=False)

    def __call__(self, rows: Iterable[int]) -> Iterator[tuple[str, TunerError | None]]:
        """Answer, in a Spark task: the host's name, and what is wrong there or None."""
        list(rows)  # read to the end, so that Spark keeps the process for the trials
        host = socket.gethostname()
        try:
            self._check_packages(host)
            self._check_folders(host)
            self._check_endpoint(host)
            self._check_tracking(host)
        except TunerError as error:
            yield host, error
        else:
            yield host, None

    def _check_packages(self, host: str) -> None:
        missing = [name for name in self.packages if not _installed(name)]
        if missing:
            raise SessionError(
                f"The worker {host} lacks {', '.join(missing)}: install tuner's requirements into its "
                "Python, or ship an environment (docs/how-to/cluster.md)."
            )

    def _check_folders(self, host: str) -> None:
        if self.images is not None and not Path(self.images).exists():
            raise ImageSourceError(
                f"The worker {host} does not see the images {self.images}: put them into a folder that "
                "driver and workers share."
            )
        if self.probe is None:
            return
        probe = Path(self.probe)
        try:
            same = (probe / "word").read_text() == self.word
        except OSError:
            same = False
        if not same:
            raise CacheError(
                f"The worker {host} does not see the feature cache {probe.parent} of the driver: set cache "
                "to a folder that driver and workers share under one path."
            )
        try:
            (probe / f"{host}-{os.getpid()}").touch()
        except OSError as error:
            raise CacheError(
                f"The worker {host} cannot write the feature cache {probe.parent} ({error.strerror}): let "
                "the user of its executors write there."
            ) from error

    def _check_endpoint(self, host: str) -> None:
        if self.endpoint is None:
            return
        from tuner.spark.endpoint import Endpoint, connect_from_worker

        try:
            connect_from_worker(Endpoint(*self.endpoint))
        except TrialError as error:
            raise SessionError(
                f"On the worker {host}: {error} Let it reach this machine at that port (--connect-port "
                "sets the port, spark.driver.host the address)."
            ) from error
        except ImportError as error:  # pyspark's own, for grpcio and what else Connect needs
            raise SessionError(
                f"The worker {host} lacks a package of Spark Connect: {error} (docs/how-to/cluster.md)."
            ) from error

    def _check_tracking(self, host: str) -> None:
        if self.tracking is None:
            return
        from tuner.tracking.answering import check_answers, reason, without_credentials
        from tuner.tracking.store import Tracking, sqlite_file

        uri, experiment_id, access, run_id, artifact = self.tracking
        shown, database = without_credentials(uri), sqlite_file(uri)
        advice = "workers need an MLflow server, or a store in a folder that they share with the driver"
        if database is not None and not database.is_file():  # it would make one of its own
            raise TrackingError(f"The worker {host} does not see the MLflow store {shown}: {advice}.")
        try:
            store = Tracking(uri, experiment_id, access)
            store.make_current()
            check_answers(uri)
            client = store.client()
            client.get_experiment(experiment_id)
            seen = [file.path for file in client.list_artifacts(run_id)]
        except Exception as error:  # each kind of store has its own
            raise TrackingError(
                f"The worker {host} cannot use the MLflow store {shown}: {reason(error)}; {advice}."
            ) from error
        if artifact not in seen:
            raise TrackingError(
                f"The worker {host} does not see the artifacts of the MLflow store {shown}: {advice}."
            )


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
