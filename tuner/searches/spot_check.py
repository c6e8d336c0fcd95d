"""A spot-check: every network × every classifier as it is tried first, ranked on validation data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console

from tuner.base.errors import ExperimentError
from tuner.base.interrupts import advising
from tuner.classifiers.parameters import PARAMETERS, TrialParams
from tuner.classifiers.rows.row import NONE, PRESTEP, Classifier
from tuner.classifiers.table import CLASSIFIERS, DEFAULT, SPOTS
from tuner.experiment.file import experiment_of
from tuner.experiment.schema import Experiment
from tuner.experiment.search import SearchSettings, check_metric, check_weights
from tuner.networks.table import check_names
from tuner.preparation.classifiers import size_limits
from tuner.preparation.images import open_cache
from tuner.reports.spot_check import log_spot_check, log_spot_check_data
from tuner.searches.opening import Opened, opened
from tuner.spark.launch import SparkLaunch
from tuner.tracking.store import Tracking, open_tracking
from tuner.trials.grid import GridTrial, grid_proposals
from tuner.trials.spark_trials import make_trials, run_trials

_AFTER = "The search after the spot-check"
_OTHERS = "name the classifiers that do (spot_check.classifiers)"


@dataclass(frozen=True)
class SpotCheckOutcome:
    """What a spot-check came to.

    Attributes
    ----------
    experiment
        What was tried.
    store
        Where MLflow has it.
    run_id
        The MLflow run that holds the combinations' runs.
    table
        One row a combination, best first (`tuner.reports.spot_check.ranked_table`).
    extracted
        The images that were not cached, each counted once for each network.
    limits
        What values of parameters must not exceed (`tuner.preparation.classifiers.size_limits`).
    """

    experiment: Experiment
    store: Tracking
    run_id: str
    table: pd.DataFrame
    extracted: int
    limits: Mapping[str, int]


def combinations_of(experiment: Experiment) -> tuple[list[str], list[TrialParams]]:
    """What is tried, and what each of it fits with: the slow ones first, for nobody waits for one then.

    Raises
    ------
    ExperimentError
        A classifier does not go with the experiment's metric, weights or place to fit.
    """
    spots = experiment.spot_check.spots
    check_spots(experiment, spots)
    pairs = [(spec.name, spot) for spot in spots for spec in experiment.search.backbone]
    pairs.sort(key=lambda pair: -CLASSIFIERS[SPOTS[pair[1]][0]].cost)
    params = []
    for backbone, spot in pairs:
        name, tried = SPOTS[spot]
        values: dict[str, Any] = dict(tried)
        params.append(TrialParams.of(backbone, name, **values))
    return [spot for _, spot in pairs], params


def check_spots(experiment: Experiment, spots: Sequence[str]) -> None:
    """Refuse what cannot be tried as the experiment has it; raises `ExperimentError`."""
    search = experiment.search
    for spot in spots:
        row = CLASSIFIERS[SPOTS[spot][0]]
        try:
            check_metric(row, search.metric, _OTHERS)
            check_weights(row, search.class_weight, _OTHERS)
        except ValueError as error:
            raise ExperimentError(f"{error}.") from None
        if search.fit != "auto" and search.fit not in row.fits:
            raise ExperimentError(
                f"fit is {search.fit}, and {row.name} does not fit there: leave it out (auto), or "
                f"{_OTHERS}."
            )
    if "," in search.class_weight:
        raise ExperimentError("A spot-check tries one class_weight: set it to none or balanced.")


def run_spot_check(
    experiment: Experiment,
    *,
    master: str | None = None,
    launch: SparkLaunch | None = None,
    console: Console | None = None,
) -> SpotCheckOutcome:
    """Try every network × every classifier, and log what it shows.

    The test part is not seen. A combination that fails is a FAILED run with its reason.

    Parameters
    ----------
    experiment
        Its images, networks, split, and `spot_check`.
    master
        A Spark master URL; None: this machine.
    launch
        Spark, if it starts already; then it knows the master.
    console
        Where progress is shown; None: standard output.

    Returns
    -------
    SpotCheckOutcome
        With at least one combination that succeeded.

    Raises
    ------
    InvalidInput
        Something about the experiment, the images, the cache, Spark or MLflow cannot work.
    SearchError
        No combination succeeded, or the MLflow server went away for good.
    Interrupted
        By Ctrl-C or SIGTERM.
    """
    console = console or Console()
    check_names(experiment)
    spots, combinations = combinations_of(experiment)
    store = open_tracking(experiment.name)
    cache = open_cache(experiment, store)
    rows = list(dict.fromkeys(params.classifier for params in combinations))
    with opened(
        experiment,
        "spot-check",
        rows=[CLASSIFIERS[name] for name in rows if name is not None],
        store=store,
        cache=cache,
        advice=_advice,
        master=master,
        launch=launch,
        console=console,
    ) as found:
        return _try_all(found, spots, combinations)


def _advice(_: str) -> AbstractContextManager[None]:
    return advising("The features that were extracted are kept: the same command begins again with them.")


def _try_all(found: Opened, spots: Sequence[str], combinations: Sequence[TrialParams]) -> SpotCheckOutcome:
    experiment = found.experiment
    # What was named is refused where it is too much for the images; of all there are, it is a FAILED run.
    prepared = found.prepare(
        combinations if experiment.spot_check.classifiers is not None else combinations[:1]
    )
    log_spot_check_data(found.run, experiment, prepared, experiment.spot_check.spots)
    search = experiment.search.model_copy(
        update={"max_evals": len(combinations), "early_stop": None, "deterministic": False}
    )
    with found.trial(prepared, keeps_model=experiment.spot_check.keep_models) as trial:
        grid = GridTrial(trial, combinations)
        trials = make_trials(found.session.spark, search, limit=found.limit(grid.combination))

        def run() -> None:
            proposals = grid_proposals(len(combinations))
            run_trials(trials, grid, search, ends=lambda result: result.unsent, proposals=proposals)

        with found.timed("trials"):
            results, _ = found.watch(trials, trial, len(combinations), run)
        table = log_spot_check(found.run, results, spots, search.metric)
    limits = size_limits(prepared.index["part"], prepared.networks.values())
    return SpotCheckOutcome(experiment, found.store, found.run.run_id, table, prepared.extracted, limits)


def check_then_search(experiment: Experiment) -> None:
    """Refuse, before anything is tried, a search that cannot follow a spot-check.

    Raises
    ------
    ExperimentError
        It would choose the simplest of several classifiers.
    """
    if experiment.search.select == "one-standard-error":
        raise ExperimentError(
            "select: one-standard-error takes the simplest model, and which of two classifiers is "
            "simpler is not known: set select to best for a search after a spot-check."
        )


def search_of_best(
    experiment: Experiment, table: pd.DataFrame, count: int, limits: Mapping[str, int]
) -> Experiment:
    """The experiment of a search over the networks and classifiers of the best combinations.

    A classifier that the experiment describes keeps its spaces, another has its row's, within the limits.
    The search begins with the combinations themselves, so that it is no worse, but for those that lie
    outside the spaces. Points of the experiment's search are left out, for they are of its own classifiers.
    """
    best = table[table["status"] == "FINISHED"].head(count)
    backbones = set(best["backbone"])
    families = list(dict.fromkeys(SPOTS[str(spot)][0] for spot in best["classifier"]))
    data = experiment.to_yaml_dict()
    described = {spec["name"]: spec for spec in data["search"].get("classifier", [])}
    data["search"]["backbone"] = [spec for spec in data["search"]["backbone"] if spec["name"] in backbones]
    data["search"]["classifier"] = [
        described.get(name, within(CLASSIFIERS[name], limits)) for name in families
    ]
    data["search"].pop("points", None)
    if DEFAULT not in families:
        for name in PARAMETERS:
            data["search"].pop(name, None)
    search = experiment_of(data, _AFTER).search
    data["search"]["points"] = list(_starts(search, best))
    return experiment_of(data, _AFTER)


def _starts(search: SearchSettings, best: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Those of the best combinations that lie in the search's space, as its points."""
    choices = {choice.name: choice for choice in search.choices}
    for backbone, spot in zip(best["backbone"], best["classifier"], strict=True):
        name, tried = SPOTS[str(spot)]
        values = {**tried, PRESTEP: NONE}  # as it was tried; the search may have other steps, too
        try:
            choices[name].check_point(values)
        except ValueError:  # the library's own value is in no space: trees of any depth
            continue
        yield {"backbone": str(backbone), "classifier": name, **values}


def within(row: Classifier, limits: Mapping[str, int]) -> dict[str, str]:
    """A classifier as an experiment describes it: with its row's spaces, lowered to the limits."""
    lowered = {}
    for parameter in row.parameters:
        low, high = parameter.default.bounds if not parameter.choices else (0, 0)
        most = min((limits[what] for what in parameter.at_most), default=math.inf)
        if most < high and parameter.only_with is None:
            lowered[parameter.name] = f"{low:g}:{most}" if low < most else str(most)
    return {"name": row.name, **lowered}
