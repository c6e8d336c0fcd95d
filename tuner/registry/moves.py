"""Moves of an alias from one version to another, what becomes of the stages, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from tuner.base.errors import ModelError
from tuner.experiment.fields import CHALLENGER
from tuner.registry.history import LoggedMove, Move
from tuner.registry.steps import Steps, all_or_nothing
from tuner.registry.turns import turn
from tuner.registry.versions import RegisteredVersion, Standing, asking, find_version
from tuner.tracking.names import PROMOTION, ROLLBACK
from tuner.tracking.store import Tracking

ANYONE = "anyone"
"""Whose place a version may take: whoever holds the alias then."""

_RANKS = {"None": 0, "Archived": 0, "Staging": 1, "Production": 2}


class AliasMovedError(ModelError):
    """An alias is not where it was when the move was decided: nothing has moved."""


def make_challenger(tracking: Tracking, version: ModelVersion, *notes: str) -> RegisteredVersion:
    """Give a version the alias `challenger`.

    Raises
    ------
    TrackingError
        The registry refuses it, or does not answer.
    """
    client = tracking.client()
    with asking(f"refuses the alias {CHALLENGER}"), turn(client, version.name):
        client.set_registered_model_alias(version.name, CHALLENGER, version.version)
    return RegisteredVersion(version.name, str(version.version), "None", CHALLENGER, notes)


def make_champion(
    tracking: Tracking,
    version: ModelVersion,
    *,
    alias: str,
    stage: str,
    move: Move,
    replacing: str | None = ANYONE,
) -> RegisteredVersion:
    """Give a version the champion's alias and stage; log the move, and tag it on the version.

    The stage comes last: what fails before it is undone, and a registry that refuses stages has the
    alias say the same. The version that had the alias loses the stage that came with it; stages that were
    set by hand stay.

    Parameters
    ----------
    replacing
        The number of the version whose place it takes; None: the alias is held by no version.

    Raises
    ------
    AliasMovedError
        Another version holds the alias by now; nothing has moved.
    TrackingError
        The registry refuses the move, or stops answering; nothing has moved.
    """
    name, client, notes = version.name, tracking.client(), list[str]()
    with _moving(client, name, notes) as check:
        there = Standing.of(client, name)
        before = there.holder(alias)
        source = str(before.version) if before else None
        if replacing not in (ANYONE, source):
            raise _moved(name, alias, replacing, source)
        after = there.versions.get(str(version.version), version)
        made = LoggedMove.now(PROMOTION, alias, source, str(version.version), move)
        stale = [key for key in after.tags if key.startswith(f"{PROMOTION}.") and key not in made.tags()]
        with all_or_nothing(client, name) as step:
            step.tag(after, made.tags(), drop=stale)
            check()
            reached = _hand_over(step, there, made, stage, notes)
    return RegisteredVersion(name, str(version.version), reached, alias, tuple(notes))


def roll_back(tracking: Tracking, name: str, *, alias: str, why: str) -> RegisteredVersion:
    """Take back the last move of an alias that was not taken back yet; log it, and tag it on both versions.

    Alias and stage go to the version that had the alias before. Versions that were deleted are passed over.

    Raises
    ------
    ModelError
        There is no such model or alias, or the champion had no predecessor that still exists; or the alias
        is moved meanwhile (`AliasMovedError`).
    TrackingError
        The registry refuses the move, or stops answering; nothing has moved.
    """
    seen = str(find_version(tracking, name, alias).version)
    client, notes = tracking.client(), list[str]()
    with _moving(client, name, notes) as check:
        there = Standing.of(client, name)
        current = there.holder(alias)
        if current is None or str(current.version) != seen:
            raise _moved(name, alias, seen, str(current.version) if current else None)
        previous = _champion_before(there, name, alias, seen, notes)
        made = LoggedMove.now(ROLLBACK, alias, seen, str(previous.version), Move(why))
        given = _given_stage(there.log.of(alias), seen) or current.current_stage or "None"
        with all_or_nothing(client, name) as step:
            step.tag(current, made.tags())
            step.tag(previous, made.tags())
            check()
            reached = _hand_over(step, there, made, given, notes)
    return RegisteredVersion(name, str(previous.version), reached, alias, tuple(notes))


@contextmanager
def _moving(client: MlflowClient, name: str, notes: list[str]) -> Iterator[Callable[[], None]]:
    """Move one of a model's aliases while nobody else does."""

    def ended() -> None:
        notes.append(f"Another change of {name} had not come to its end, and was passed over.")

    with (
        asking(f"does not move {name} (tuner registry shows where it stands)"),
        turn(client, name, ended) as check,
    ):
        yield check


def _moved(name: str, alias: str, expected: str | None, found: str | None) -> AliasMovedError:
    before, now = (f"version {n}" if n else "no version" for n in (expected, found))
    return AliasMovedError(
        f"The alias {alias} of {name} was held by {before} and is held by {now} now: it was moved by "
        "somebody else meanwhile, and was left there."
    )


def _champion_before(there: Standing, name: str, alias: str, now: str, notes: list[str]) -> ModelVersion:
    """The version that an alias goes back to."""
    if there.log.unread:
        notes.append(f"Entries of the log of moves could not be read: {', '.join(there.log.unread)}.")
    held = there.log.holders(alias, now)[:-1]
    gone: list[str] = []
    for number in reversed(held):
        if number in there.versions and number != now:
            notes += [f"Version {other} had {alias} since, and was deleted." for other in gone]
            return there.versions[number]
        if number != now and number not in gone:
            gone.append(number)
    if gone:
        known = ", ".join(
            str(v.version) + (f" ({', '.join(v.aliases)})" if v.aliases else "")
            for v in there.versions.values()
        )
        raise ModelError(f"The model {name} has no version {gone[0]}: it has {known}.")
    raise ModelError(
        f"Version {now} of {name} took the alias {alias} from no other version: there is nothing to roll "
        "back to (tuner promote --version NUMBER moves it)."
    )


# Stages -------------------------------------------------------------------------------------------


def _hand_over(step: Steps, there: Standing, made: LoggedMove, stage: str, notes: list[str]) -> str:
    """Move an alias, log it, and let the stages follow; gives the stage that the version came to."""
    before = None if made.source is None else there.versions[made.source]
    after, alias = there.versions[made.target], str(made.alias)
    has = after.current_stage or "None"
    step.alias(alias, before, after)
    # Not before: of what ended between the two, the next move knows from where it finds the alias.
    step.log(there.log.next_key, made.with_stage(stage).entry())
    if there.holder(CHALLENGER) is after:
        step.alias(CHALLENGER, after, None)
    if _rank(has) > _rank(stage):
        notes.append(f"Version {after.version} stays in {has}, where it was before it got {alias}.")
        stage = has
    refused = step.stage(after, stage) if has != stage else None
    if refused:
        notes.append(refused)
        return has
    if before is not None and before is not after:
        _retire(step, there, before, alias, stage, notes)
    others = [
        number
        for number, version in there.versions.items()
        if _rank(stage) and version.current_stage == stage and number not in (made.source, made.target)
    ]
    if others:
        notes.append(f"In {stage} beside it, as before: version {', '.join(sorted(others, key=int))}.")
    return stage


def _retire(
    step: Steps, there: Standing, before: ModelVersion, alias: str, stage: str, notes: list[str]
) -> None:
    """Archive the version that lost the alias, if it is in the stage that came with it."""
    number, has = str(before.version), before.current_stage or "None"
    if not _rank(has):
        return
    kept = [other for other, holder in there.aliases.items() if holder == number and other != alias]
    given = _given_stage(there.log.moves, number)
    if kept:
        notes.append(f"Version {number} stays in {has}, for it is {' and '.join(sorted(kept))} as well.")
    elif given not in (None, has):
        notes.append(f"Version {number} stays in {has}, where it was put by hand.")
    elif given is None and has != stage:
        notes.append(f"Version {number} stays in {has}.")
    else:
        step.stage(before, "Archived")


def _rank(stage: str) -> int:
    return _RANKS.get(stage, 0)


def _given_stage(moves: Sequence[LoggedMove], version: str) -> str | None:
    """The stage that the last of the moves to a version gave it, as far as it is known."""
    return next((move.stage for move in reversed(moves) if move.target == version), None)
