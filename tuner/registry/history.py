"""The log of an alias's moves: what is written of each, and who held the alias before.

It is kept in tags of the registered model, `tuner.move.0001` and so on, each a line of JSON. Versions keep
tags of their own last moves, too; of moves before there was a log these are all there is.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from tuner.experiment.fields import CHALLENGER
from tuner.tracking.names import MOVE, PROMOTION, ROLLBACK

_KINDS = {PROMOTION: "promotion", ROLLBACK: "rollback"}
_WHY_KEPT = 2_000  # characters; older registries keep 5,000 of a tag


@dataclass(frozen=True)
class Move:
    """Why an alias goes from one version to another; `by` is who overrode the gate."""

    why: str
    by: str | None = None
    run_id: str | None = None  # of the comparison


@dataclass(frozen=True)
class LoggedMove:
    """A move that was made.

    Attributes
    ----------
    kind
        `promotion` or `rollback`.
    alias
        None in what is known of a move before there was a log.
    source, target
        The numbers of the versions that had it before (None: no version) and had it then.
    at, why, by, run_id
        When (ISO 8601, UTC); why; who overrode the gate, and the run of the comparison, if any.
    stage
        The stage that goes with it; None where it is not known.
    """

    kind: str
    alias: str | None
    source: str | None
    target: str
    at: str
    why: str
    by: str | None = None
    run_id: str | None = None
    stage: str | None = None

    @property
    def identity(self) -> tuple[str, str | None, str, str]:
        """What tells a move from others, in the log and in a version's tags."""
        return self.kind, self.source, self.target, self.at

    @classmethod
    def now(cls, kind: str, alias: str, source: str | None, target: str, move: Move) -> LoggedMove:
        """Describe a move that is being made."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(_KINDS[kind], alias, source, target, at, move.why, move.by, move.run_id)

    def with_stage(self, stage: str | None) -> LoggedMove:
        """Give the move, with the stage that goes with it."""
        return replace(self, stage=stage)

    def _values(self) -> dict[str, str]:
        values = {
            "from": self.source,
            "to": self.target,
            "at": self.at,
            "why": self.why,
            "by": self.by,
            "run": self.run_id,
        }
        return {key: value for key, value in values.items() if value is not None}

    def tags(self) -> dict[str, str]:
        """Give the tags of a version: `tuner.promotion.from` and so on."""
        prefix = next(tag for tag, kind in _KINDS.items() if kind == self.kind)
        return {f"{prefix}.{key}": value for key, value in self._values().items()}

    def entry(self) -> str:
        """Give the entry of the log, a line of JSON."""
        values = {"alias": self.alias, "kind": self.kind} | self._values() | {"why": self.why[:_WHY_KEPT]}
        return json.dumps(values | {"stage": self.stage}, ensure_ascii=False)

    @classmethod
    def of_entry(cls, text: str) -> LoggedMove:
        """Read an entry of the log.

        Raises
        ------
        ValueError, KeyError, TypeError
            Somebody else wrote it.
        """
        values: dict[str, Any] = json.loads(text)
        return cls(
            str(values["kind"]),
            str(values["alias"]),
            None if values.get("from") is None else str(values["from"]),
            str(values["to"]),
            str(values["at"]),
            str(values["why"]),
            values.get("by"),
            values.get("run"),
            values.get("stage"),
        )

    @classmethod
    def of_tags(cls, kind: str, tags: Mapping[str, str]) -> LoggedMove | None:
        """Read a version's tags of a move of one kind; None: there are none."""
        values = {key.removeprefix(f"{kind}."): v for key, v in tags.items() if key.startswith(f"{kind}.")}
        if not {"to", "at"} <= values.keys():
            return None
        return cls(
            _KINDS[kind],
            None,
            values.get("from"),
            values["to"],
            values["at"],
            values.get("why", ""),
            values.get("by"),
            values.get("run"),
        )


@dataclass(frozen=True)
class MoveLog:
    """The moves of a registered model, oldest first; `unread` entries are not of this form."""

    moves: tuple[LoggedMove, ...]
    unread: tuple[str, ...]
    last: int  # the number of the newest entry

    @classmethod
    def read(
        cls, tags: Mapping[str, str], versions: Iterable[ModelVersion], aliases: Iterable[str]
    ) -> MoveLog:
        """Read the log in the tags of a registered model, and before it what its versions tell.

        Parameters
        ----------
        tags, versions, aliases
            Those of the registered model. Where it has one alias beside `challenger`, moves of before
            there was a log were of this one.
        """
        numbers = {key: key.removeprefix(f"{MOVE}.") for key in tags if key.startswith(f"{MOVE}.")}
        keys = sorted((key for key, number in numbers.items() if number.isdecimal()), key=_place)
        moves, unread = [], sorted(set(numbers) - set(keys))
        for key in keys:
            try:
                moves.append(LoggedMove.of_entry(tags[key]))
            except (ValueError, KeyError, TypeError):
                unread.append(key)
        own = [alias for alias in aliases if alias != CHALLENGER]
        earlier = _earlier(versions, {move.identity for move in moves}, own[0] if len(own) == 1 else None)
        return cls((*earlier, *moves), tuple(unread), _place(keys[-1]) if keys else 0)

    @property
    def next_key(self) -> str:
        """The tag of the next entry."""
        return f"{MOVE}.{self.last + 1:04d}"

    def of(self, alias: str) -> list[LoggedMove]:
        """The moves of one alias."""
        return [move for move in self.moves if move.alias == alias]

    def holders(self, alias: str, now: str) -> list[str]:
        """Who held the alias and has it to give back to: the last one is the holder `now`.

        A rollback takes back a move, and is none that could be taken back itself. What other hands moved
        is known from where the next move found the alias.
        """
        held: list[str] = []
        for move in self.of(alias):
            if move.source is not None and held[-1:] != [move.source]:
                held.append(move.source)
            if move.kind == _KINDS[ROLLBACK] and move.target in held:
                while held[-1] != move.target:
                    held.pop()
            else:
                held.append(move.target)
        return held if held[-1:] == [now] else [*held, now]


def _place(key: str) -> int:
    return int(key.removeprefix(f"{MOVE}."))


def _earlier(
    versions: Iterable[ModelVersion], logged: Container[object], alias: str | None
) -> list[LoggedMove]:
    """What versions tell of moves before there was a log; their tags name no alias."""
    found = (LoggedMove.of_tags(kind, version.tags) for version in versions for kind in _KINDS)
    moves = {replace(move, alias=alias) for move in found if move and move.identity not in logged}
    return sorted(moves, key=lambda move: (move.at, int(move.target)))
