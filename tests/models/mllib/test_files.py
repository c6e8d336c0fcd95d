"""What is written is what MLlib writes itself: the locked one and, in a long test, the lowest allowed."""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from mlflow.models import Model
from packaging.requirements import Requirement
from packaging.version import Version
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.linalg import Vectors
from pyspark.ml.util import DefaultParamsWriter
from pyspark.sql import DataFrame, SparkSession

from tests.helpers.models import assemble, contents_frame, embedded
from tests.models.test_flavor import FRESH, ask_fresh
from tests.models.test_pipeline import LABELS, png
from tests.product.test_project import PYPROJECT, ROOT
from tuner.models.class_names import ClassNames
from tuner.models.featurizer import DeepImageFeaturizer
from tuner.models.format import FORMAT
from tuner.models.mllib.files import LogisticRegressionStage, PythonStage, Stage, new_uid, write_pipeline
from tuner.models.stages.saving import NetworkStage
from tuner.networks.resolution import Network

ASKED = "PYSPARK_ASKED_FOR"  # a variable: the version that a run of these tests is meant for


@dataclass(frozen=True)
class Case:
    """A table to fit on, what the fit is given, and how MLlib is to keep the coefficients."""

    labels: list[int]
    width: int
    params: dict[str, Any] = field(default_factory=dict)
    multinomial: bool = False
    kept: str = "dense"

    def table(self, spark: SparkSession) -> DataFrame:
        rng = np.random.default_rng(len(self.labels) * self.width)
        features = rng.normal(0, 1, (len(self.labels), self.width))
        features[np.arange(len(self.labels)), np.array(self.labels) % self.width] += 2
        rows = [
            (label, 1.0 + label, Vectors.dense(row))
            for label, row in zip(self.labels, features, strict=True)
        ]
        return spark.createDataFrame(rows, ["label_index", "weight", "features"]).coalesce(1)


def classes(count: int) -> list[int]:
    return [number % count for number in range(40)]


L1 = {"regParam": 0.2, "elasticNetParam": 1.0}
NOTHING = {"regParam": 10.0, "elasticNetParam": 1.0}
CASES = {
    "binomial": Case(classes(2), 6),
    "multinomial": Case(classes(3), 6, multinomial=True),
    "two classes, multinomial": Case(classes(2), 6, {"family": "multinomial"}, multinomial=True),
    "whole numbers": Case(classes(3), 6, {"regParam": 0, "elasticNetParam": 1, "tol": 0}, multinomial=True),
    "weights": Case(classes(3), 6, {"weightCol": "weight"}, multinomial=True),
    "other defaults": Case(
        classes(2), 6, {"fitIntercept": False, "standardization": False, "rawPredictionCol": "raw"}
    ),
    "L1, by rows": Case(classes(3), 40, L1, multinomial=True, kept="sparse by rows"),
    "L1, by columns": Case(classes(8), 4, L1, multinomial=True, kept="sparse by columns"),
    "L1, two classes": Case(classes(2), 40, L1, kept="sparse by rows"),
    "L1, all zero": Case(classes(5), 5, NOTHING, multinomial=True, kept="sparse by columns"),
    "missing classes": Case([0, 3] * 20, 6, multinomial=True, kept="sparse by rows"),
    "the only class is 0": Case([0] * 20, 6, kept="sparse by rows"),
    "the only class is 1": Case([1] * 20, 6, kept="sparse by rows"),
    "the only class is 2": Case([2] * 20, 6, multinomial=True, kept="sparse by rows"),
    "the only class is 5": Case([5] * 20, 4, multinomial=True, kept="sparse by columns"),
}

SHORT = {"binomial", "multinomial", "L1, by rows", "the only class is 2"}


def given_params(case: Case) -> dict[str, Any]:
    """What a search gives to a fit, and the case's own."""
    return {
        "featuresCol": "features",
        "labelCol": "label_index",
        "predictionCol": "prediction",
        "probabilityCol": "probability",
        "regParam": 0.01,
        "elasticNetParam": 0.5,
        "maxIter": 5,
        "maxBlockSizeInMB": 64.0,
    } | case.params


def stage_of(model: LogisticRegressionModel, case: Case) -> LogisticRegressionStage:
    """The model's numbers, without MLlib."""
    return LogisticRegressionStage(
        coefficients=model.coefficientMatrix.toArray(),
        intercepts=model.interceptVector.toArray(),
        numClasses=model.numClasses,
        isMultinomial=case.multinomial,
        params=given_params(case),
        uid=model.uid,
    )


def described(folder: Path) -> str:
    """What the files of a saved model say, without what differs from one save to the next.

    Numbers stand as they would be typed, so that -0.0, NaN and 1.0 are not 0.0, NaN and 1.
    """
    text = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name.startswith("."):  # Hadoop's checksums, which nothing asks for
            continue
        text.append("# " + re.sub(r"part-00000.*", "part-00000", path.relative_to(folder).as_posix()))
        if path.suffix == ".parquet":
            text.append(_parquet(path))
        else:
            for line in path.read_text(encoding="utf-8").splitlines():
                text.append(json.dumps(json.loads(line) | {"timestamp": 0}, indent=1, sort_keys=True))
    return "\n".join(text)


def _parquet(path: Path) -> str:
    file = pq.ParquetFile(path)
    schema = str(file.schema).split("{", 1)[1]  # before it: where it lies in memory, and its name
    keys = {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}
    rows = file.read().to_pylist()
    return f"{schema}\n{json.dumps(keys, indent=1, sort_keys=True)}\n{json.dumps(rows, indent=1)}"


def values(model: LogisticRegressionModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of parameters that were set, and those of the others."""
    set_ones = {param.name: model.getOrDefault(param) for param in model.params if model.isSet(param)}
    others = {
        param.name: model.getOrDefault(param)
        for param in model.params
        if model.hasDefault(param) and not model.isSet(param)
    }
    return set_ones, others


# A model


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.long) for name in CASES]
)
def test_a_model_is_written_as_mllib_writes_it(name: str, spark: SparkSession, tmp_path: Path) -> None:
    case = CASES[name]
    table = case.table(spark)
    model = LogisticRegression(**given_params(case)).fit(table)
    model.write().save((tmp_path / "theirs").as_uri())
    stage_of(model, case).write(tmp_path / "ours")
    assert described(tmp_path / "ours") == described(tmp_path / "theirs")
    row = pq.read_table(tmp_path / "ours" / "data").to_pylist()[0]["coefficientMatrix"]
    order = "rows" if row["isTransposed"] else "columns"
    assert case.kept == ("dense" if row["type"] else f"sparse by {order}")

    loaded = LogisticRegressionModel.load((tmp_path / "ours").as_uri())
    assert (loaded.uid, values(loaded)) == (model.uid, values(model))
    np.testing.assert_array_equal(answers(loaded, table), answers(model, table))


def answers(model: LogisticRegressionModel, table: DataFrame) -> np.ndarray:
    """Raw predictions, probabilities and the prediction; a row of numbers for each row of the table."""
    columns = (model.getRawPredictionCol(), model.getProbabilityCol(), model.getPredictionCol())
    rows = model.transform(table).select(*columns).collect()
    return np.array([np.hstack([np.asarray(cell) for cell in row]) for row in rows])


# With more and with fewer zeros than where sparse begins to take less room.
NUMBERS = st.sampled_from([0.0, -0.0, 1.5, -2.5, 5e-324, np.nan, np.inf])
SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=12)
MATRICES = arrays(np.float64, SHAPES, elements=NUMBERS) | arrays(
    np.float64, SHAPES, elements=NUMBERS, fill=st.just(0.0)
)


@settings(deadline=None, max_examples=150)
@given(coefficients=MATRICES)
def test_what_is_sparse_and_how_is_mllib_s_choice(coefficients: np.ndarray, spark: SparkSession) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = len(coefficients)
        intercepts = np.where(np.isinf(coefficients[:, 0]), 0.0, coefficients[:, 0])
        LogisticRegressionStage(coefficients, intercepts, rows, True, {}).write(Path(folder) / "model")
        row = pq.read_table(Path(folder) / "model" / "data").to_pylist()[0]

    linalg = spark.sparkContext._jvm.org.apache.spark.ml.linalg
    kept = linalg.DenseMatrix(*coefficients.shape, doubles(spark, coefficients), True).compressed()
    stored = row["coefficientMatrix"]
    shape = (stored["numRows"], stored["numCols"], stored["isTransposed"])
    assert shape == (kept.numRows(), kept.numCols(), kept.isTransposed())
    assert repr(stored["values"]) == repr(list(kept.values()))
    sparse = kept.getClass().getSimpleName() == "SparseMatrix"
    assert stored["colPtrs"] == (list(kept.colPtrs()) if sparse else None)
    assert stored["rowIndices"] == (list(kept.rowIndices()) if sparse else None)

    kept = linalg.DenseVector(doubles(spark, intercepts)).compressed()
    stored = row["interceptVector"]
    sparse = kept.getClass().getSimpleName() == "SparseVector"
    assert repr(stored["values"]) == repr(list(kept.values()))
    assert stored["size"] == (kept.size() if sparse else None)
    assert stored["indices"] == (list(kept.indices()) if sparse else None)


def doubles(spark: SparkSession, array: np.ndarray) -> Any:
    """An array of the JVM."""
    context = spark.sparkContext
    target = context._gateway.new_array(context._jvm.double, array.size)
    context._jvm.java.nio.ByteBuffer.wrap(array.astype(">f8").tobytes()).asDoubleBuffer().get(target)
    return target


def test_ids_are_like_pyspark_s() -> None:
    ours, theirs = new_uid("LogisticRegression"), LogisticRegression().uid
    assert re.sub("[0-9a-f]{12}$", "", ours) == re.sub("[0-9a-f]{12}$", "", theirs) == "LogisticRegression_"
    assert ours != new_uid("LogisticRegression")


@pytest.mark.parametrize(
    ("coefficients", "intercepts", "multinomial", "wanted"),
    [
        ((2, 4), (3,), True, "multinomial model of 3 classes: (3, width) and (3,) are."),
        ((3, 4), (2,), True, "multinomial model of 3 classes: (3, width) and (3,) are."),
        ((3, 4), (3,), False, "binomial model of 3 classes: (1, width) and (1,) are."),
        ((12,), (3,), True, "multinomial model of 3 classes: (3, width) and (3,) are."),
    ],
)
def test_numbers_that_do_not_fit_are_refused(
    coefficients: tuple[int, ...], intercepts: tuple[int, ...], multinomial: bool, wanted: str
) -> None:
    sentence = f"Coefficients of shape {coefficients} and intercepts of shape {intercepts} are no {wanted}"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        LogisticRegressionStage(np.zeros(coefficients), np.zeros(intercepts), 3, multinomial, {})


def test_parameters_that_mllib_does_not_have_are_refused() -> None:
    params = {"penalty": "l1", "C": 1, "tol": 0}
    with pytest.raises(ValueError, match=r"^LogisticRegression has no C, penalty that can be written\.$"):
        LogisticRegressionStage(np.zeros((1, 4)), np.zeros(1), 2, False, params)


# A pipeline


@pytest.fixture(scope="module")
def gabornet(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return embedded(tmp_path_factory.mktemp("networks"), "GaborNet")


@pytest.fixture(scope="module")
def fitted(spark: SparkSession) -> LogisticRegressionModel:
    case = CASES["binomial"]
    return LogisticRegression(**given_params(case)).fit(case.table(spark))


def test_a_pipeline_is_written_as_mllib_writes_it(
    fitted: LogisticRegressionModel, gabornet: Network, spark: SparkSession, tmp_path: Path
) -> None:
    labels, uri = ["čarodějka", "line\nend"], "runs:/0123/networks/x.keras"
    pipeline = assemble(gabornet, fitted, labels, embedWeights=False, modelUri=uri)
    write_pipeline(tmp_path / "ours", stages_of(pipeline, CASES["binomial"]), pipeline.uid)
    pipeline.write().save((tmp_path / "theirs").as_uri())
    assert described(tmp_path / "ours") == described(tmp_path / "theirs")
    assert described(tmp_path / "ours").count("\n# ") + 1 == 10


def stages_of(pipeline: PipelineModel, case: Case) -> list[Stage]:
    """The stages of a whole model, without MLlib."""
    featurizer, model, names = pipeline.stages
    return [NetworkStage(featurizer), stage_of(model, case), PythonStage.of(names)]


@pytest.mark.long
def test_ten_stages_are_named_and_ordered_as_mllib_does(spark: SparkSession, tmp_path: Path) -> None:
    pipeline = PipelineModel([ClassNames(labels=[str(place)]) for place in range(10)])
    write_pipeline(tmp_path / "ours", [PythonStage.of(stage) for stage in pipeline.stages], pipeline.uid)
    pipeline.write().save((tmp_path / "theirs").as_uri())
    assert described(tmp_path / "ours") == described(tmp_path / "theirs")
    loaded = PipelineModel.load((tmp_path / "ours").as_uri())
    assert [stage.getLabels() for stage in loaded.stages] == [[str(place)] for place in range(10)]


@pytest.mark.parametrize("extra", [{}, {"tunerFormat": FORMAT}, {"class": "tuner.Other"}])
def test_a_python_stage_is_written_as_pyspark_writes_it(
    extra: dict[str, Any], gabornet: Network, spark: SparkSession, tmp_path: Path
) -> None:
    featurizer = DeepImageFeaturizer.from_network(gabornet, inputCol="ñ", embedWeights=False)
    DefaultParamsWriter.saveMetadata(featurizer, (tmp_path / "theirs").as_uri(), spark, extra)
    PythonStage.of(featurizer, **extra).write(tmp_path / "ours")
    assert described(tmp_path / "ours") == described(tmp_path / "theirs")


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    stage = PythonStage("tuner.Stage", "Stage_1", {})
    write_pipeline(tmp_path / "model", [stage], "PipelineModel_1")
    before = described(tmp_path / "model")
    with pytest.raises(FileExistsError):
        write_pipeline(tmp_path / "model", [stage])
    assert described(tmp_path / "model") == before


WITHOUT_PYSPARK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyspark", "py4j"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from pathlib import Path
import numpy as np
from tuner.models.format import FORMAT
from tuner.models.mllib.files import LogisticRegressionStage, PythonStage, write_pipeline

model = LogisticRegressionStage(np.eye(3), np.zeros(3), 3, True, {"regParam": 0.5})
write_pipeline(Path(sys.argv[1]), [model, PythonStage("tuner.Stage", "Stage_1", {})])
"""


def test_no_pyspark_is_needed_to_write(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    subprocess.run([sys.executable, "-c", WITHOUT_PYSPARK, str(folder)], check=True)
    (model,) = folder.glob("stages/0_*")
    loaded = LogisticRegressionModel.load(model.as_uri())
    assert loaded.getRegParam() == 0.5
    np.testing.assert_array_equal(loaded.coefficientMatrix.toArray(), np.eye(3))


@pytest.mark.long
def test_mlflow_loads_it_in_a_fresh_process(
    gabornet: Network, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".tuner").symlink_to(Path(gabornet.file).parents[1])  # the weights are not in the model
    monkeypatch.chdir(tmp_path)
    images = [png(level) for level in (5, 10, 15, 200, 205, 210)]
    table = contents_frame(spark, images).selectExpr("*", "int(number / 3) as label_index")
    featurizer = DeepImageFeaturizer.from_network(gabornet, inputCol="content", outputCol="features")
    case = CASES["binomial"]
    model = LogisticRegression(**given_params(case)).fit(featurizer.transform(table))
    pipeline = assemble(gabornet, model, LABELS, embedWeights=False)
    write_pipeline(tmp_path / "sparkml", stages_of(pipeline, case))
    described_model = Model()
    described_model.add_flavor(
        "spark",
        pyspark_version=version("pyspark"),
        model_data="sparkml",
        code=None,
        model_class="pyspark.ml.pipeline.PipelineModel",
    )
    described_model.save(tmp_path / "MLmodel")
    answer = ask_fresh(FRESH, tmp_path, images)
    expected = pipeline.transform(table).collect()
    assert [label for label, _ in answer] == [row.predicted_label for row in expected]
    assert {label for label, _ in answer} == set(LABELS)
    for (_, probability), row in zip(answer, expected, strict=True):
        np.testing.assert_allclose(probability, row.probability.toArray(), rtol=0, atol=1e-6)


# The lowest pyspark


@pytest.mark.long
@pytest.mark.timeout(1800)  # half a gigabyte is fetched
def test_the_lowest_pyspark_reads_and_writes_the_same(tmp_path: Path) -> None:
    """The fast tests of this file once more, beside the lowest pyspark that pyproject.toml allows."""
    (wanted,) = [each for each in map(Requirement, PYPROJECT["dependencies"]) if each.name == "pyspark"]
    (lowest,) = [each.version for each in wanted.specifier if each.operator == ">="]
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:  # not to be kept
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder]
        subprocess.run([*pip, f"pyspark=={lowest}"], check=True)
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": path, ASKED: lowest}
        pytest_ = [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "--timeout", "900"]
        # It leaves the sockets to its workers to the collector.
        pytest_ += ["-W", "ignore::pytest.PytestUnraisableExceptionWarning"]
        tests = [*pytest_, __file__, "-m", "not long"]
        done = subprocess.run(tests, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pyspark_is_the_one_that_was_asked_for(spark: SparkSession) -> None:
    assert Version(spark.version) == Version(os.environ.get(ASKED, version("pyspark")))
