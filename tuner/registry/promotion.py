"""Who is champion: a new version's place, and `tuner promote`; the alias moves if the gate lets it."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from tuner.base.errors import InvalidInput, ModelError
from tuner.checks.cluster import check_workers
from tuner.evaluation.comparison import Decision, decide
from tuner.experiment.file import read_experiment
from tuner.experiment.schema import CHALLENGER, Experiment
from tuner.models.loading import check_model
from tuner.registry.contest import (
    Contest,
    Source,
    compare_versions,
    search_experiment,
    version_uri,
)
from tuner.registry.versions import (
    Move,
    RegisteredVersion,
    find_version,
    holder_of,
    make_challenger,
    make_champion,
)
from tuner.reports.contest import log_contest
from tuner.spark.sessions import DriverSession, driver_session
from tuner.tracking.run_log import RunLog
from tuner.tracking.runs import parent_run
from tuner.tracking.store import Tracking, open_registry, open_tracking


@dataclass(frozen=True)
class Promotion:
    """What `promote` came to.

    `version` is the version as it stands now; `promoted` says whether it is the champion; `contest` and
    `decision` are None where there was no champion, or where an override took the place of a comparison.
    """

    promoted: bool
    version: RegisteredVersion
    run_id: str | None = None
    contest: Contest | None = None
    decision: Decision | None = None


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
    alias, stage = experiment.registry.alias, experiment.registry.stage
    champion = holder_of(store, version.name, alias)
    if champion is None:
        move = Move(f"no version held the alias {alias}")
        return make_champion(store, version, alias=alias, stage=stage, move=move)
    standing = make_challenger(store, version)
    number = f"Version {version.version}"
    try:
        contest = compare_versions(
            session, store, champion, version, experiment.gate_metric, sources=sources
        )
    except InvalidInput as error:
        note = f"{number} stays challenger, for it could not be compared with the champion: {error}"
        return replace(standing, notes=(note,))
    decision = decide(experiment.gate, contest.comparison)
    _log(run, contest, decision)
    if not decision.passed:
        return replace(standing, notes=(*contest.notes, f"{number} stays challenger: {decision}."))
    move = Move(str(decision), run_id=run.run_id)
    placed = make_champion(store, version, alias=alias, stage=stage, move=move)
    note = f"{number} takes the place of version {champion.version}: {decision}."
    return replace(placed, notes=(*contest.notes, note, *placed.notes))


def promote(
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
    settings = read_experiment(experiment) if experiment else None
    store = open_registry()
    challenger = find_version(store, name, version)
    check_model(version_uri(challenger))
    settings = settings or search_experiment(store, challenger)
    alias, stage = settings.registry.alias, settings.registry.stage
    champion = holder_of(store, name, alias)
    if champion is None:
        move = Move(why or f"no version held the alias {alias}")
        placed = make_champion(store, challenger, alias=alias, stage=stage, move=move)
        return Promotion(True, placed)
    if str(champion.version) == str(challenger.version):
        raise ModelError(
            f"Version {challenger.version} of {name} is the {alias} already: give another with --version."
        )
    title = f"promote {name} version {challenger.version}"
    with (
        parent_run(open_tracking("promote"), title, "promote") as run,
        driver_session("tuner promote", 1, master=master) as session,
    ):
        check_workers(session, images=images)
        contest, decision = None, None
        try:
            contest = compare_versions(
                session, store, champion, challenger, settings.gate_metric, images=images
            )
            decision = decide(settings.gate, contest.comparison)
            said = str(decision)
        except InvalidInput as error:
            if not force:
                raise
            said = f"not compared: {error}"
        if contest and decision:
            _log(run, contest, decision)
        passed = decision is not None and decision.passed
        if not passed and not force:
            return Promotion(False, _as_it_stands(challenger), run.run_id, contest, decision)
        said = said if passed else f"forced, against: {said}"
        move = Move(why or said, by=None if passed else _user(), run_id=run.run_id)
        placed = make_champion(store, challenger, alias=alias, stage=stage, move=move)
        return Promotion(True, placed, run.run_id, contest, decision)


def _log(run: RunLog, contest: Contest, decision: Decision) -> None:
    log_contest(
        run,
        contest.comparison,
        decision,
        champion=contest.champion,
        challenger=contest.challenger,
        notes=contest.notes,
    )


def _as_it_stands(version: ModelVersion) -> RegisteredVersion:
    alias = next(iter(version.aliases), "")
    return RegisteredVersion(version.name, str(version.version), version.current_stage or "None", alias)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a name for its user
        return "unknown"
