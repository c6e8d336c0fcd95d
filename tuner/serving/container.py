"""A model as what Docker makes an image of: a Dockerfile, and the folder of a model that serves itself."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mlflow.models import Model

from tuner.base.errors import ModelError
from tuner.models.environment import REQUIREMENTS, WHEELS, wheel_of
from tuner.models.scorer import networks_in
from tuner.serving.export import free_target

TAG = "tuner-model"
_MODEL, _PORT = "model", 8080
# What changes seldom comes first: an image of another version of the model shares the layers before it.
_DOCKERFILE = """\
# docker build --tag {tag} . && docker run --rm --publish {port}:{port} {tag}
FROM python:{python}-slim

ENV PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 server
WORKDIR /home/server/{model}
COPY {model}/{requirements} ./
COPY {model}/{wheels} {wheels}
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r {requirements}
COPY {model} ./

USER server
EXPOSE {port}
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD \\
    ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:{port}/ping')"]
CMD ["mlflow", "models", "serve", "--model-uri", ".", "--env-manager", "local", \\
    "--host", "0.0.0.0", "--port", "{port}"]
"""


def write_container(folder: Path, target: Path) -> Path:
    """Write what `docker build` makes an image of, that serves a model over HTTP; give its folder.

    The image has the model's requirements and nothing of what trained it; a user without rights runs
    `mlflow models serve` in it. Of a network that is there as ONNX, the file that it came as is left out.

    Parameters
    ----------
    folder
        The model's folder.
    target
        The folder to make.

    Raises
    ------
    ModelError
        The target exists or cannot be made; the model does not carry its network, or, being of an older
        version of tuner, what serves it.
    """
    target = free_target(target)
    if wheel_of(folder) is None:
        raise ModelError(
            "The model does not carry what serves it, for an older version of tuner made it: search again."
        )
    if not networks_in(folder):
        raise ModelError(
            "The model does not carry its network, as those of single trials do not: give a registered one."
        )
    python = Model.load(folder).flavors["python_function"]["python_version"]
    text = _DOCKERFILE.format(
        tag=TAG,
        port=_PORT,
        python=".".join(python.split(".")[:2]),
        model=_MODEL,
        requirements=REQUIREMENTS,
        wheels=WHEELS,
    )
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        aside = Path(place) / "context"
        shutil.copytree(folder, aside / _MODEL, ignore=_as_it_came)
        (aside / "Dockerfile").write_text(text, encoding="utf-8")
        aside.replace(target)
    return target


def _as_it_came(_folder: str, names: list[str]) -> list[str]:
    """Of a network's two files, the one that serving has no need of."""
    exported = any(name.endswith(".onnx") for name in names)
    return [name for name in names if exported and not name.endswith(".onnx")]
