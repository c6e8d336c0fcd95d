"""`tuner.spot_check`: every network with every classifier, ranked, and a search over the best of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console

from tuner.api.given import Names, Source, given_experiment
from tuner.api.guest import as_it_was
from tuner.api.results import SearchResult
from tuner.base.errors import ExperimentError
from tuner.experiment.file import experiment_of
from tuner.experiment.schema import Experiment

if TYPE_CHECKING:
    from tuner.searches.spot_check import SpotCheckOutcome

_SHOWN = 15


@dataclass(frozen=True, eq=False)
class SpotCheckResult:
    """What a spot-check came to.

    Attributes
    ----------
    metric
        What combinations are ranked by.
    run_id
        The MLflow run that holds the combinations' runs.
    table
        One row a combination, best first: rank, backbone, classifier, status, metrics, seconds, reason.
    extracted
        The images that were not cached, each counted once for each network.
    outcome
        What a search after it needs.
    """

    metric: str
    run_id: str
    table: pd.DataFrame = field(repr=False)
    extracted: int
    outcome: SpotCheckOutcome = field(repr=False)

    @property
    def experiment_id(self) -> str:
        """The MLflow experiment that holds the run."""
        return self.outcome.store.experiment_id

    def plot(self) -> Any:
        """Draw networks × classifiers, the best of both first: a plotly figure."""
        from tuner.reports.spot_check import heat_map

        return heat_map(self.table, self.metric)

    @as_it_was()
    def search(
        self, count: int = 3, *, master: str | None = None, console: Console | None = None
    ) -> SearchResult:
        """Search over the networks and classifiers of the best combinations.

        Parameters
        ----------
        count
            How many of the best combinations.
        master
            A Spark master URL; None: the session that is running, or this machine.
        console
            Where progress is shown; None: standard output.

        Returns
        -------
        SearchResult
            As of `tuner.search`.

        Raises
        ------
        InvalidInput, SearchError, StoreError
            As of `tuner.search`.
        """
        _check_count(count, least=1)
        from tuner.searches.search import run_search
        from tuner.searches.spot_check import check_then_search, search_of_best

        console, experiment = console or Console(), self.outcome.experiment
        check_then_search(experiment)
        again = search_of_best(experiment, self.table, count, self.outcome.limits)
        if experiment.search.points:
            console.print("search.points are left out: they are of the experiment's own classifiers")
        finished = int((self.table["status"] == "FINISHED").sum())
        console.print(_beginning(again, min(count, finished)), markup=False, soft_wrap=True)
        return SearchResult.of(run_search(again, master=master, console=console))

    def _repr_html_(self) -> str:
        """The best combinations, as a notebook shows them."""
        columns = ["rank", "backbone", "classifier", self.metric, "seconds"]
        failed = int((self.table["status"] != "FINISHED").sum())
        table: str = self.table.head(_SHOWN)[columns].to_html(index=False, na_rep="")
        more = f"<p>{failed} combinations failed: see the column reason of table</p>" if failed else ""
        return table + more


@as_it_was()
def spot_check(
    images_or_experiment: Source,
    *,
    name: str | None = None,
    images: str | os.PathLike[str] | None = None,
    backbone: Names | None = None,
    classifier: str | list[str] | None = None,
    validation: str | None = None,
    metric: str | None = None,
    parallelism: int | str | None = None,
    seed: int | str | None = None,
    trial_timeout: float | str | None = None,
    precision: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    keep_models: bool = False,
    then_search: int = 0,
    master: str | None = None,
    console: Console | None = None,
) -> SpotCheckResult:
    """Try every network with forty classifiers, log and rank what they are worth, without the test part.

    An active MLflow run, a running Spark session and what is set in this process are treated as by
    `tuner.search`.

    Parameters
    ----------
    images_or_experiment, name, images
        As of `tuner.search`.
    backbone
        A list of networks' names, or of descriptions as in the file.
    classifier
        What to try, by name: ``["sklearn.Ridge", "sklearn.KNeighbors-5"]``; None: as in the experiment.
    validation
        ``holdout`` or ``cv:5``.
    metric
        What combinations are ranked by.
    parallelism
        How many combinations at once.
    seed
        Of splits and of classifiers.
    trial_timeout
        Seconds for one combination.
    precision
        ``float32`` or ``bfloat16``.
    cache
        The folder of the feature cache.
    keep_models
        Whether the model of each combination is logged, too.
    then_search
        How many of the best a search will be over (`SpotCheckResult.search`); what cannot be searched is
        refused before anything is tried. 0: none.
    master
        A Spark master URL; None: the session that is running, or this machine.
    console
        Where progress is shown; None: standard output.

    Returns
    -------
    SpotCheckResult
        With at least one combination that succeeded.

    Raises
    ------
    InvalidInput
        Something about the experiment, the images, the cache, Spark or MLflow cannot work.
    SearchError
        No combination succeeded, or the MLflow server went away for good.
    StoreError
        The MLflow store stopped answering.
    """
    _check_count(then_search, least=0)
    read = given_experiment(
        images_or_experiment,
        name=name,
        images=images,
        backbone=backbone,
        validation=validation,
        metric=metric,
        parallelism=parallelism,
        seed=seed,
        trial_timeout=trial_timeout,
        precision=precision,
        cache=cache,
    )
    read = _with_spots(read, classifier, keep_models)
    from tuner.searches.spot_check import check_then_search, run_spot_check  # imports take seconds

    if then_search:
        check_then_search(read)
    done = run_spot_check(read, master=master, console=console or Console())
    return SpotCheckResult(read.search.metric, done.run_id, done.table, done.extracted, done)


def _with_spots(
    experiment: Experiment, classifier: str | list[str] | None, keep_models: bool
) -> Experiment:
    data = experiment.to_yaml_dict()
    data["spot_check"] |= {"classifiers": classifier} if classifier else {}
    data["spot_check"] |= {"keep_models": True} if keep_models else {}
    return experiment_of(data, f"The spot-check of {experiment.name}")


def _beginning(search: Experiment, best: int) -> str:
    """With how many of the best combinations a search begins, in a sentence."""
    begins, backbones = len(search.search.points), len(search.search.backbone)
    return (
        f"a search over {', '.join(choice.row.name for choice in search.search.choices)} on "
        f"{backbones} {'backbone' if backbones == 1 else 'backbones'} begins with {begins} of the "
        f"{best} best combinations"
        + ("" if begins == best else ": the others' values are the library's own, outside its spaces")
    )


def _check_count(count: int, *, least: int) -> None:
    if count < least:
        raise ExperimentError(f"A search over the best {count} combinations: it must be {least} or more.")
