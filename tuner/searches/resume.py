"""An earlier search, read back from MLflow, so that it can be taken up where it stopped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from tuner.base.errors import ExperimentError, SearchError, StoreError, TrackingError
from tuner.base.interrupts import Interrupted
from tuner.experiment.file import experiment_of, read_yaml
from tuner.experiment.schema import Experiment
from tuner.tracking import names
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import read_artifact
from tuner.tracking.runs import trial_runs
from tuner.tracking.store import Tracking, bounded_requests, open_registry, reason

LAST = "last"
# What a search may change when it is taken up again: none of it decides what a trial finds.
_FREE = (
    "cache",
    "registry.",
    "gate.",
    "search.max_evals",
    "search.parallelism",
    "search.early_stop",
    "search.timeout",
    "search.trial_timeout",
)


@dataclass(frozen=True)
class EarlierSearch:
    """A search to take up again.

    `data_digest` stands for its images and their split; None if it ended before it knew them.
    """

    store: Tracking
    run_id: str
    experiment: Experiment
    data_digest: str | None


def find_search(which: str, experiment_id: str | None = None) -> EarlierSearch:
    """Find a search.

    Parameters
    ----------
    which
        The id of its run, or `last`.
    experiment_id
        The MLflow experiment in which `last` is looked for; None: all of them.

    Returns
    -------
    EarlierSearch
        For `run_search` to go on with.

    Raises
    ------
    TrackingError
        There is no such search, or the store does not answer.
    """
    opened = open_registry()
    try:
        with bounded_requests():
            run = _last(opened, experiment_id) if which == LAST else opened.client().get_run(which)
    except (MlflowException, OSError) as error:
        raise TrackingError(f"The search {which} cannot be resumed: {reason(error)}.") from error
    if run.data.tags.get(names.KIND) != "search":
        raise TrackingError(f"The run {which} is no search: give the id that the search showed, or last.")
    store = Tracking(opened.uri, run.info.experiment_id)
    with tempfile.TemporaryDirectory() as folder:
        file = read_artifact(store, run.info.run_id, names.EXPERIMENT_FILE, Path(folder))
        experiment = experiment_of(read_yaml(file), f"The experiment of the search {run.info.run_id}")
    digest = run.data.tags.get(names.DATA_DIGEST)
    return EarlierSearch(store, run.info.run_id, experiment, digest)


def _last(opened: Tracking, experiment_id: str | None) -> Run:
    client = opened.client()
    ids = (
        [experiment_id] if experiment_id else [found.experiment_id for found in client.search_experiments()]
    )
    query = f"tags.`{names.KIND}` = 'search'"
    runs = client.search_runs(ids, query, ViewType.ACTIVE_ONLY, 1, ["start_time DESC"])
    if not runs:
        raise TrackingError("There is no search to resume: start one without --resume.")
    return runs[0]


def check_same(earlier: EarlierSearch, experiment: Experiment) -> None:
    """Refuse an experiment that would find something else than the earlier search.

    Raises
    ------
    ExperimentError
        What differs, with both values.
    """
    before, now = (dict(_flat(each.to_yaml_dict())) for each in (earlier.experiment, experiment))
    changed = [
        f"{key} was {before.get(key, 'not set')} and is {now.get(key, 'not set')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(_FREE)
    ]
    if changed:
        raise ExperimentError(
            f"The search {earlier.run_id} cannot be resumed with another experiment: {'; '.join(changed)}. "
            "Resume it without --experiment and without these options, or start a new search."
        )


def check_same_images(earlier: EarlierSearch, data_digest: str) -> None:
    """Refuse images, labels or a split other than the earlier search's; errors as `check_same`."""
    if earlier.data_digest not in (None, data_digest):
        raise ExperimentError(
            f"The search {earlier.run_id} cannot be resumed: its images were added to, removed, changed or "
            "moved to other classes since. Start a new search; features are not extracted again."
        )


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def ended_trials(earlier: EarlierSearch) -> list[TrialResult]:
    """The results of the trials that ended, by number: each number once."""
    metric = earlier.experiment.search.metric
    results: dict[int, TrialResult] = {}
    for run in trial_runs(earlier.store, earlier.run_id):
        result = TrialResult.of_run(run, metric)
        if result is not None:
            results.setdefault(result.trial, result)
    return [results[number] for number in sorted(results)]


@contextmanager
def held(root: Path, run_id: str) -> Iterator[None]:
    """Hold a search in this process; the lock ends with the process, however it ends.

    Raises
    ------
    TrackingError
        Another process is at work on it.
    """
    place = root / "searches"
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f"{run_id}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrackingError(
            f"The search {run_id} is still running in another process: stop it, or let it end."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def resumable(run_id: str) -> Iterator[None]:
    """Tell how to resume a search with whatever ends it but a mistake in what it was given."""
    try:
        yield
    except (SearchError, StoreError, TrackingError, MlflowException, Interrupted) as error:
        error.add_note(f"Resume it with: tuner search --resume {run_id}")
        raise
