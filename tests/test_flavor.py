import ast
import base64
import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.models import Model
from mlflow.types.schema import DataType
from pyspark.ml.classification import LogisticRegression
from pyspark.sql import SparkSession
from test_pipelines import LABELS, png

import tuner
from tuner.backbones import Backbone, resolve_backbone
from tuner.experiment import BackboneSpec
from tuner.featurizer import DeepImageFeaturizer
from tuner.flavor import log_model, requirements
from tuner.pipelines import assemble

FRESH = """
import json, sys
import mlflow
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
asked = json.load(sys.stdin)
mlflow.set_tracking_uri(asked["tracking"])
model = mlflow.spark.load_model(asked["model"])
images = spark.createDataFrame([(bytes.fromhex(image),) for image in asked["images"]], "content binary")
rows = model.transform(images.coalesce(1)).collect()
print(json.dumps([[row.predicted_label, row.probability.toArray().tolist()] for row in rows]))
"""


@pytest.fixture(scope="module")
def gabornet(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return resolve_backbone(BackboneSpec(name="GaborNet"), "float32", tmp_path_factory.mktemp("store"))


@pytest.mark.long
def test_a_logged_model_is_whole_and_scores_bytes_in_a_fresh_process(
    spark: SparkSession, gabornet: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [png(level) for level in (5, 10, 200, 205)]
    rows = list(zip(images, (0, 0, 1, 1), strict=True))
    table = spark.createDataFrame(rows, "content binary, label int").coalesce(1)
    featurizer = DeepImageFeaturizer.from_backbone(gabornet, inputCol="content", outputCol="features")
    classifier = LogisticRegression(maxIter=5, regParam=0.01).fit(featurizer.transform(table))
    pipeline = assemble(gabornet, classifier, LABELS)

    before, store = mlflow.get_tracking_uri(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(store)
    try:
        with mlflow.start_run() as run:
            staging = tmp_path / "staging"
            staging.mkdir()
            info = log_model(run.info.run_id, pipeline, name="model", staging=staging, example=images[2])
        folder = Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(tmp_path / "copy")))
    finally:
        mlflow.set_tracking_uri(before)
    assert list(staging.iterdir()) == []

    model = Model.load(folder)
    assert {"spark", "python_function"} <= model.flavors.keys()
    assert model.run_id == run.info.run_id
    assert [(column.name, column.type) for column in model.signature.inputs] == [
        ("content", DataType.binary)
    ]
    assert model.signature.outputs.input_names() == ["prediction", "predicted_label"]
    example = model.load_input_example(str(folder))
    assert example.columns.tolist() == ["content"]
    assert example["content"].tolist() == [images[2]]
    serving = json.loads((folder / "serving_input_example.json").read_text())
    assert base64.b64decode(serving["dataframe_split"]["data"][0][0]) == images[2]
    assert (folder / "requirements.txt").read_text().split() == requirements()
    assert all("==" in line for line in requirements())
    assert len(list(folder.rglob("*.keras"))) == 1

    asked = {"tracking": store, "model": info.model_uri, "images": [image.hex() for image in images]}
    done = subprocess.run(
        [sys.executable, "-c", FRESH],
        input=json.dumps(asked),
        env=os.environ | {"PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    expected = pipeline.transform(table.select("content")).collect()
    assert [label for label, _ in answer] == ["dark", "dark", "light", "light"]
    for (_, probability), row in zip(answer, expected, strict=True):
        np.testing.assert_allclose(probability, row.probability.toArray(), rtol=1e-5)


def imported(module: str, seen: set[str]) -> set[str]:
    """The top-level names that a module of the package imports, with those of the package it needs."""
    if module in seen:
        return set()
    seen.add(module)
    source = Path(tuner.__file__).parent.joinpath(*module.split(".")[1:])
    file = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    own = {name for name in names if name.startswith("tuner.")}
    return {name.split(".")[0] for name in names} | {
        name for inner in own for name in imported(inner, seen)
    }


def test_the_requirements_hold_all_that_loading_the_stages_imports() -> None:
    seen: set[str] = set()
    names = imported("tuner.featurizer", seen) | imported("tuner.class_names", seen)
    assert {"pyspark", "keras", "pydantic"} <= names
    stated = {line.split("==")[0].lower() for line in requirements()}
    providers = {
        name: {provider.lower() for provider in them} for name, them in packages_distributions().items()
    }
    missing = {name for name in names - {"tuner"} if name in providers and not providers[name] & stated}
    assert missing == set()
