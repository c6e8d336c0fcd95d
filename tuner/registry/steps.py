"""Changes to one registered model: all of them or none, each with the way back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tuner.tracking.answering import reason


class Steps:
    """Changes to one registered model, each of which says how it is undone."""

    def __init__(self, client: MlflowClient, name: str, undo: ExitStack) -> None:
        self._client, self._name, self._undo = client, name, undo

    def tag(self, version: ModelVersion, tags: Mapping[str, str], drop: list[str] | None = None) -> None:
        """Set tags of a version, and drop others."""
        changes: dict[str, str | None] = {**tags, **dict.fromkeys(drop or [])}
        for key, value in changes.items():
            self._undo.callback(self._set_tag, version, key, version.tags.get(key))
            self._set_tag(version, key, value)

    def _set_tag(self, version: ModelVersion, key: str, value: str | None) -> None:
        if value is None:
            self._client.delete_model_version_tag(self._name, version.version, key)
        else:
            self._client.set_model_version_tag(self._name, version.version, key, value)

    def log(self, key: str, entry: str) -> None:
        """Set a tag of the registered model."""
        self._undo.callback(self._client.delete_registered_model_tag, self._name, key)
        self._client.set_registered_model_tag(self._name, key, entry)

    def alias(self, alias: str, before: ModelVersion | None, after: ModelVersion | None) -> None:
        """Move an alias; None: it is held by no version."""
        self._undo.callback(self._set_alias, alias, before)
        self._set_alias(alias, after)

    def _set_alias(self, alias: str, version: ModelVersion | None) -> None:
        if version is None:
            self._client.delete_registered_model_alias(self._name, alias)
        else:
            self._client.set_registered_model_alias(self._name, alias, version.version)

    def stage(self, version: ModelVersion, stage: str) -> str | None:
        """Set a version's stage; gives a sentence if the registry refuses stages, and answers otherwise."""
        try:
            self._set_stage(version, stage)
        except MlflowException as error:
            self._client.get_model_version(self._name, version.version)
            return f"The registry refuses stages ({reason(error)}), so the alias alone marks the version."
        self._undo.callback(self._set_stage, version, version.current_stage or "None")
        return None

    def _set_stage(self, version: ModelVersion, stage: str) -> None:
        with warnings.catch_warnings():
            # MLflow deprecates stages and keeps them; whoever asks for one knows.
            warnings.simplefilter("ignore", FutureWarning)
            # Others in this stage are left where they are: it is not for a move to say what they are for.
            self._client.transition_model_version_stage(self._name, version.version, stage)


@contextmanager
def all_or_nothing(client: MlflowClient, name: str) -> Iterator[Steps]:
    """Take steps, and all of them back if one fails, as far as the registry still answers."""
    with ExitStack() as done:
        undo = ExitStack()
        done.callback(_undo, undo)
        yield Steps(client, name, undo)
        done.pop_all()


def _undo(steps: ExitStack) -> None:
    with suppress(MlflowException, SQLAlchemyError, OSError):
        steps.close()
