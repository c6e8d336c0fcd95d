import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import DataType
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession

from tests.conftest import FinishedSearch
from tests.helpers.models import (
    CHAMPION,
    NO_IMAGES,
    ODD_IMAGES,
    assemble,
    contents_frame,
    embedded,
    letter_files,
    random_head,
)
from tests.models.test_pipeline import LABELS, png
from tuner.base.errors import ModelError
from tuner.classifiers.heads.steps import SteppedHead
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.scikit import fit_sklearn
from tuner.classifiers.table import CLASSIFIERS, DEFAULT
from tuner.experiment.networks import NetworkSpec
from tuner.images.index import nominal
from tuner.models.environment import requirements
from tuner.models.featurizer import DeepImageFeaturizer
from tuner.models.fitted.estimators import classifier_params, fit_estimator, save_fitted, step_and_model
from tuner.models.fitted.saved import read_saved
from tuner.models.flavor import FittedModel, log_model, save_model, write_model_files
from tuner.models.loading import check_model, fetch_model, load_model, read_example
from tuner.models.pipeline import head_of
from tuner.models.scorer import Scorer
from tuner.networks.files import import_keras
from tuner.networks.resolution import Network, resolve_network
from tuner.networks.store import NetworkStore
from tuner.tracking.run_log import RunLog

# Spark's modules cannot be imported here, as where they are not installed.
WITHOUT_SPARK = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyspark", "py4j"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import mlflow
import pandas as pd

asked = json.load(sys.stdin)
model = mlflow.pyfunc.load_model(asked["model"])
content = [None if image is None else bytes.fromhex(image) for image in asked["images"]]
answer = model.predict(pd.DataFrame({"content": content}))
example = model.predict(model.input_example)
assert not {"pyspark", "py4j"} & {name.partition(".")[0] for name in sys.modules}
print(json.dumps([answer.to_dict("records"), example.to_dict("records")]))
"""

FRESH = """
import json, sys
import mlflow
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
asked = json.load(sys.stdin)
model = mlflow.spark.load_model(asked["model"])
images = spark.createDataFrame([(bytes.fromhex(image),) for image in asked["images"]], "content binary")
rows = model.transform(images.coalesce(1)).collect()
print(json.dumps([[row.predicted_label, row.probability.toArray().tolist()] for row in rows]))
"""


def ask_fresh(code: str, model: Path, images: list[bytes | None]) -> list:
    asked = {"model": str(model), "images": [None if image is None else image.hex() for image in images]}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(asked),
        env=os.environ | {"PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_alike(answers: list[dict], rows: DataFrame) -> None:
    """The answers without a JVM are those of the pipeline."""
    rows = sorted(rows.collect(), key=lambda row: row.number)
    assert [answer["prediction"] for answer in answers] == [row.predicted_label for row in rows]
    for answer, row in zip(answers, rows, strict=True):
        assert (answer["probability"] is None) == (row.probability is None) == (answer["error"] is not None)
        if row.probability is not None:
            np.testing.assert_allclose(answer["probability"], row.probability.toArray(), rtol=0, atol=1e-5)


# The registered model


@pytest.mark.long
def test_both_faces_of_the_registered_model_agree_and_one_needs_no_spark(
    search_store: Path, spark: SparkSession, letters: Path
) -> None:
    names = ["A", "ñandú <b>", "o"]
    images = [path.read_bytes() for name in names for path in letter_files(letters, name, 4)]
    images += [*ODD_IMAGES.values(), *NO_IMAGES.values()]
    folder = Path(mlflow.artifacts.download_artifacts(CHAMPION))
    assert sum(part.stat().st_size for part in folder.rglob("*")) < 5 * 2**20
    answers, example = ask_fresh(WITHOUT_SPARK, folder, images)
    pipeline = mlflow.spark.load_model(CHAMPION)
    assert_alike(answers, pipeline.transform(contents_frame(spark, images)))
    assert {answer["prediction"] for answer in answers} == {*names, None}
    assert sum(answer["error"] is None for answer in answers) == 12 + len(ODD_IMAGES)
    assert example[0]["error"] is None


def test_the_registered_model_describes_itself(search_store: Path) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(CHAMPION))
    model = Model.load(folder)
    assert {"spark", "python_function", "tuner"} == model.flavors.keys()
    assert [(column.name, column.type) for column in model.signature.inputs] == [
        ("content", DataType.string)
    ]
    assert model.signature.outputs.input_names() == ["prediction", "probability", "error"]
    assert [(param.name, param.default) for param in model.signature.params] == [("top_k", 0)]
    example = model.load_input_example(str(folder))
    assert example.columns.tolist() == ["content"]
    (text,) = example["content"]
    assert base64.b64decode(text) == read_example(fetch_model(CHAMPION))
    serving = json.loads((folder / "serving_input_example.json").read_text())
    assert base64.b64decode(serving["dataframe_split"]["data"][0][0]) == read_example(fetch_model(CHAMPION))
    *pinned, wheel = (folder / "requirements.txt").read_text().splitlines()
    assert pinned == requirements(onnx=True)
    described = model.flavors["tuner"]
    assert described["wheel"] == wheel
    assert described["wheel_sha256"] == hashlib.sha256((folder / wheel).read_bytes()).hexdigest()
    for pinned in (requirements(), requirements(onnx=True)):
        assert not any(line.lower().startswith(("pyspark", "py4j")) for line in pinned)


@pytest.mark.filterwarnings("ignore:.*validate_serving_input.*:FutureWarning")
def test_the_serving_example_validates_as_mlflow_does_it(search_store: Path) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(CHAMPION))
    example = (folder / "serving_input_example.json").read_text()
    answer = mlflow.models.validate_serving_input(CHAMPION, example)
    assert answer.loc[0, "prediction"] in ("A", "ñandú <b>", "o")


def test_a_trial_s_model_finds_its_network_in_mlflow(
    search_store: Path, finished_search: FinishedSearch, tmp_path: Path
) -> None:
    for run in finished_search.trials():
        scorer = load_model(f"runs:/{run.info.run_id}/model")
        probability, reasons = scorer.score([read_example(fetch_model(CHAMPION))])
        assert reasons == [None]
        assert probability.shape == (1, 3)
    assert 1 <= len(list((tmp_path / ".tuner" / "networks").iterdir())) <= 2


# Models that cannot be used


class Echo(PythonModel):
    def predict(self, context: object, model_input: list[str]) -> list[str]:
        return model_input


@pytest.mark.parametrize("read", [check_model, load_model, fetch_model])
@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("models:/letters/99", "99"),
        ("models:/letters@nobody", "nobody"),
        ("models:/nothing@champion", "nothing"),
        ("models:/letters", "letters"),
        (f"runs:/{'0' * 32}/model", "0000"),
        ("no/such/folder", "no/such/folder"),
        ("gopher://x/y", "gopher"),
    ],
)
def test_a_model_that_is_not_there_is_a_sentence(search_store: Path, read, uri: str, reason: str) -> None:
    with pytest.raises(ModelError, match=rf"^The model {uri} cannot be loaded: .*{reason}.*\(give ") as it:
        read(uri)
    assert "\n" not in str(it.value)


def test_a_model_of_another_tool_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "echo"
    mlflow.pyfunc.save_model(folder, python_model=Echo(), pip_requirements=[])
    for read in (check_model, load_model, fetch_model):
        with pytest.raises(ModelError, match=r"was not made by a search of tuner: .*python_function\.$"):
            read(str(folder))


# Logged by hand


@pytest.mark.long
def test_a_logged_model_is_whole_and_scores_bytes_in_a_fresh_process(
    spark: SparkSession, tmp_path: Path
) -> None:
    gabornet = resolve_network(NetworkSpec(name="GaborNet"), "float32", NetworkStore(tmp_path / "networks"))
    images = [png(level) for level in (5, 10, 200, 205)]
    table = contents_frame(spark, images).selectExpr("*", "int(number / 2) as label_index")
    featurizer = DeepImageFeaturizer.from_network(gabornet, inputCol="content", outputCol="features")
    params = TrialParams.of("GaborNet", regParam=0.01, elasticNetParam=0.0, maxIter=5)
    classifier = fit_estimator(featurizer.transform(table), params)
    model = FittedModel(gabornet, head_of(classifier), classifier_params(params), LABELS)
    folder, run_id = logged(model, images[2], tmp_path)

    assert Model.load(folder).run_id == run_id
    assert len(list(folder.rglob("*.keras"))) == 1
    answer = ask_fresh(FRESH, folder, images)
    expected = assemble(gabornet, classifier, LABELS).transform(table.select("content")).collect()
    assert [label for label, _ in answer] == ["dark", "dark", "light", "light"]
    for (_, probability), row in zip(answer, expected, strict=True):
        np.testing.assert_allclose(probability, row.probability.toArray(), rtol=1e-5)


def logged(model: FittedModel, example: bytes, folder: Path) -> tuple[Path, str]:
    """Log a model; give a copy of its folder, and the run's id."""
    files, uri = folder / "files", f"sqlite:///{folder / 'mlflow.db'}"
    write_model_files(files, example)
    client = mlflow.MlflowClient(uri)
    experiment_id = client.create_experiment("models", artifact_location=str(folder / "artifacts"))
    run = RunLog(client, client.create_run(experiment_id).info.run_id, experiment_id)
    model_id = log_model(run, model, name="model", files=files).model_id
    place = client.get_logged_model(
        model_id
    ).artifact_location  # a models: URI asks the store that is current
    copy = mlflow.artifacts.download_artifacts(place, dst_path=str(folder / "copy"))
    return Path(copy), run.run_id


def maps(folder: Path, pooling: str = "avg") -> Network:
    """A network of one's own that ends in four maps of what is 0 or more."""
    keras = import_keras()
    pixels = keras.Input((32, 32, 3))
    layer = keras.layers.Conv2D(4, 3, strides=2, activation="relu")
    keras.Model(pixels, layer(pixels)).save(folder / "map.keras")
    own = {"name": "map", "file": folder / "map.keras", "input_size": 32, "preprocessing": "unit"}
    spec = NetworkSpec(**own, pooling=pooling)
    return resolve_network(spec, "float32", NetworkStore(folder / "networks"))


@pytest.mark.parametrize(("pooling", "width"), [("avg", 4), ("max", 4), ("none", 15 * 15 * 4)])
def test_both_faces_pool_alike(pooling: str, width: int, spark: SparkSession, tmp_path: Path) -> None:
    network = maps(tmp_path, pooling)
    assert network.width == width
    model = FittedModel(network, random_head(3, width), {"maxIter": 1}, ["A", "B", "C"])
    images = [*ODD_IMAGES.values(), *NO_IMAGES.values()]
    write_model_files(tmp_path / "files", ODD_IMAGES["PNG RGB"])
    folder = tmp_path / "model"
    save_model(str(folder), Model(), model=model, files=tmp_path / "files")
    scorer = Scorer.load(folder)
    assert scorer.network.pooling == pooling
    answers = scorer.predict(pd.DataFrame({"content": images})).to_dict("records")
    assert_alike(answers, mlflow.spark.load_model(str(folder)).transform(contents_frame(spark, images)))
    assert len({answer["prediction"] for answer in answers}) > 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("images", "network", "preprocessing", "family"),
    [
        ("football", "mobilenet_pw12", "tf", "binomial"),
        ("football", "squeezenet", "caffe", "multinomial"),
        ("bangla_digits/images", "squeezenet", "caffe", "multinomial"),
        ("bangla_digits/images", "mobilenet_pw12", "tf", "multinomial"),
    ],
)
def test_both_faces_agree_on_real_images(
    images: str,
    network: str,
    preprocessing: str,
    family: str,
    shared: Path,
    spark: SparkSession,
    tmp_path: Path,
) -> None:
    spec = NetworkSpec(
        name=network,
        file=shared / "weights" / f"{network}.keras",
        input_size=(224, 224),
        preprocessing=preprocessing,
    )
    backbone = resolve_network(spec, "float32", NetworkStore(tmp_path / "networks"))
    files = sorted(path for path in (shared / "data" / images).glob("*/*") if path.is_file())
    labels = sorted({path.parent.name for path in files})
    contents = [path.read_bytes() for path in files]
    frame = contents_frame(spark, contents).repartition(2).cache()
    featurizer = DeepImageFeaturizer.from_network(backbone, inputCol="content", outputCol="features")
    features = featurizer.transform(frame).select("number", "features").toPandas()
    rows = [
        (Vectors.dense(row.features.toArray()), float(labels.index(files[row.number].parent.name)))
        for row in features.itertuples()
    ]
    table = spark.createDataFrame(rows, ["features", "label"]).coalesce(1)
    params = {"maxIter": 15, "regParam": 0.05, "family": family}
    classifier = LogisticRegression(**params).fit(table)
    assert classifier.coefficientMatrix.numRows == (1 if family == "binomial" else len(labels))
    folder, _ = logged(FittedModel(backbone, head_of(classifier), params, labels), contents[0], tmp_path)

    answers, _ = ask_fresh(WITHOUT_SPARK, folder, contents)
    for pipeline in (assemble(backbone, classifier, labels), mlflow.spark.load_model(str(folder))):
        assert_alike(answers, pipeline.transform(frame))
    right = sum(a["prediction"] == path.parent.name for a, path in zip(answers, files, strict=True))
    assert right / len(files) > 0.9
    frame.unpersist()


QUICK = {
    "n_estimators": 5,
    "max_iter": 5,
    "numTrees": 5,
    "maxDepth": 3,
    "hiddenSize": 4,
    "maxIter": 3,
    "factorSize": 2,
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "more"),
    [
        *((name, {}) for name, row in CLASSIFIERS.items() if name != DEFAULT and row.fits),
        ("NaiveBayes", {"modelType": "multinomial", "smoothing": 1.0}),
        *((name, {"prestep": "PCA", "k": 2}) for name in ("sklearn.Ridge", "RandomForest", "FM")),
        *((name, {"prestep": "Normalizer"}) for name in ("NaiveBayes", "GBT", "DecisionTree")),
        *((name, {"prestep": "StandardScaler"}) for name in ("MultilayerPerceptron", "LinearSVC")),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_both_faces_agree_on_odd_formats_whatever_the_classifier(
    name: str, more: dict, spark: SparkSession, tmp_path: Path
) -> None:
    """As they are when they are loaded again; what cannot be decoded has an error, and no answer."""
    row = CLASSIFIERS[name]
    network = maps(tmp_path) if "modelType" in more or row.of_counts else embedded(tmp_path)
    contents = list(ODD_IMAGES.values())
    label = np.arange(len(contents)) % len(LABELS)
    featurizer = DeepImageFeaturizer.from_network(network, inputCol="content", outputCol="features")
    frame = featurizer.transform(contents_frame(spark, contents)).orderBy("number")
    features = np.stack([found.features.toArray() for found in frame.collect()]).astype(np.float32)
    values = {key: QUICK[key] for key in row.by_name if key in QUICK} | more
    params = TrialParams.of(network.name, name, **values)
    saved = None
    if row.library == "sklearn":
        head = fit_sklearn(params, features, label, None, classes=len(LABELS), seed=0).head
    else:
        rows = [(int(k), Vectors.dense(x)) for k, x in zip(label, features.tolist(), strict=True)]
        table = spark.createDataFrame(rows, ["label_index", "features"]).coalesce(1)
        table = table.withMetadata("label_index", nominal(len(LABELS)))
        fitted = fit_estimator(table, params, width=network.width, classes=len(LABELS), seed=0)
        saved = tmp_path / "saved"
        step, fitted = step_and_model(fitted)
        save_fitted(fitted, saved)
        head = read_saved(saved, row, len(LABELS))
        if step is not None:
            head = SteppedHead(step, head)
    model = FittedModel(network, head, {}, LABELS, saved=saved)
    folder, _ = logged(model, contents[0], tmp_path)

    images = [*contents, *NO_IMAGES.values()]
    answers = Scorer.load(folder).answer(images).to_dict("records")
    assert set(answers[0]) == {"prediction", row.gives, "error"}
    assert Model.load(folder).signature.outputs.input_names() == ["prediction", row.gives, "error"]
    rows = mlflow.spark.load_model(str(folder)).transform(contents_frame(spark, images)).collect()
    for answer, found in zip(answers, sorted(rows, key=lambda row: row.number), strict=True):
        assert answer["prediction"] == found.predicted_label
        if answer["error"] is None:
            size = max(1, np.abs(answer[row.gives]).max())  # decision values may be of any
            np.testing.assert_allclose(answer[row.gives], found[row.gives].toArray(), atol=1e-5 * size)
        else:
            assert (answer[row.gives], found[row.gives]) == (None, None)
