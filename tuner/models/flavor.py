"""The model folder that MLflow keeps; two faces: `spark`, the pipeline, and `python_function`, no JVM.

`mlflow.spark.log_model` needs a JVM, which a worker does not have, and infers requirements in a subprocess,
at 10 to 20 seconds a model. So it is written here.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlflow import pyfunc
from mlflow.entities import LoggedModel
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from tuner.base import distribution
from tuner.base.choices import ScoreKind
from tuner.base.columns import CONTENT, ERROR, FEATURES, PREDICTION, TOP_K
from tuner.base.files import file_digest
from tuner.classifiers.heads.files import Head
from tuner.classifiers.heads.mllib import NaiveBayesHead
from tuner.classifiers.heads.steps import step_and_head
from tuner.classifiers.linear import LinearHead
from tuner.classifiers.scikit import SklearnHead
from tuner.models import scorer
from tuner.models.environment import CONDA, VIRTUALENV, requirements, wheel_of, write_environment
from tuner.models.fitted.saved import SavedStage
from tuner.models.fitted.sklearn_model import SklearnModel, SklearnStage
from tuner.models.fitted.steps import StepStage
from tuner.models.format import FORMAT
from tuner.models.loading import FLAVOR
from tuner.models.mllib.files import LogisticRegressionStage, PythonStage, Stage, write_pipeline
from tuner.models.pipeline import score_column, stages_of
from tuner.models.scorer import write_scorer
from tuner.models.stages.saving import NetworkStage
from tuner.networks.resolution import Network
from tuner.tracking.run_log import RunLog

_EXAMPLE, _SERVING_EXAMPLE = "input_example.json", "serving_input_example.json"


# Image files, as bytes or as base64. Were they said to be binary, MLflow's server would read the base64
# itself, and refuse a request for one null; were the column required, its refusal would hold the request.
def signature(gives: ScoreKind) -> ModelSignature:
    """What a model takes and answers: of a classifier without probabilities, `decision` in their place."""
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, CONTENT, required=False)]),
        outputs=Schema(
            [
                ColSpec(DataType.string, PREDICTION, required=False),
                ColSpec(Array(DataType.double), score_column(gives), required=False),
                ColSpec(DataType.string, ERROR, required=False),
            ]
        ),
        params=ParamSchema([ParamSpec(TOP_K, DataType.long, 0)]),
    )


@dataclass(frozen=True, eq=False)
class FittedModel:
    """All that a whole model is made of: image bytes → features → prediction and probability → class name.

    Attributes
    ----------
    network
        The network, with its file.
    head
        The fitted classifier.
    params
        What MLlib's `LogisticRegression` was fitted with, by its names
        (`tuner.models.fitted.estimators.classifier_params`); of others it is in what they are saved as.
    labels
        The class names; their positions are the label indices.
    uri
        Where MLflow has the network; None: the model carries its file.
    saved
        The folder to which MLlib saved the classifier, where it did.
    onnx
        The network's ONNX file, with which both faces shall compute; None, or if there is a `uri`: they
        compute with TensorFlow.
    """

    network: Network
    head: Head
    params: Mapping[str, Any]
    labels: Sequence[str]
    uri: str | None = None
    saved: Path | None = None
    onnx: Path | None = None

    def stages(self) -> tuple[Stage, ...]:
        """The classifier as stages of the pipeline: itself, and the step before it if there is one."""
        step, head = step_and_head(self.head)
        before = () if step is None else (StepStage(step),)
        return *before, self._classifier(head)

    def _classifier(self, head: Head) -> Stage:
        if self.saved is not None:
            return SavedStage(self.saved)
        if isinstance(head, SklearnHead):
            model = SklearnModel(
                head=head,
                featuresCol=FEATURES,
                predictionCol=PREDICTION,
                outputCol=score_column(head.gives),
            )
            return SklearnStage(model)
        assert isinstance(head, LinearHead)
        return LogisticRegressionStage(
            head.coefficients,
            head.intercepts,
            numClasses=max(2, len(head.coefficients)),
            isMultinomial=len(head.coefficients) > 1,
            params=self.params,
        )


def write_model_files(folder: Path, example: bytes, *, sklearn: bool = False) -> None:
    """Write what all models of a search share: their environment, and an image as an example of the input.

    Parameters
    ----------
    folder
        Made if missing; `log_model` takes copies from there.
    example
        The bytes of one image.
    sklearn
        Whether some of their classifiers are scikit-learn's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_environment(folder, requirements(sklearn=sklearn))
    # One image as MLflow's JSON forms of a data frame: bytes as base64.
    frame = {"columns": [CONTENT], "data": [[base64.b64encode(example).decode("ascii")]]}
    (folder / _EXAMPLE).write_text(json.dumps(frame), encoding="utf-8")
    (folder / _SERVING_EXAMPLE).write_text(json.dumps({"dataframe_split": frame}), encoding="utf-8")


def example_of(files: Path) -> bytes:
    """The image that `write_model_files` wrote."""
    frame = json.loads((files / _EXAMPLE).read_text(encoding="utf-8"))
    return base64.b64decode(frame["data"][0][0])


def save_model(path: str, mlflow_model: Model, *, model: FittedModel, files: Path) -> None:
    """Write the model folder, as a flavor of MLflow does.

    Parameters
    ----------
    path
        The folder to make, on this process's disk.
    mlflow_model
        MLflow's own description, which gets the flavors and is written as `MLmodel`.
    model
        What to write.
    files
        Where `write_model_files` wrote.
    """
    folder = Path(path)
    shutil.copytree(files, folder)
    gives = model.head.gives
    refuses_nan = isinstance(model.head, NaiveBayesHead) and model.head.of_counts
    featurizer, names = stages_of(
        model.network,
        model.labels,
        gives,
        handleInvalid="infinity" if refuses_nan else "keep",
        embedWeights=model.uri is None,
    )
    if model.uri is not None:
        featurizer.set(featurizer.modelUri, model.uri)
    if model.onnx is not None and model.uri is None:
        featurizer.carry_onnx(model.onnx)
        sklearn = isinstance(model.head, SklearnHead)
        write_environment(folder, requirements(sklearn=sklearn, onnx=True))
    stages = (NetworkStage(featurizer), *model.stages(), PythonStage.of(names))
    write_pipeline(folder / scorer.PIPELINE_FOLDER, stages)
    onnx = featurizer.getOrDefault(featurizer.onnxDigest) if featurizer.onnx is not None else None
    write_scorer(folder / scorer.FOLDER, model.network, model.head, model.labels, model.uri, onnx)
    mlflow_model.signature = signature(gives)
    mlflow_model.saved_input_example_info = {
        "artifact_path": _EXAMPLE,
        "type": "dataframe",
        "pandas_orient": "split",
        "serving_input_path": _SERVING_EXAMPLE,
    }
    mlflow_model.add_flavor(
        "spark",
        pyspark_version=version("pyspark"),
        model_data=scorer.PIPELINE_FOLDER,
        code=None,
        model_class="pyspark.ml.pipeline.PipelineModel",
    )
    wheel = wheel_of(folder)
    assert wheel is not None  # `write_model_files` wrote it
    mlflow_model.add_flavor(
        FLAVOR,
        tuner_version=distribution.version(),
        format=FORMAT,
        data=scorer.FOLDER,
        wheel=wheel.relative_to(folder).as_posix(),
        wheel_sha256=file_digest(wheel),
    )
    pyfunc.add_to_model(
        mlflow_model, loader_module="tuner.models.scorer", conda_env=CONDA, python_env=VIRTUALENV
    )
    mlflow_model.save(str(folder / MLMODEL_FILE_NAME))


def log_model(run: RunLog, model: FittedModel, *, name: str, files: Path) -> LoggedModel:
    """Log the model to a run, as an MLflow logged model.

    Parameters
    ----------
    run
        The run that it is of.
    model, files
        As `save_model` takes them.
    name
        The logged model's name.
    """
    return run.model(name, partial(save_model, model=model, files=files))
