"""Registered models for tests: made, moved, and read back."""

import sqlite3
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from tuner.registry.history import Move
from tuner.registry.moves import make_champion
from tuner.registry.versions import list_versions
from tuner.tracking.store import Tracking


def forbid(tmp_path: Path, what: str) -> None:
    """Make the registry refuse one kind of change, as a server that fails half-way would."""
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute(f"CREATE TRIGGER refuse BEFORE {what} BEGIN SELECT RAISE(ABORT, 'no'); END")


def versions(tracking: Tracking, count: int, name: str = "letters") -> list[ModelVersion]:
    client = tracking.client()
    client.create_registered_model(name)
    return [client.create_model_version(name, "somewhere") for _ in range(count)]


def crown(tracking: Tracking, version: ModelVersion, stage: str = "Staging", **move: str):
    move = Move(**{"why": "better"} | move)
    return make_champion(tracking, version, alias="champion", stage=stage, move=move)


def standing(tracking: Tracking) -> dict[int, tuple[str | None, list[str]]]:
    """Each version's stage and aliases."""
    found = list_versions(tracking, "letters")
    return {int(version.version): (version.current_stage, version.aliases) for version in found}


def tags(tracking: Tracking, number: int) -> dict[str, str]:
    return tracking.client().get_model_version("letters", str(number)).tags
