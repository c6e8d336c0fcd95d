"""The model folder that MLflow keeps; two faces: `spark`, the pipeline, and `python_function`, no JVM.

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
from typing import TYPE_CHECKING, Any

from mlflow import pyfunc
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME, ModelInfo
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema
from ruamel.yaml import YAML

from tuner.base import distribution
from tuner.base.columns import CONTENT, ERROR, PREDICTION, PROBABILITY, TOP_K
from tuner.models import scorer
from tuner.models.format import FORMAT
from tuner.models.loading import FLAVOR
from tuner.models.pipeline_files import save_pipeline
from tuner.models.scorer import LinearHead, write_scorer

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel

# What serving imports; the `spark` face needs pyspark beside them.
_REQUIREMENTS = (
    "mlflow",
    "tensorflow",
    "keras",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "filelock",
    "ruamel.yaml",
)

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, CONTENT)]),
    outputs=Schema(
        [
            ColSpec(DataType.string, PREDICTION, required=False),
            ColSpec(Array(DataType.double), PROBABILITY, required=False),
            ColSpec(DataType.string, ERROR, required=False),
        ]
    ),
    params=ParamSchema([ParamSpec(TOP_K, DataType.long, 0)]),
)


def requirements() -> list[str]:
    """What the model is served with, pinned.

    tuner itself is among them if it was installed from a URL, which then names its version; where it came
    from a local folder, it is to be installed beside them.
    """
    pinned = [f"{name}=={version(name)}" for name in _REQUIREMENTS]
    origin = json.loads(distribution.metadata_file("direct_url.json") or "{}")
    url, source = origin.get("url", "file:"), origin.get("vcs_info")
    if url.startswith("file:"):
        return pinned
    origin = f"{source['vcs']}+{url}@{source['commit_id']}" if source else url
    return [*pinned, f"{distribution.NAME} @ {origin}"]


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
        save_pipeline(pipeline, staged)
        shutil.move(staged, folder / scorer.PIPELINE_FOLDER)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    stages: list[Any] = pipeline.stages
    featurizer, classifier, names = stages
    head = LinearHead(classifier.coefficientMatrix.toArray(), classifier.interceptVector.toArray())
    uri = featurizer.getOrDefault("modelUri") if featurizer.isDefined("modelUri") else None
    write_scorer(folder / scorer.FOLDER, featurizer.network(), head, names.getLabels(), uri)
    environment = _write_environment(folder)
    mlflow_model.signature = SIGNATURE
    mlflow_model.saved_input_example_info = _write_example(folder, example)
    mlflow_model.add_flavor(
        "spark",
        pyspark_version=version("pyspark"),
        model_data=scorer.PIPELINE_FOLDER,
        code=None,
        model_class="pyspark.ml.pipeline.PipelineModel",
    )
    mlflow_model.add_flavor(FLAVOR, tuner_version=distribution.version(), format=FORMAT, data=scorer.FOLDER)
    pyfunc.add_to_model(
        mlflow_model,
        loader_module="tuner.models.scorer",
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
