"""MLlib's own models, and what is read of the files that they are saved in."""

from pathlib import Path

import numpy as np
import pytest
from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tuner.base.errors import TrialError
from tuner.classifiers.heads.files import Head, read_head
from tuner.classifiers.heads.steps import SteppedHead
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.rows.row import COMPONENTS, NONE, PCA, PRESTEP
from tuner.classifiers.table import CLASSIFIERS, DEFAULT
from tuner.images.index import nominal
from tuner.models.class_names import ClassNames
from tuner.models.fitted.estimators import estimator, fit_estimator, save_fitted, step_and_model
from tuner.models.fitted.saved import SavedStage, _matrix, _vector, read_saved
from tuner.models.fitted.steps import StepStage
from tuner.models.mllib.files import PythonStage, Stage, write_pipeline
from tuner.models.pipeline import score_column

CLASSES, WIDTH = 3, 5
LABEL = np.arange(48) % CLASSES
FEATURES = (np.random.default_rng(0).normal(size=(48, WIDTH)) + 2 * np.eye(CLASSES, WIDTH)[LABEL]).astype(
    np.float32
)
SMALL = {
    "LinearSVC": {"maxIter": 3},
    "DecisionTree": {"maxDepth": 3},
    "RandomForest": {"numTrees": 4, "maxDepth": 3},
    "GBT": {"maxIter": 2, "maxDepth": 2},
    "NaiveBayes": {"modelType": "gaussian"},
    "MultilayerPerceptron": {"hiddenSize": 4, "maxIter": 5},
    "FM": {"factorSize": 2, "maxIter": 3},
}


@pytest.fixture(scope="module")
def table(spark: SparkSession) -> DataFrame:
    rows = [(int(k), Vectors.dense(x)) for k, x in zip(LABEL, FEATURES.tolist(), strict=True)]
    frame = spark.createDataFrame(rows, ["label_index", "features"]).coalesce(1)
    return frame.withMetadata("label_index", nominal(CLASSES)).cache()


def test_every_classifier_of_mllib_is_tried_here() -> None:
    assert {DEFAULT, *SMALL} == {row.name for row in CLASSIFIERS.values() if row.library == "mllib"}


@pytest.mark.parametrize("name", ["DecisionTree", "NaiveBayes", "LinearSVC"])
def test_what_is_read_of_a_saved_model_computes_what_mllib_does(
    name: str, table: DataFrame, tmp_path: Path
) -> None:
    same_answers(name, SMALL[name], table, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", ["RandomForest", "GBT", "MultilayerPerceptron", "FM"])
def test_what_is_read_of_larger_saved_models_computes_what_mllib_does(
    name: str, table: DataFrame, tmp_path: Path
) -> None:
    same_answers(name, SMALL[name], table, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["multinomial", "complement"])
def test_naive_bayes_of_counts_computes_what_mllib_does(
    kind: str, table: DataFrame, tmp_path: Path
) -> None:
    positive = F.udf(lambda v: Vectors.dense(abs(v.toArray())), table.schema["features"].dataType)
    counts = table.withColumn("features", positive("features")).cache()
    same_answers("NaiveBayes", {"modelType": kind, "smoothing": 0.5}, counts, tmp_path, invalid=np.inf)


def same_answers(
    name: str,
    values: dict,
    table: DataFrame,
    folder: Path,
    invalid: float = np.nan,
    step: tuple[str, int] = (NONE, 0),
) -> None:
    """Of the model itself, of its arrays, and of the pipeline that is put together of its files."""
    further = {PRESTEP: step[0]} | ({COMPONENTS: step[1]} if step[0] == PCA else {})
    params = TrialParams.of("any", name, **values, **further)
    column = score_column(params.row.gives)
    model = fit_estimator(table, params, width=WIDTH, classes=CLASSES, seed=3)
    features = np.stack([row.features.toArray() for row in table.select("features").collect()])
    found = model.transform(table).select("prediction", vector_to_array(F.col(column)).alias("scores"))
    rows = found.collect()
    expected = np.array([row.scores for row in rows])
    before, classifier = step_and_model(model)
    save_fitted(classifier, folder / "saved")

    head: Head = read_saved(folder / "saved", params.row, CLASSES)
    stages: list[Stage] = [SavedStage(folder / "saved")]
    if before is not None:
        head, stages = SteppedHead(before, head), [StepStage(before), *stages]
    assert head.gives == params.row.gives
    scores = head.score(features)
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9)
    assert scores.argmax(axis=1).tolist() == [row.prediction for row in rows]
    (folder / "head").mkdir()
    head.write(folder / "head")
    np.testing.assert_array_equal(read_head(folder / "head", head.kind).score(features), scores)

    names = ClassNames(labels=list("abc"), probabilityCol=column)
    write_pipeline(folder / "pipeline", (*stages, PythonStage.of(names)))
    pipeline = PipelineModel.load(str(folder / "pipeline"))
    unknown = table.sparkSession.createDataFrame(
        [(0, Vectors.dense([0.0] * (WIDTH - 1) + [invalid]))],
        table.select("label_index", "features").schema,
    )
    answers = pipeline.transform(table.unionByName(unknown)).collect()
    assert [row.predicted_label for row in answers[:-1]] == [list("abc")[k] for k in scores.argmax(axis=1)]
    last = answers[-1].asDict()
    assert (last["prediction"], last[column], last["predicted_label"]) == (None, None, None)


@pytest.mark.long
def test_a_class_that_mllib_s_model_does_not_know_is_a_trial_that_failed(
    table: DataFrame, tmp_path: Path
) -> None:
    params = TrialParams.of("any", "LinearSVC", maxIter=1)
    save_fitted(estimator(params).fit(table), tmp_path / "saved")
    with pytest.raises(TrialError, match="was fitted on 3 of 4 classes: each needs an image in every part"):
        read_saved(tmp_path / "saved", params.row, 4)


def test_vectors_and_matrices_are_read_dense_and_sparse() -> None:
    """As `MatrixUDT` has them: by columns, or transposed, by rows."""
    assert _vector({"size": None, "values": [1, 2]}).tolist() == [1, 2]
    assert _vector({"size": 3, "indices": [2], "values": [5]}).tolist() == [0, 0, 5]
    dense = {"numRows": 2, "numCols": 3, "colPtrs": None, "rowIndices": None, "values": [1, 2, 3, 4, 5, 6]}
    assert _matrix({**dense, "isTransposed": True}).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert _matrix({**dense, "isTransposed": False}).tolist() == [[1, 3, 5], [2, 4, 6]]
    sparse = {"numRows": 2, "numCols": 3, "values": [7, 8]}
    by_rows = {**sparse, "colPtrs": [0, 0, 2], "rowIndices": [0, 2], "isTransposed": True}
    assert _matrix(by_rows).tolist() == [[0, 0, 0], [7, 0, 8]]
    by_columns = {**sparse, "colPtrs": [0, 1, 1, 2], "rowIndices": [1, 0], "isTransposed": False}
    assert _matrix(by_columns).tolist() == [[0, 0, 8], [7, 0, 0]]
