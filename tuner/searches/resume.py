"""An earlier search, read back from MLflow, so that it can be taken up where it stopped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from tuner.base.errors import ExperimentError, SearchError, StoreError, TrackingError
from tuner.base.interrupts import advising
from tuner.experiment.file import experiment_of, read_yaml
from tuner.experiment.schema import Experiment
from tuner.tracking import names
from tuner.tracking.answering import REFUSALS, check_answers, reason
from tuner.tracking.heartbeat import check_free
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import read_artifact
from tuner.tracking.runs import found_runs, trial_runs
from tuner.tracking.store import Tracking, open_registry

LAST = "last"
Kind = Literal["search", "fine-tune", "learn"]
_WORDS: Mapping[Kind, str] = {
    "search": "search",
    "fine-tune": "run of tuner fine-tune",
    "learn": "run of tuner learn",
}
# What may change when a run is taken up again, for none of it decides what is found.
_BESIDE = ("cache", "registry.", "gate.", "spot_check.", "learn.")
_FREE_OF_TUNING = (*_BESIDE, "search.parallelism", "fine_tune.parallelism")
_FREE = (
    *_BESIDE,
    "fine_tune.",
    "search.max_evals",
    "search.parallelism",
    "search.early_stop",
    "search.timeout",
    "search.trial_timeout",
    "search.fit",
)


@dataclass(frozen=True)
class EarlierSearch:
    """A search to take up again; for people, it is the search's name, how it ended and when it began.

    `data_digest` stands for its images and their split; None if it ended before it knew them.
    """

    store: Tracking
    run_id: str
    experiment: Experiment
    data_digest: str | None
    status: str
    began: datetime

    def __str__(self) -> str:
        state = "left running" if self.status == "RUNNING" else self.status
        began = f"{self.began:%Y-%m-%d %H:%M:%S}"
        return f"{self.experiment.name}, begun {began}, {state} (MLflow run {self.run_id})"


def find_search(
    which: str,
    experiment_id: str | None = None,
    name: str | None = None,
    *,
    force: bool = False,
    kind: Kind = "search",
) -> EarlierSearch:
    """Find a search, or a run of `tuner fine-tune` or `tuner learn`.

    Parameters
    ----------
    which
        The id of its run, or `last`.
    experiment_id
        The MLflow experiment in which `last` is looked for; None: all of them.
    name
        The name in its experiment file, for `last`; None: any.
    force
        Take it even if another process is at work on it.
    kind
        What is looked for.

    Returns
    -------
    EarlierSearch
        For `run_search` to go on with.

    Raises
    ------
    TrackingError
        There is no such search, another process is at work on it, or the store does not answer.
    """
    opened = open_registry()
    try:
        check_answers(opened.uri)
        run = _last(opened, experiment_id, name, kind) if which == LAST else opened.client().get_run(which)
    except REFUSALS as error:
        raise TrackingError(f"The {_WORDS[kind]} {which} cannot be resumed: {reason(error)}.") from error
    if run.data.tags.get(names.KIND) != kind:
        raise TrackingError(f"The run {which} is no {_WORDS[kind]}: give the id that it showed, or last.")
    if kind == "learn" and names.LEARNED not in run.data.tags:
        raise TrackingError(
            f"The run {run.info.run_id} kept nothing, for nothing was new or it ended in half a minute: "
            "learn without --resume, or give another run."
        )
    if not force:
        check_free(run, f"{_WORDS[kind]} {run.info.run_id}")
    store = Tracking(opened.uri, run.info.experiment_id)
    with tempfile.TemporaryDirectory() as folder:
        file = read_artifact(store, run.info.run_id, names.EXPERIMENT_FILE, Path(folder))
        experiment = experiment_of(
            read_yaml(file), f"The experiment of the {_WORDS[kind]} {run.info.run_id}"
        )
    return EarlierSearch(
        store,
        run.info.run_id,
        experiment,
        data_digest=run.data.tags.get(names.DATA_DIGEST),
        status=run.info.status,
        began=datetime.fromtimestamp(run.info.start_time / 1000),
    )


def _last(opened: Tracking, experiment_id: str | None, name: str | None, kind: Kind) -> Run:
    client = opened.client()
    ids = (
        [experiment_id] if experiment_id else [found.experiment_id for found in client.search_experiments()]
    )
    for run in found_runs(opened, ids, f"tags.`{names.KIND}` = '{kind}'", "start_time DESC"):
        keeps = kind != "learn" or names.LEARNED in run.data.tags
        if keeps and (name is None or run.data.tags.get(names.EXPERIMENT) == name):
            return run
    which = f"{_WORDS[kind]} {name}" if name else _WORDS[kind]
    raise TrackingError(f"There is no {which} to resume: start one without --resume.")


def check_same(earlier: EarlierSearch, experiment: Experiment, *, tunes: bool = False) -> None:
    """Refuse an experiment that would find something else than the earlier search, or fine-tuning.

    Raises
    ------
    ExperimentError
        What differs, with both values.
    """
    before, now = (dict(flat(each.to_yaml_dict())) for each in (earlier.experiment, experiment))
    changed = [
        f"{key} was {before.get(key, 'not set')} and is {now.get(key, 'not set')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(_FREE_OF_TUNING if tunes else _FREE)
    ]
    if changed:
        what = "fine-tuning" if tunes else "search"
        raise ExperimentError(
            f"The {what} {earlier.run_id} cannot be resumed with another experiment: {'; '.join(changed)}. "
            f"Resume it without --experiment and without these options, or start a new {what}."
        )


def check_unfinished(earlier: EarlierSearch) -> None:
    """Refuse a fine-tuning that came to its end: its checkpoints are gone; errors as `check_same`."""
    if earlier.status == "FINISHED":
        raise ExperimentError(
            f"The fine-tuning {earlier.run_id} has come to its end, and nothing is left to do: leave out "
            "--resume to train anew."
        )


def check_same_images(earlier: EarlierSearch, data_digest: str, *, tunes: bool = False) -> None:
    """Refuse images, labels or a split other than the earlier search's; errors as `check_same`."""
    if earlier.data_digest not in (None, data_digest):
        what = "fine-tuning" if tunes else "search"
        new = "a new one" if tunes else "a new search; features are not extracted again"
        raise ExperimentError(
            f"The {what} {earlier.run_id} cannot be resumed: its images were added to, removed, changed or "
            f"moved to other classes since. Start {new}."
        )


def flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of an experiment by their keys, with those of groups before a dot: `search.seed`."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def ended_trials(earlier: EarlierSearch) -> list[TrialResult]:
    """The results of the trials that ended, by number: each once, and rather finished than failed."""
    metric = earlier.experiment.search.metric
    results: dict[int, TrialResult] = {}
    for run in trial_runs(earlier.store, earlier.run_id):
        result = TrialResult.of_run(run, metric)
        if result is not None:
            known = results.get(result.trial)
            if known is None or (result.finished and not known.finished):
                results[result.trial] = result
    return [results[number] for number in sorted(results)]


@contextmanager
def resumable(
    run_id: str,
    command: str = "search",
    kept: str = "The features that were extracted and the trials that ended are kept.",
) -> Iterator[None]:
    """Tell how to resume a search with whatever ends it but a mistake in what it was given."""
    how = f"Resume it with: tuner {command} --resume {run_id}"
    with advising(kept, how):
        try:
            yield
        except (SearchError, StoreError, TrackingError, MlflowException) as error:
            error.add_note(how)
            raise
