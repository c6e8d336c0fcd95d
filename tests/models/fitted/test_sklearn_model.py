import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyspark.ml import PipelineModel
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession

from tuner.base.errors import ModelError
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.scikit import SklearnHead, fit_sklearn
from tuner.models.class_names import ClassNames
from tuner.models.fitted.sklearn_model import SklearnModel, SklearnStage
from tuner.models.mllib.files import PythonStage, write_pipeline

LABEL = np.arange(30) % 3
FEATURES = (np.random.default_rng(0).normal(size=(30, 6)) + 2 * np.eye(3, 6)[LABEL]).astype(np.float32)
KINDS = {"sklearn.RandomForest": {"n_estimators": 5}, "sklearn.Ridge": {}}


def fitted(name: str) -> SklearnHead:
    params = TrialParams.of("any", name, **KINDS[name])
    return fit_sklearn(params, FEATURES, LABEL, None, classes=3, seed=0).head


@pytest.fixture(scope="module")
def table(spark: SparkSession) -> DataFrame:
    rows = [(Vectors.dense(row),) for row in FEATURES.tolist()]
    return spark.createDataFrame([*rows, (Vectors.dense([np.nan] * 6),), (None,)], ["features"])


@pytest.mark.parametrize("name", KINDS)
def test_a_pipeline_that_was_saved_without_a_session_gives_scikit_learn_s_answers(
    name: str, table: DataFrame, tmp_path: Path
) -> None:
    head = fitted(name)
    names = ClassNames(labels=list("abc"), probabilityCol=head.gives)
    write_pipeline(tmp_path / "pipeline", (SklearnStage(SklearnModel(head=head)), PythonStage.of(names)))
    loaded = PipelineModel.load(str(tmp_path / "pipeline"))
    answers = loaded.transform(table).collect()
    scores = np.stack([row[head.gives].toArray() for row in answers[:-2]])
    np.testing.assert_allclose(scores, head.score(FEATURES), rtol=1e-12)
    assert [row.prediction for row in answers[:-2]] == scores.argmax(axis=1).tolist()
    assert [row.predicted_label for row in answers[:-2]] == [list("abc")[k] for k in scores.argmax(axis=1)]
    for row in answers[-2:]:
        assert (row.prediction, row[head.gives], row.predicted_label) == (None, None, None)


def test_it_is_saved_and_loaded_as_mllib_s_own_are(table: DataFrame, tmp_path: Path) -> None:
    model = SklearnModel(head=fitted("sklearn.Ridge"), predictionCol="said", outputCol="margin")
    PipelineModel([model]).write().save(str(tmp_path / "one"))
    PipelineModel.load(str(tmp_path / "one")).write().save(str(tmp_path / "two"))
    (again,) = PipelineModel.load(str(tmp_path / "two")).stages
    assert (again.uid, again.getPredictionCol(), again.getOutputCol()) == (model.uid, "said", "margin")
    assert {"said", "margin"} <= set(again.transform(table).columns)
    with pytest.raises(ModelError, match="is saved and loaded as a local folder"):
        model.write().save("hdfs://nowhere/model")


@pytest.mark.long
def test_a_fresh_process_loads_it(tmp_path: Path) -> None:
    """One that has imported nothing of tuner."""
    write_pipeline(tmp_path / "pipeline", (SklearnStage(SklearnModel(head=fitted("sklearn.Ridge"))),))
    program = (
        "import sys\n"
        "from pyspark.sql import SparkSession\n"
        "from pyspark.ml import PipelineModel\n"
        "from pyspark.ml.linalg import Vectors\n"
        "spark = SparkSession.builder.master('local[1]').config('spark.ui.enabled', "
        "'false').getOrCreate()\n"
        "model = PipelineModel.load(sys.argv[1])\n"
        "frame = spark.createDataFrame([(Vectors.dense([9.0, 0, 0, 0, 0, 0]),)], ['features'])\n"
        "print('said', model.transform(frame).first().prediction)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "pipeline")], capture_output=True, text=True
    )
    assert "said 0.0" in done.stdout, done.stderr
