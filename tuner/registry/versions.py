"""The model registry: versions with their stages and aliases, and every move from one to another."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from sqlalchemy.exc import SQLAlchemyError

from tuner.base.errors import ModelError, TrackingError
from tuner.experiment.schema import CHALLENGER
from tuner.tracking.names import PROMOTION, ROLLBACK
from tuner.tracking.store import Tracking, bounded_requests, reason

_SHOWN = 10  # names in a sentence
_ARCHIVING = ("Staging", "Production")  # stages that one version has at a time
_NO_SUCH_THING = ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)


@dataclass(frozen=True)
class RegisteredVersion:
    """A version as it stands: its stage, its alias if it has one, and sentences on how it came there."""

    name: str
    version: str
    stage: str
    alias: str
    notes: tuple[str, ...] = ()

    @property
    def uri(self) -> str:
        """The URI by which it is loaded and deployed."""
        return f"models:/{self.name}@{self.alias}" if self.alias else f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class Move:
    """Why an alias goes from one version to another; `by` is who overrode the gate."""

    why: str
    by: str | None = None
    run_id: str | None = None  # of the comparison

    def tags(self, kind: str, source: str | None, target: str) -> dict[str, str]:
        """Give the tags of a move of one kind, `tuner.promotion` or `tuner.rollback`."""
        values = {
            "from": source,
            "to": target,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "why": self.why,
            "by": self.by,
            "run": self.run_id,
        }
        return {f"{kind}.{key}": value for key, value in values.items() if value is not None}


@contextmanager
def _registry(action: str) -> Iterator[None]:
    """Let a registry that refuses or does not answer be one sentence, within seconds."""
    try:
        with bounded_requests():
            yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(
            f"The model registry {action}: {reason(error)} (check MLFLOW_TRACKING_URI, MLFLOW_REGISTRY_URI "
            "and that the server runs)."
        ) from error


# Reading ------------------------------------------------------------------------------------------


def list_versions(tracking: Tracking, name: str | None = None) -> list[ModelVersion]:
    """All versions of one model or of all, by name, newest first, each with its aliases.

    Raises
    ------
    ModelError
        There is no model of this name.
    TrackingError
        The registry does not answer.
    """
    client = tracking.client()
    with _registry("cannot be read"):
        models = _registered_models(client)
        if name is not None:
            models = [model for model in models if model.name == name] or _no_model(name, models)
        versions: list[ModelVersion] = []
        for model in models:
            found = client.search_model_versions(f"name = {_quoted(model.name)}", max_results=10_000)
            for version in found:
                version.aliases = sorted(
                    alias for alias, number in model.aliases.items() if str(number) == str(version.version)
                )
            versions += found
    return sorted(versions, key=lambda version: (version.name, -int(version.version)))


def _registered_models(client: MlflowClient) -> list[RegisteredModel]:
    models: list[RegisteredModel] = []
    token = None
    while True:
        page = client.search_registered_models(page_token=token)
        models += page
        token = page.token
        if not token:
            return models


def _quoted(name: str) -> str:
    return f'"{name}"' if "'" in name else f"'{name}'"


def _no_model(name: str, models: list[RegisteredModel]) -> NoReturn:
    known = ", ".join(model.name for model in models[:_SHOWN]) + (", …" if len(models) > _SHOWN else "")
    raise ModelError(
        f"There is no registered model {name}: "
        + (f"there are {known}." if models else "the registry is empty; tuner search registers one.")
    )


def find_version(tracking: Tracking, name: str, reference: str) -> ModelVersion:
    """Find a version by its number or by an alias.

    Raises
    ------
    ModelError
        There is no such model, version or alias; the message says which there are.
    TrackingError
        The registry does not answer.
    """
    versions = list_versions(tracking, name)
    for version in versions:
        if reference == str(version.version) or reference in version.aliases:
            return version
    known = [str(v.version) + (f" ({', '.join(v.aliases)})" if v.aliases else "") for v in versions]
    kind = "version" if reference.isdecimal() else "alias"
    raise ModelError(
        f"The model {name} has no {kind} {reference}: "
        + (f"it has {', '.join(known[:_SHOWN])}." if known else "it has no versions.")
    )


def holder_of(tracking: Tracking, name: str, alias: str) -> ModelVersion | None:
    """The version that holds an alias; None if there is no such model or alias.

    Raises
    ------
    TrackingError
        The registry does not answer.
    """
    client = tracking.client()
    with _registry("cannot be read"):
        try:
            number = client.get_registered_model(name).aliases.get(alias)
        except MlflowException as error:
            if error.error_code == _NO_SUCH_THING:
                return None
            raise
        return None if number is None else client.get_model_version(name, str(number))


# Writing ------------------------------------------------------------------------------------------


def register_version(
    tracking: Tracking, model: LoggedModel, *, name: str, tags: Mapping[str, str]
) -> ModelVersion:
    """Register a logged model as the newest version of `name`; it has no stage and no alias yet.

    Raises
    ------
    TrackingError
        The registry refuses the version, or does not answer.
    """
    tracking.make_current()
    with _registry(f"refuses a version of {name}"):
        return mlflow.register_model(model.model_uri, name, tags=dict(tags))


def describe_version(tracking: Tracking, version: ModelVersion, description: str) -> None:
    """Set the description that the registry's page shows.

    Raises
    ------
    TrackingError
        The registry refuses it, or does not answer.
    """
    with _registry(f"refuses the description of {version.name}"):
        tracking.client().update_model_version(version.name, version.version, description)


def make_challenger(tracking: Tracking, version: ModelVersion, *notes: str) -> RegisteredVersion:
    """Give a version the alias `challenger`.

    Raises
    ------
    TrackingError
        The registry refuses it, or does not answer.
    """
    with _registry(f"refuses the alias {CHALLENGER}"):
        tracking.client().set_registered_model_alias(version.name, CHALLENGER, version.version)
    return RegisteredVersion(version.name, str(version.version), "None", CHALLENGER, notes)


def make_champion(
    tracking: Tracking, version: ModelVersion, *, alias: str, stage: str, move: Move
) -> RegisteredVersion:
    """Give a version the champion's alias and stage, and tag the move on it.

    The stage comes last: what fails before it is undone, and a registry that refuses stages has the
    alias say the same.

    Raises
    ------
    TrackingError
        The registry refuses the move, or stops answering; nothing has moved.
    """
    before = holder_of(tracking, version.name, alias)
    source = str(before.version) if before else None
    tags = move.tags(PROMOTION, source, str(version.version))
    stale = [key for key in version.tags if key.startswith(f"{PROMOTION}.") and key not in tags]
    with _all_or_nothing(tracking, version.name) as step:
        step.tag(version, tags, drop=stale)
        step.alias(alias, before, version)
        challenger = holder_of(tracking, version.name, CHALLENGER)
        if challenger is not None and str(challenger.version) == str(version.version):
            step.alias(CHALLENGER, version, None)
        note = step.stage(version, alias, stage)
    reached = "None" if note else stage
    return RegisteredVersion(version.name, str(version.version), reached, alias, (note,) if note else ())


def roll_back(tracking: Tracking, name: str, *, alias: str, why: str) -> RegisteredVersion:
    """Give alias and stage back to the version that had them before the champion; tag it on both.

    Raises
    ------
    ModelError
        There is no such model or alias, or the champion had no predecessor that still exists.
    TrackingError
        The registry refuses the move, or stops answering; nothing has moved.
    """
    current = find_version(tracking, name, alias)
    number = current.tags.get(f"{PROMOTION}.from")
    if number is None:
        raise ModelError(
            f"Version {current.version} of {name} took the alias {alias} from no other version: there is "
            "nothing to roll back to (tuner promote --version NUMBER moves it)."
        )
    previous = find_version(tracking, name, number)
    tags = Move(why).tags(ROLLBACK, str(current.version), number)
    with _all_or_nothing(tracking, name) as step:
        step.tag(current, tags)
        step.tag(previous, tags)
        step.alias(alias, current, previous)
        note = step.stage(previous, alias, current.current_stage or "None")
    stage = (previous.current_stage if note else current.current_stage) or "None"
    return RegisteredVersion(name, number, stage, alias, (note,) if note else ())


class _Steps:
    """Changes to one registered model, each of which says how it is undone."""

    def __init__(self, tracking: Tracking, name: str, undo: ExitStack) -> None:
        self._client, self._name, self._undo = tracking.client(), name, undo

    def tag(self, version: ModelVersion, tags: Mapping[str, str], drop: list[str] | None = None) -> None:
        """Set tags, and drop others."""
        changes: dict[str, str | None] = {**tags, **dict.fromkeys(drop or [])}
        for key, value in changes.items():
            self._undo.callback(self._set_tag, version, key, version.tags.get(key))
            self._set_tag(version, key, value)

    def _set_tag(self, version: ModelVersion, key: str, value: str | None) -> None:
        if value is None:
            self._client.delete_model_version_tag(self._name, version.version, key)
        else:
            self._client.set_model_version_tag(self._name, version.version, key, value)

    def alias(self, alias: str, before: ModelVersion | None, after: ModelVersion | None) -> None:
        """Move an alias; None: it is held by no version."""
        self._undo.callback(self._set_alias, alias, before)
        self._set_alias(alias, after)

    def _set_alias(self, alias: str, version: ModelVersion | None) -> None:
        if version is None:
            self._client.delete_registered_model_alias(self._name, alias)
        else:
            self._client.set_registered_model_alias(self._name, alias, version.version)

    def stage(self, version: ModelVersion, alias: str, stage: str) -> str | None:
        """Set the stage; gives a sentence if the registry refuses stages, and answers otherwise."""
        try:
            with warnings.catch_warnings():
                # MLflow deprecates stages and keeps them; whoever asks for one knows.
                warnings.simplefilter("ignore", FutureWarning)
                self._client.transition_model_version_stage(
                    self._name, version.version, stage, archive_existing_versions=stage in _ARCHIVING
                )
        except MlflowException as error:
            self._client.get_model_version_by_alias(self._name, alias)
            return f"The registry refuses stages ({reason(error)}), so the alias alone marks the version."
        return None


@contextmanager
def _all_or_nothing(tracking: Tracking, name: str) -> Iterator[_Steps]:
    """Take steps, and all of them back if one fails, as far as the registry still answers."""
    with _registry(f"does not move {name} (tuner registry shows where it stands)"), ExitStack() as done:
        undo = ExitStack()
        done.callback(_undo, undo)
        yield _Steps(tracking, name, undo)
        done.pop_all()


def _undo(steps: ExitStack) -> None:
    with suppress(MlflowException, SQLAlchemyError, OSError):
        steps.close()
