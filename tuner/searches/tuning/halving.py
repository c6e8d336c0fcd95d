"""Trainings with different values by SparkTrials: after each rung of epochs the best go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from tuner.base.errors import CacheError, SearchError
from tuner.searches.opening import Opened
from tuner.spark.worker_daemon import FOR_TRAINING, preloading
from tuner.tracking import names
from tuner.training.bases import Base
from tuner.training.images import TrainingImages
from tuner.training.loop import Training
from tuner.trials.fine_tuning import Rung, Trained, TuningTrial, Values, drawn_points, rungs
from tuner.trials.grid import grid_proposals
from tuner.trials.spark_trials import lost_reasons, make_trials, run_trials


def search_trainings(
    found: Opened, base: Base, images: TrainingImages, labels: Sequence[str], folder: Path
) -> tuple[Training, pd.DataFrame]:
    """Train several points, fewer after each rung; gives the training that won, and one row a trial.

    Raises
    ------
    CacheError
        The workers do not see the folder of the checkpoints.
    SearchError
        No trial succeeded.
    """
    experiment, spark = found.experiment, found.session.spark
    settings, search = experiment.fine_tune, experiment.search
    if found.cache.place.seen_by_workers(spark) is None:
        raise CacheError(
            f"A trial goes on from its checkpoint on any worker, and the cache {found.cache.place.uri} is "
            "no folder that all of them see: give a shared folder as cache, or one value to each key."
        )
    points = drawn_points(settings, search.seed)
    planned = rungs(len(points), settings.all_epochs, settings.reduction)
    trial = TuningTrial(
        tracking=found.store,
        parent_id=found.run.run_id,
        base=base,
        settings=settings,
        points=points,
        images=images,
        labels=labels,
        numbers=range(1, len(points) + 1),
        until=planned[0].epoch,
        folder=folder.absolute(),
        metric=search.metric,
        seed=search.seed,
        threads=max(1, found.session.cores // search.parallelism),
    )
    told = ", ".join(f"{rung.trials} to epoch {rung.epoch}" for rung in planned)
    _say(found, f"{len(points)} trials of {', '.join(settings.searched)}: {told}")
    results: dict[int, Trained] = {}
    for place, rung in enumerate(planned):
        numbers = list(trial.numbers)
        if place:  # of those that ran: who was stopped stays stopped, even if others fail
            ran = {number: results[number] for number in numbers}
            numbers = _best(ran, rung.trials, search.metric)
            _stop_others(found, results, trial.numbers, numbers, planned[place - 1])
        trial = replace(trial, numbers=numbers, until=rung.epoch)
        _run(found, trial, results)
        if not any(results[number].best for number in numbers):
            winner = _best_that_was_stopped(found, results)
            break
    else:
        winner = _best({number: results[number] for number in trial.numbers}, 1, search.metric)[0]
    frame = _table(results, points, search.metric)
    found.run.table(frame, names.LEADERBOARD_FILE)
    found.run.batch(tags={names.BEST: str(winner)})
    return replace(trial, threads=found.session.cores).training(winner), frame


def _best_that_was_stopped(found: Opened, results: dict[int, Trained]) -> int:
    """Where all that went on have failed, what others came to before is not lost."""
    stopped = _best(results, 1, found.experiment.search.metric)
    if not stopped:
        reasons = sorted({result.reason for result in results.values() if result.reason})
        why = "; ".join(reasons[:3])
        raise SearchError(f"None of the {len(results)} trials succeeded: {why} (see their runs).")
    (winner,) = stopped
    _say(
        found,
        f"all that went on have failed: of those that were stopped, {winner:03d} is the best, as it was "
        f"after epoch {results[winner].epochs}",
    )
    return winner


def _best(results: dict[int, Trained], count: int, metric: str) -> list[int]:
    """The numbers of the best trials that did not fail, best first."""
    ranked = sorted((r for r in results.values() if r.best), key=lambda result: result.rank(metric))
    return [result.number for result in ranked[:count]]


def _stop_others(
    found: Opened, results: dict[int, Trained], ran: Sequence[int], left: Sequence[int], rung: Rung
) -> None:
    """Say of the trials that are behind that they are not trained any further, also in their runs."""
    metric, client = found.experiment.search.metric, found.store.client()
    ranked = _best({number: results[number] for number in ran}, len(ran), metric)
    behind = [number for number in ranked if number not in left]
    for number in behind:
        result = results[number]
        assert result.best is not None
        why = (
            f"stopped after epoch {result.epochs}: rank {ranked.index(number) + 1} of {len(ranked)} by "
            f"{metric} ({result.best.validation[metric]:.4f}); {len(left)} go on"
        )
        if result.run_id is not None:
            client.set_tag(result.run_id, names.HALVED, why, synchronous=True)
    scores = ", ".join(f"{number:03d} ({_score(results[number], metric)})" for number in behind)
    _say(found, f"epoch {rung.epoch}: {len(left)} go on; behind and stopped: {scores or 'none'}")


def _score(result: Trained, metric: str) -> str:
    return f"{metric} {result.best.validation[metric]:.4f}" if result.best else "failed"


def _run(found: Opened, trial: TuningTrial, results: dict[int, Trained]) -> None:
    """Run a rung's trials, and add their results to those of the rungs before."""
    spark, count = found.session.spark, len(trial.numbers)
    search = found.experiment.search.model_copy(
        update={"max_evals": count, "early_stop": None, "timeout": None, "deterministic": False}
    )
    trials, before = make_trials(spark, search), dict(results)

    def cancel() -> None:
        trials.timeout = 1e-3  # SparkTrials then cancels what runs and starts no more

    try:
        with found.stop.handled_by(cancel), preloading(spark.sparkContext, FOR_TRAINING):
            run_trials(trials, trial, search, proposals=grid_proposals(count))
    finally:
        read = [Trained.of_document(doc["result"]) for doc in list(trials.trials)]
        ended = {result.number: result for result in read if result is not None}
        results |= ended
        found.left.know(result.run_id for result in results.values())
    lost = "; ".join(lost_reasons(trials)) or "Spark does not say why"
    for number in trial.numbers:
        if number not in ended:
            results.setdefault(number, Trained(number, reason=lost))
            _say(found, f"trial {number:03d} was lost: {lost}")
        else:
            _tell(found, before.get(number), ended[number])


def _tell(found: Opened, before: Trained | None, now: Trained) -> None:
    """Say what is new of a trial, and not its score: all are ranked together."""
    known = before.notes if before else ()
    for note in now.notes:
        if note not in known:
            _say(found, f"trial {now.number:03d}: {note}")
    if now.reason:
        _say(found, f"trial {now.number:03d} failed: {now.reason}")


def _table(results: dict[int, Trained], points: Sequence[Values], metric: str) -> pd.DataFrame:
    """One row a trial, the best first, those that failed last."""
    ranked = _best(results, len(results), metric)
    rows: list[dict[str, object]] = []
    for number in [*ranked, *sorted(results.keys() - set(ranked))]:
        result = results[number]
        scored = {metric: result.best.validation[metric]} if result.best else {}
        row = {"trial": number, "run_id": result.run_id, **points[number - 1]}
        row |= {"status": "FAILED" if result.reason else "FINISHED", "epochs": result.epochs, **scored}
        rows.append({**row, "seconds": result.seconds})
    return pd.DataFrame(rows)


def _say(found: Opened, text: str) -> None:
    found.console.print(text, markup=False, soft_wrap=True)
