"""What a model is served with: pinned requirements, and a wheel of tuner's serving part, in its folder."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from ruamel.yaml import YAML

from tuner.base.distribution import pack_wheel

CONDA, VIRTUALENV = "conda.yaml", "python_env.yaml"
REQUIREMENTS, WHEELS = "requirements.txt", "wheels"
# What serving imports; the `spark` face needs pyspark and all of tuner beside them.
_OF_TENSORFLOW = ("mlflow", "tensorflow", "keras")
_OF_ONNX = ("mlflow-skinny", "onnxruntime")  # skinny MLflow serves; a store in a database needs all of it
_NEEDED = (
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "filelock",
    "joblib",
    "ruamel.yaml",
)
_OF_SKLEARN = ("scikit-learn", "skops", "scipy")  # of models with a classifier of scikit-learn
# The loader that MLflow calls, and what of tuner that imports.
_SERVING = (
    "base",
    "classifiers",
    "experiment",
    "images/decoding.py",
    "images/preprocessing.py",
    "images/splits.py",
    "models/format.py",
    "models/scorer.py",
    "networks",
)


def requirements(*, sklearn: bool = False, onnx: bool = False) -> list[str]:
    """What the model is served with, pinned, beside the wheel in its folder.

    `sklearn`: its classifier may be scikit-learn's; `onnx`: it carries its network as ONNX.
    """
    names = (*(_OF_ONNX if onnx else _OF_TENSORFLOW), *_NEEDED, *(_OF_SKLEARN if sklearn else ()))
    return [f"{name}=={version(name)}" for name in names]


def write_environment(folder: Path, pinned: Sequence[str]) -> None:
    """Write what pip, virtualenv, uv and conda make the model's environment of, to its folder.

    tuner is named by the path of its wheel, which MLflow resolves in the model's folder; never by a name,
    which an index may know as another program's.
    """
    python, wheel = platform.python_version(), wheel_of(folder)
    if wheel is None:
        (folder / WHEELS).mkdir(parents=True)
        wheel = pack_wheel(folder / WHEELS, _SERVING)
    stated = [*pinned, f"{WHEELS}/{wheel.name}"]
    (folder / REQUIREMENTS).write_text("\n".join(stated) + "\n", encoding="utf-8")
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": stated}],
    }
    virtualenv = {"python": python, "build_dependencies": ["pip"], "dependencies": [f"-r {REQUIREMENTS}"]}
    YAML().dump(conda, folder / CONDA)
    YAML().dump(virtualenv, folder / VIRTUALENV)


def wheel_of(folder: Path) -> Path | None:
    """The wheel in a model's folder; None: there is none."""
    return next((folder / WHEELS).glob("*.whl"), None)
