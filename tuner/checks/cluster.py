"""A cluster's workers, looked at before a search counts on them: packages, folders, endpoint, MLflow."""

from __future__ import annotations

import re
import secrets
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tuner.base.distribution import requirements
from tuner.base.errors import SessionError
from tuner.base.files import writing
from tuner.base.uris import local_path
from tuner.checks.worker import WorkerChecks
from tuner.spark.jobs import cancelled_after
from tuner.spark.jvm import java_reason
from tuner.spark.sessions import DriverSession
from tuner.spark.settings import is_local
from tuner.tracking.names import EXPERIMENT_FILE
from tuner.tracking.store import Tracking

_CHECK_SECONDS = 180  # for all of them; the first import of everything takes a while
# The command line and the progress line; what exports a network and compares it.
_DRIVER_ONLY = {"typer", "rich", "onnx", "onnxruntime", "tf2onnx"}


def check_workers(
    session: DriverSession,
    *,
    cache: Path | None = None,
    images: str | None = None,
    store: Tracking | None = None,
    run_id: str = "",
    connects: bool = False,
) -> tuple[str, ...]:
    """Ask every worker of a cluster whether it can do its part; gives their hosts, in local mode none.

    One task a slot, all at once, so that each executor gets some. Each looks for Python's version and the
    packages, and for what is given here.

    Parameters
    ----------
    cache
        The feature cache: must be one folder for all.
    images
        A source of images; a local one must be seen by all.
    store, run_id
        Where trials are logged, and the search's run, whose experiment file must be seen by all.
    connects
        Whether trials are clients of the session's Spark Connect endpoint.

    Raises
    ------
    SessionError
        A worker has another Python or lacks a package, does not reach the endpoint, or does not answer.
    CacheError, ImageSourceError, TrackingError
        A worker does not see, or cannot write, the cache, the images or the MLflow store.
    """
    if is_local(session.spark.sparkContext):
        return ()
    endpoint = session.endpoint if connects else None
    with _probe(cache) as (folder, word):
        checks = WorkerChecks(
            packages=needed_packages(),
            probe=folder,
            word=word,
            images=_local_path(images) if images else None,
            endpoint=(endpoint.host, endpoint.port, endpoint.token) if endpoint else None,
            tracking=_tracking(store, run_id) if store else None,
        )
        answers = _ask(session, checks)
    for _, error in answers:
        if error is not None:
            raise error
    return tuple(sorted({host for host, _ in answers}))


def _tracking(store: Tracking, run_id: str) -> tuple[str, str, Mapping[str, str], str, str]:
    return store.uri, store.experiment_id, store.access, run_id, EXPERIMENT_FILE


def needed_packages() -> tuple[str, ...]:
    """The distributions that a worker imports: tuner's requirements but for the driver's."""
    names = (
        re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        for requirement in requirements()
        if "extra ==" not in requirement
    )
    return tuple(name for name in names if name.lower() not in _DRIVER_ONLY)


@contextmanager
def _probe(cache: Path | None) -> Iterator[tuple[str | None, str]]:
    """A folder in the cache with a word that nobody can guess; removed at the end."""
    if cache is None:
        yield None, ""
        return
    folder, word = cache.absolute() / f".probe-{uuid.uuid4().hex}", secrets.token_hex(16)
    with writing("The feature cache", cache, "free it or choose another folder with cache"):
        folder.mkdir(parents=True)
        (folder / "word").write_text(word)
    try:
        yield str(folder), word
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _local_path(images: str) -> str | None:
    """The path that workers read themselves; None for a table, a built-in set, and what Spark reads.

    None, too, for what is not there on the driver: whoever reads it says so.
    """
    path = None if re.match(r"(?!file:)\w[\w+.-]+:", images) else local_path(images)
    return str(path.absolute()) if path is not None and path.exists() else None


def _ask(session: DriverSession, checks: WorkerChecks) -> list[tuple[str, Exception | None]]:
    context = session.spark.sparkContext
    with cancelled_after(context, _CHECK_SECONDS, "check") as late:
        try:
            tasks = context.parallelize(range(session.slots), session.slots)
            return list(tasks.mapPartitions(checks).collect())
        except Exception as error:
            if late.is_set():
                raise SessionError(
                    f"The workers of {context.master} did not all answer within {_CHECK_SECONDS} s: see on "
                    "the cluster's page whether their executors are alive and have cores free."
                ) from None
            raise SessionError(_why_not_run(str(context.master), error)) from error


def _why_not_run(master: str, error: Exception) -> str:
    """One sentence for what kept Python from running on a worker."""
    text = str(error)
    other = re.search(r"Python in worker has different version: (\S+) than that in driver: (\S+?),", text)
    missing = re.search(r"No module named '?([\w.]+)", text)
    program = re.search(r'Cannot run program "([^"]+)"', text)
    if other:
        return (
            f"A worker of {master} runs Python {other[1]} and the driver {other[2]}: set PYSPARK_PYTHON to "
            "the path, on the workers, of the driver's version."
        )
    if program:
        return (
            f"There is no Python {program[1]} on a worker of {master}: set PYSPARK_PYTHON to the path that "
            "it has there."
        )
    if missing:
        return f"A worker of {master} lacks the Python package {missing[1]}: install tuner's requirements."
    return f"A worker of {master} cannot run Python: {java_reason(error)}"
