import json
from pathlib import Path

import pytest
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

from tuner.models.class_names import ClassNames
from tuner.models.pipeline_files import save_pipeline


@pytest.fixture(scope="module")
def pipeline(spark: SparkSession) -> PipelineModel:
    rows = [(Vectors.dense(float(place), 1.0), place % 2) for place in range(10)]
    table = spark.createDataFrame(rows, ["features", "label"])
    model = LogisticRegression(maxIter=3).fit(table)
    return PipelineModel([model, ClassNames(labels=["čarodějka", "line\nend"])])


def files(folder: Path) -> dict[str, object]:
    """The parameters of all stages, by their place, without what differs from one save to the next."""
    found = {}
    for part in sorted(folder.rglob("metadata/part-*")):
        content = json.loads(part.read_text(encoding="utf-8"))
        found[str(part.parent.relative_to(folder))] = content | {"timestamp": 0}
    return found


def test_a_pipeline_is_saved_as_mllib_saves_it(pipeline: PipelineModel, tmp_path: Path) -> None:
    save_pipeline(pipeline, tmp_path / "ours")
    pipeline.write().save((tmp_path / "theirs").as_uri())
    assert files(tmp_path / "ours") == files(tmp_path / "theirs")
    assert len(files(tmp_path / "ours")) == 3
    assert (tmp_path / "ours/metadata/_SUCCESS").exists()


def test_it_loads_and_predicts_the_same(
    pipeline: PipelineModel, spark: SparkSession, tmp_path: Path
) -> None:
    save_pipeline(pipeline, tmp_path / "with a space")
    loaded = PipelineModel.load(f"file://{tmp_path}/with a space")
    table = spark.createDataFrame([(Vectors.dense(9.0, 1.0),), (Vectors.dense(0.0, 1.0),)], ["features"])
    assert loaded.stages[1].getLabels() == ["čarodějka", "line\nend"]
    assert loaded.transform(table).collect() == pipeline.transform(table).collect()


def test_only_the_parameters_of_python_stages_need_no_job(
    pipeline: PipelineModel, spark: SparkSession, tmp_path: Path
) -> None:
    def jobs(save) -> int:
        group = f"jobs of {save}"
        spark.sparkContext.setJobGroup(group, "")
        save()
        return len(spark.sparkContext.statusTracker().getJobIdsForGroup(group))

    ours = jobs(lambda: save_pipeline(pipeline, tmp_path / "ours"))
    theirs = jobs(lambda: pipeline.write().save((tmp_path / "theirs").as_uri()))
    assert theirs - ours == 2  # the pipeline's and the class names'
