"""Who is champion: a new version's place, and `tuner promote`; the alias moves if the gate lets it."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from tuner.base.errors import InvalidInput, ModelError
from tuner.checks.cluster import check_workers
from tuner.evaluation.comparison import Decision, decide
from tuner.experiment.fields import CHALLENGER
from tuner.experiment.file import read_experiment
from tuner.experiment.schema import Experiment, Registry
from tuner.extraction.cache import FeatureCache
from tuner.extraction.place import CachePlace
from tuner.models.loading import check_model
from tuner.registry.champion_challenger import (
    VersionComparison,
    compare_versions,
    search_experiment,
    version_uri,
)
from tuner.registry.history import Move
from tuner.registry.lookup import Sessions, Source
from tuner.registry.moves import AliasMovedError, make_challenger, make_champion
from tuner.registry.versions import (
    RegisteredVersion,
    copy_version,
    find_version,
    holder_of,
)
from tuner.reports.champion_challenger import log_version_comparison
from tuner.spark.sessions import DriverSession, driver_session
from tuner.tracking.names import PROMOTION, ROLLBACK
from tuner.tracking.run_log import RunLog
from tuner.tracking.runs import parent_run
from tuner.tracking.store import Tracking, open_registry, open_tracking


@dataclass(frozen=True)
class Promotion:
    """What a promotion came to.

    Attributes
    ----------
    promoted
        Whether the version is the champion now.
    version
        The version as it stands now.
    run_id
        The MLflow run that has the report; None where there was no champion.
    compared, decision
        The two versions on the same images, and what the gate says; None where there was no champion, or
        where an override took the place of a comparison.
    """

    promoted: bool
    version: RegisteredVersion
    run_id: str | None = None
    compared: VersionComparison | None = None
    decision: Decision | None = None


@dataclass(frozen=True)
class _Verdict:
    """What is made of a champion and a version that may take its place.

    `error` is why they could not be compared; there is no comparison and no decision then.
    """

    takes_place: bool
    move: Move
    compared: VersionComparison | None = None
    decision: Decision | None = None
    error: str | None = None


def _contend(
    store: Tracking,
    version: ModelVersion,
    place: Registry,
    why: str | None,
    judge: Callable[[ModelVersion], _Verdict],
) -> tuple[RegisteredVersion | None, _Verdict | None, list[str]]:
    """Let a version take its place, if there is no champion or it is judged so; and say what happened.

    Where another version became champion while it was judged, it is judged against that one.
    """
    notes = list[str]()
    while True:
        champion = holder_of(store, version.name, place.alias)
        verdict = judge(champion) if champion is not None else None
        if verdict is not None and not verdict.takes_place:
            return None, verdict, notes
        move = verdict.move if verdict else Move(why or f"no version held the alias {place.alias}")
        replacing = str(champion.version) if champion is not None else None
        try:
            placed = make_champion(
                store, version, alias=place.alias, stage=place.stage, move=move, replacing=replacing
            )
        except AliasMovedError as moved:
            notes.append(str(moved))
            continue
        return placed, verdict, notes


def place_version(
    session: DriverSession,
    store: Tracking,
    run: RunLog,
    version: ModelVersion,
    experiment: Experiment,
    sources: Mapping[str, Source],
) -> RegisteredVersion:
    """Give a search's new version its place: champion if there is none or if it passes the gate.

    Otherwise it is the challenger. A comparison that cannot be made leaves it that, with a sentence why.

    Raises
    ------
    TrackingError
        The registry refuses the version's alias, or does not answer.
    """
    number, standing = f"Version {version.version}", list[RegisteredVersion]()

    def judge(champion: ModelVersion) -> _Verdict:
        if not standing:
            standing.append(make_challenger(store, version))
        try:
            compared = compare_versions(
                lambda: session,
                store,
                champion,
                version,
                experiment.gate_metric,
                sources=sources,
                caches=[FeatureCache(experiment.cache)],
            )
        except InvalidInput as error:
            return _Verdict(False, Move(""), error=str(error))
        decision = decide(experiment.gate, compared.comparison)
        _log(run, compared, decision)
        return _Verdict(decision.passed, Move(str(decision), run_id=run.run_id), compared, decision)

    placed, verdict, notes = _contend(store, version, experiment.registry, None, judge)
    if verdict is not None and verdict.error is not None:
        why = f"for it could not be compared with the champion: {verdict.error}"
        notes.append(f"{number} stays challenger, {why}")
    elif verdict is not None and verdict.compared is not None:
        notes += verdict.compared.notes
        place = f"takes the place of version {verdict.compared.champion}" if placed else "stays challenger"
        notes.append(f"{number} {place}: {verdict.decision}.")
    reached = placed or standing[0]
    return replace(reached, notes=(*notes, *reached.notes))


def register_copy(tracking: Tracking, version: RegisteredVersion, place: Registry) -> RegisteredVersion:
    """Register a version's model under one more name: champion if there is none, else challenger.

    Raises
    ------
    TrackingError
        The registry refuses it, or does not answer.
    """
    copy = copy_version(tracking, version, str(place.name), without=(PROMOTION, ROLLBACK))
    placed, _, notes = _contend(tracking, copy, place, None, lambda _: _Verdict(False, Move("")))
    reached = placed or make_challenger(tracking, copy)
    return replace(reached, notes=(*notes, *reached.notes))


def compare_with_champion(
    name: str,
    *,
    version: str = CHALLENGER,
    images: str | None = None,
    experiment: Path | None = None,
    master: str | None = None,
) -> tuple[VersionComparison, Decision]:
    """Compare a version with the champion, and ask the gate; as `promote_version`, and nothing moves."""
    store, challenger, settings = _contender(name, version, experiment)
    champion = holder_of(store, name, settings.registry.alias)
    if champion is None:
        raise ModelError(
            f"The model {name} has no {settings.registry.alias}, with which to compare version "
            f"{challenger.version}: tuner promote makes it that."
        )
    if str(champion.version) == str(challenger.version):
        raise _is_champion(challenger, settings.registry.alias)
    with ExitStack() as stack:
        return _decided(_when_needed(stack, images, master), store, champion, challenger, settings, images)


def _decided(
    session: Sessions,
    store: Tracking,
    champion: ModelVersion,
    challenger: ModelVersion,
    settings: Experiment,
    images: str | None,
) -> tuple[VersionComparison, Decision]:
    """Compare two versions, and ask the gate."""
    compared = compare_versions(
        session,
        store,
        champion,
        challenger,
        settings.gate_metric,
        images=images,
        caches=_caches(store, champion, challenger),
    )
    return compared, decide(settings.gate, compared.comparison)


def _contender(
    name: str, version: str, experiment: Path | None
) -> tuple[Tracking, ModelVersion, Experiment]:
    """The store, the challenger, and the settings by which it is judged."""
    settings = read_experiment(experiment) if experiment else None
    store = open_registry()
    challenger = find_version(store, name, version)
    check_model(version_uri(challenger))
    return store, challenger, settings or search_experiment(store, challenger)


def _is_champion(challenger: ModelVersion, alias: str) -> ModelError:
    return ModelError(
        f"Version {challenger.version} of {challenger.name} is the {alias} already: give another with "
        "--version."
    )


def promote_version(
    name: str,
    *,
    version: str = CHALLENGER,
    images: str | None = None,
    experiment: Path | None = None,
    force: bool = False,
    why: str | None = None,
    master: str | None = None,
) -> Promotion:
    """Compare a version with the champion, and make it the champion if it passes the gate.

    Parameters
    ----------
    name
        The registered model.
    version
        The challenger: a version's number or an alias.
    images
        Where the champion's test images are now; None: where its search found them.
    experiment
        A file with the gate, alias and stage to use; None: those of the challenger's search.
    force
        Move in any case; a tag of the version says who overrode the gate. The comparison may then fail.
    why
        The reason to write on the version; None: what the gate says.
    master
        A Spark master URL; None: this machine.

    Returns
    -------
    Promotion
        Whether it is the champion now, and what the comparison found.

    Raises
    ------
    InvalidInput
        No such model, version or alias, another tool's model, other classes, no images to compare on, or
        a registry that does not answer. Nothing has moved.
    """
    store, challenger, settings = _contender(name, version, experiment)
    alias = settings.registry.alias
    with ExitStack() as stack:
        session, runs = _when_needed(stack, images, master), list[RunLog]()

        def judge(champion: ModelVersion) -> _Verdict:
            if str(champion.version) == str(challenger.version):
                raise _is_champion(challenger, alias)
            if not runs:
                title = f"promote {name} version {challenger.version}"
                runs.append(stack.enter_context(parent_run(open_tracking("promote"), title, "promote")))
            compared, decision = None, None
            try:
                compared, decision = _decided(session, store, champion, challenger, settings, images)
                _log(runs[0], compared, decision)
                said = str(decision)
            except InvalidInput as error:
                if not force:
                    raise
                said = f"not compared: {error}"
            passed = decision is not None and decision.passed
            why_moved = why or (said if passed else f"forced, against: {said}")
            move = Move(why_moved, by=None if passed else _user(), run_id=runs[0].run_id)
            return _Verdict(passed or force, move, compared, decision)

        placed, verdict, notes = _contend(store, challenger, settings.registry, why, judge)
        reached = placed or _as_it_stands(challenger)
        reached = replace(reached, notes=(*notes, *reached.notes))
        run_id = runs[0].run_id if runs else None
        compared, decision = (verdict.compared, verdict.decision) if verdict else (None, None)
        return Promotion(placed is not None, reached, run_id, compared, decision)


def _when_needed(stack: ExitStack, images: str | None, master: str | None) -> Sessions:
    """Start Spark when it is first asked for, and stop it with the stack."""

    @cache
    def session() -> DriverSession:
        started = stack.enter_context(driver_session("tuner promote", 1, master=master))
        check_workers(started, images=images)
        return started

    return session


def _caches(store: Tracking, *versions: ModelVersion) -> list[FeatureCache]:
    """The feature caches of the searches that made versions, as far as they are here."""
    roots = {CachePlace(search_experiment(store, version).cache).root for version in versions}
    return [FeatureCache(root) for root in sorted(roots) if root.is_dir()]


def _log(run: RunLog, compared: VersionComparison, decision: Decision) -> None:
    log_version_comparison(
        run,
        compared.comparison,
        decision,
        champion=compared.champion,
        challenger=compared.challenger,
        notes=compared.notes,
    )


def _as_it_stands(version: ModelVersion) -> RegisteredVersion:
    alias = next(iter(version.aliases), "")
    return RegisteredVersion(version.name, str(version.version), version.current_stage or "None", alias)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a name for its user
        return "unknown"
