"""A logged or registered model, fetched and opened without Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from tuner.base.columns import CONTENT
from tuner.base.errors import ModelError
from tuner.base.wording import first_line
from tuner.classifiers.heads.files import Head
from tuner.models.format import check_format
from tuner.models.scorer import FOLDER, Scorer, image_bytes, read_head
from tuner.networks.resolution import Network

FLAVOR = "tuner"  # in MLflow's description of a model: that a search made it


def check_model(model_uri: str) -> None:
    """Refuse a model that a search did not log.

    Raises
    ------
    ModelError
        There is no such model, another tool made it, or it is of another format.
    """
    try:
        flavors = mlflow.models.get_model_info(model_uri).flavors
    except (MlflowException, OSError) as error:
        raise _not_loaded(model_uri, error) from error
    if FLAVOR not in flavors:
        raise ModelError(
            f"The model {model_uri} was not made by a search of tuner: its flavors are "
            f"{', '.join(flavors)}."
        )
    check_format(f"The model {model_uri}", flavors[FLAVOR].get("format"))


def load_model(model_uri: str) -> Scorer:
    """Load a model without Spark, to score image files in this process.

    Parameters
    ----------
    model_uri
        `models:/<name>@<alias>`, `models:/<name>/<version>`, `runs:/<run id>/model` or a folder.

    Returns
    -------
    Scorer
        Safe to use from several threads at once.

    Raises
    ------
    ModelError
        There is no such model, or another tool made it.
    """
    return Scorer.load(fetch_model(model_uri))


def fetch_model(model_uri: str) -> Path:
    """Bring a model's folder to this machine; parameters and errors as of `load_model`."""
    check_model(model_uri)
    return _fetch(model_uri, model_uri)


def fetch_head(model_uri: str) -> tuple[Network, Head, tuple[str, ...]]:
    """Bring what a model makes of features (`read_head`); its network, which may be large, stays there."""
    check_model(model_uri)
    return read_head(_fetch(f"{model_uri}/{FOLDER}", model_uri))


def _fetch(uri: str, model_uri: str) -> Path:
    try:
        return Path(mlflow.artifacts.download_artifacts(uri))
    except (MlflowException, OSError) as error:
        raise _not_loaded(model_uri, error) from error


def read_example(folder: Path) -> bytes:
    """The image file in a model's folder, an example of its input."""
    example: Any = Model.load(folder).load_input_example(str(folder))
    content = image_bytes(example[CONTENT][0])
    assert content is not None  # the search that made it put an image there
    return content


def _not_loaded(model_uri: str, error: Exception) -> ModelError:
    return ModelError(
        f"The model {model_uri} cannot be loaded: {first_line(error)} (give models:/<name>@<alias>, "
        "models:/<name>/<version> or runs:/<run id>/model)."
    )
