"""The model registry: versions with their stages and aliases, listed, found and registered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.store.entities import PagedList
from mlflow.utils.logging_utils import MLFLOW_LOGGING_STREAM, disable_logging

from tuner.base.errors import ModelError, TrackingError
from tuner.registry.history import MoveLog
from tuner.tracking.answering import REFUSALS, check_answers, reason
from tuner.tracking.store import Tracking

_T = TypeVar("_T")
_SHOWN = 10  # names in a sentence
_PAGE = 10_000
_PLAIN = re.compile(r"[\w .-]+")  # what stands in a filter as it is
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


@contextmanager
def asking(action: str, *, at_once: bool = False) -> Iterator[None]:
    """Let a registry that refuses or does not answer be one sentence; `at_once`: it is not waited for."""
    try:
        if at_once:
            check_answers(mlflow.get_registry_uri())
        yield
    except REFUSALS as error:
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
    with asking("cannot be read", at_once=True):
        models = list(_pages(partial(client.search_registered_models, order_by=["name ASC"])))
        if name is not None:
            models = [model for model in models if model.name == name] or _no_model(name, models)
        return _versions_of(client, models)


def _versions_of(client: MlflowClient, models: list[RegisteredModel]) -> list[ModelVersion]:
    """The versions of models, by name, newest first, each with its aliases."""
    aliases = {model.name: model.aliases for model in models}
    # A filter holds one name, and not any: MLflow's parser trips over quotes and backslashes.
    plain = len(models) == 1 and _PLAIN.fullmatch(models[0].name)
    search = partial(
        client.search_model_versions,
        f"name = '{models[0].name}'" if plain else None,
        max_results=_PAGE,
        order_by=["name ASC", "version_number DESC"],  # not by their last change, which moves them about
    )
    versions = [version for version in _pages(search) if version.name in aliases]
    for version in versions:
        version.aliases = sorted(
            alias for alias, number in aliases[version.name].items() if str(number) == str(version.version)
        )
    return sorted(versions, key=lambda version: (version.name, -int(version.version)))


def _pages(search: Callable[..., PagedList[_T]]) -> Iterator[_T]:
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


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
    with asking("cannot be read", at_once=True):
        try:
            number = client.get_registered_model(name).aliases.get(alias)
        except MlflowException as error:
            if error.error_code == _NO_SUCH_THING:
                return None
            raise
        return None if number is None else client.get_model_version(name, str(number))


@dataclass(frozen=True)
class Standing:
    """A registered model as it stands: its versions by number, its aliases, and their moves."""

    versions: Mapping[str, ModelVersion]
    aliases: Mapping[str, str]
    log: MoveLog

    @classmethod
    def of(cls, client: MlflowClient, name: str) -> Standing:
        """Read how a registered model stands."""
        model = client.get_registered_model(name)
        versions = _versions_of(client, [model])
        return cls(
            {str(version.version): version for version in versions},
            {alias: str(number) for alias, number in model.aliases.items()},
            MoveLog.read(model.tags, versions, model.aliases),
        )

    def holder(self, alias: str) -> ModelVersion | None:
        """The version that holds an alias."""
        number = self.aliases.get(alias)
        return None if number is None else self.versions.get(number)


def list_moves(tracking: Tracking, name: str) -> MoveLog:
    """Every move of a registered model's aliases, oldest first, as far as it was kept.

    Raises
    ------
    TrackingError
        There is no such model, or the registry does not answer.
    """
    client = tracking.client()
    with asking("cannot be read", at_once=True):
        return Standing.of(client, name).log


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
    with asking(f"refuses a version of {name}"), _without_greetings():
        return mlflow.register_model(model.model_uri, name, tags=dict(tags))


def copy_version(
    tracking: Tracking, version: RegisteredVersion, name: str, *, without: tuple[str, ...]
) -> ModelVersion:
    """Register a version's model as the newest version of another `name`, with its description and tags.

    Parameters
    ----------
    without
        Beginnings of the keys of tags that are the first name's own.

    Raises
    ------
    TrackingError
        There is no such version, the registry refuses its copy, or does not answer.
    """
    client, uri = tracking.client(), f"models:/{version.name}/{version.version}"
    with asking(f"refuses a copy of version {version.version} of {version.name}", at_once=True):
        with _without_greetings():
            copy = client.copy_model_version(uri, name)
        for key in copy.tags:
            if key.startswith(without):
                client.delete_model_version_tag(name, copy.version, key)
        return client.get_model_version(name, copy.version)


@contextmanager
def _without_greetings() -> Iterator[None]:
    """Keep MLflow from writing that it has registered a model: who registers one says so, or is quiet."""
    before = MLFLOW_LOGGING_STREAM.enabled
    disable_logging()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        MLFLOW_LOGGING_STREAM.enabled = before


def describe_version(tracking: Tracking, version: ModelVersion, description: str) -> None:
    """Set the description that the registry's page shows.

    Raises
    ------
    TrackingError
        The registry refuses it, or does not answer.
    """
    with asking(f"refuses the description of {version.name}"):
        tracking.client().update_model_version(version.name, version.version, description)
