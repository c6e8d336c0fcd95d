"""The model folder that MLflow keeps: a pipeline as the standard `spark` flavor, with what it needs.

`mlflow.spark.log_model` copies through the driver's JVM gateway, which a worker's Connect session does
not have, and infers requirements in a subprocess, at 10 to 20 seconds a model. So it is written here.
"""

from __future__ import annotations

import base64
import json
import platform
import shutil
import sys
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlflow import pyfunc
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME, ModelInfo
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import ColSpec, Schema
from pyspark.ml import PipelineModel
from ruamel.yaml import YAML

from tuner.pipelines import CONTENT, PREDICTED_LABEL, PREDICTION

_DATA = "sparkml"
_REQUIREMENTS = (
    "mlflow",
    "pyspark",
    "tensorflow",
    "keras",
    "numpy",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "filelock",
    "ruamel.yaml",
)

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("binary", CONTENT)]),
    outputs=Schema([ColSpec("double", PREDICTION), ColSpec("string", PREDICTED_LABEL)]),
)


def requirements() -> list[str]:
    """What the model was made with and is loaded with, pinned; tuner itself is installed beside them."""
    return [f"{name}=={version(name)}" for name in _REQUIREMENTS]


def _write_environment(path: Path) -> dict[str, str]:
    """Write the environment in the two forms that MLflow reads; give their names for the `MLmodel` file."""
    python = platform.python_version()
    pinned = requirements()
    (path / "requirements.txt").write_text("\n".join(pinned) + "\n", encoding="utf-8")
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": pinned}],
    }
    virtualenv = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    YAML().dump(conda, path / "conda.yaml")
    YAML().dump(virtualenv, path / "python_env.yaml")
    return {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}


def _write_example(folder: Path, image: bytes) -> dict[str, str]:
    """Write one image as MLflow's JSON forms of a data frame: bytes as base64."""
    example = {"columns": [CONTENT], "data": [[base64.b64encode(image).decode("ascii")]]}
    (folder / "input_example.json").write_text(json.dumps(example), encoding="utf-8")
    serving = {"dataframe_split": example}
    (folder / "serving_input_example.json").write_text(json.dumps(serving), encoding="utf-8")
    return {
        "artifact_path": "input_example.json",
        "type": "dataframe",
        "pandas_orient": "split",
        "serving_input_path": "serving_input_example.json",
    }


def save_model(
    path: str, mlflow_model: Model, *, pipeline: PipelineModel, staging: Path, example: bytes, **_: Any
) -> None:
    """Write the model folder; MLflow's `Model.log` calls this.

    Parameters
    ----------
    path
        The folder to make, on this process's disk.
    mlflow_model
        MLflow's own description, which gets the flavors and is written as `MLmodel`.
    pipeline
        Image bytes in, class names out.
    staging
        A folder that this process and Spark's executors both see: Spark writes there.
    example
        The bytes of one image, as the input example.
    """
    folder = Path(path)
    folder.mkdir(parents=True)
    staged = staging / uuid.uuid4().hex
    try:
        pipeline.write().overwrite().save(staged.absolute().as_uri())
        shutil.move(staged, folder / _DATA)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    environment = _write_environment(folder)
    mlflow_model.signature = SIGNATURE
    mlflow_model.saved_input_example_info = _write_example(folder, example)
    mlflow_model.add_flavor(
        "spark",
        pyspark_version=version("pyspark"),
        model_data=_DATA,
        code=None,
        model_class="pyspark.ml.pipeline.PipelineModel",
    )
    pyfunc.add_to_model(
        mlflow_model,
        loader_module="mlflow.spark",
        data=_DATA,
        conda_env=environment["conda"],
        python_env=environment["virtualenv"],
    )
    mlflow_model.save(str(folder / MLMODEL_FILE_NAME))


def log_model(
    run_id: str, pipeline: PipelineModel, *, name: str, staging: Path, example: bytes, **options: Any
) -> ModelInfo:
    """Log the model to a run, as an MLflow logged model; options are those of `Model.log`."""
    return Model.log(
        artifact_path=None,
        name=name,
        flavor=sys.modules[__name__],
        run_id=run_id,
        pipeline=pipeline,
        staging=staging,
        example=example,
        validate_serving_input=False,  # it would load TensorFlow for each trial
        **options,
    )
