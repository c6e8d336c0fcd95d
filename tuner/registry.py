"""The model registry: a version for the winner, with its stage and alias."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models.model import ModelInfo

from tuner.errors import TrackingError
from tuner.tracking import Tracking


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model; its stage as it was set; `notes` are sentences for the user."""

    name: str
    version: str
    stage: str
    alias: str
    notes: tuple[str, ...] = ()

    @property
    def uri(self) -> str:
        """The URI by which it is loaded and deployed."""
        return f"models:/{self.name}@{self.alias}"


def register_winner(
    tracking: Tracking,
    model: ModelInfo,
    *,
    name: str,
    stage: str,
    alias: str,
    description: str,
    tags: Mapping[str, str],
) -> RegisteredVersion:
    """Register a logged model as the newest version of `name`, and give it stage and alias.

    Raises
    ------
    TrackingError
        The registry refuses the version.
    """
    client = tracking.client()
    try:
        created = mlflow.register_model(model.model_uri, name, tags=dict(tags))
        client.update_model_version(name, created.version, description)
        client.set_registered_model_alias(name, alias, created.version)
    except MlflowException as error:
        raise TrackingError(f"The model registry refuses a version of {name}: {error.message}") from error
    note = _set_stage(tracking, name, created.version, stage)
    if note:
        return RegisteredVersion(name, str(created.version), "None", alias, (note,))
    return RegisteredVersion(name, str(created.version), stage, alias)


def _set_stage(tracking: Tracking, name: str, version: str, stage: str) -> str | None:
    """Set the stage; a registry without stages is no error, for the alias says the same."""
    try:
        with warnings.catch_warnings():
            # MLflow deprecates stages and keeps them; whoever asks for one knows.
            warnings.simplefilter("ignore", FutureWarning)
            tracking.client().transition_model_version_stage(
                name, version, stage, archive_existing_versions=stage in ("Staging", "Production")
            )
    except MlflowException as error:
        return f"The registry refuses stages ({error.message}), so the alias alone marks the version."
    return None
