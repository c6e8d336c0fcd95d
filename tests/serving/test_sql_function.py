from pathlib import Path

import mlflow
import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tests.helpers.models import CHAMPION, NO_IMAGES, ODD_IMAGES, contents_frame, letter_files
from tuner.base.errors import ModelError
from tuner.models.loading import load_model
from tuner.serving.sql_function import register_sql_function

LABELS = ("A", "ñandú <b>", "o")


def images(letters: Path) -> list[bytes | None]:
    good = [path.read_bytes() for label in LABELS for path in letter_files(letters, label, 2)]
    return [*good, ODD_IMAGES["JPEG CMYK"], *NO_IMAGES.values()]


def test_sql_calls_the_model_by_the_name_given(
    search_store: Path, spark: SparkSession, letters: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contents = images(letters)
    classify = register_sql_function(spark, "classify", CHAMPION)
    assert "classify" in {function.name for function in spark.catalog.listFunctions()}
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
    frame = contents_frame(spark, contents)
    frame.createOrReplaceTempView("letters_to_classify")
    query = "SELECT number, classify(content) AS answer FROM letters_to_classify ORDER BY number"
    rows = [row.answer for row in spark.sql(query).collect()]
    expected = load_model(CHAMPION).answer(contents)
    assert [row.prediction for row in rows] == expected["prediction"].tolist()
    assert [row.error for row in rows] == expected["error"].tolist()
    assert [row.prediction for row in rows[:6]] == [label for label in LABELS for _ in range(2)]
    for row, probability in zip(rows, expected["probability"], strict=True):
        if probability is None:
            assert row.probability is None
        else:
            np.testing.assert_allclose(row.probability, probability, rtol=0, atol=1e-5)
    again = frame.select(classify("content")["prediction"].alias("name")).collect()
    assert [row.name for row in again] == [row.prediction for row in rows]


@pytest.mark.parametrize(
    ("name", "uri", "reason"),
    [
        ("two words", CHAMPION, "'two words' is not a name for a SQL function"),
        ("", CHAMPION, "'' is not a name"),
        ("classify", "models:/letters@nobody", "models:/letters@nobody cannot be loaded"),
    ],
)
def test_what_cannot_be_registered_is_a_sentence(
    search_store: Path, spark: SparkSession, name: str, uri: str, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        register_sql_function(spark, name, uri)


@pytest.mark.long
def test_a_folder_and_a_parquet_are_scored_alike_by_both_faces(
    search_store: Path, spark: SparkSession, letters: Path
) -> None:
    folder = str(letters / "*")
    files = spark.read.format("binaryFile").load(folder).coalesce(1)
    files.write.parquet(str(search_store / "images.parquet"))
    pipeline = mlflow.spark.load_model(CHAMPION)
    function = mlflow.pyfunc.spark_udf(spark, CHAMPION, env_manager="local")
    name = F.when(function("content")["probability"].isNotNull(), function("content")["prediction"])
    answers: list[dict[str, str | None]] = []
    for frame in (files, spark.read.parquet(str(search_store / "images.parquet"))):
        transformed = pipeline.transform(frame).select("path", "predicted_label")
        called = frame.select("path", name.alias("predicted_label"))  # MLflow makes "None" of a null
        answers += [by_path(transformed), by_path(called)]
    assert len(answers[0]) == 62
    assert all(answer == answers[0] for answer in answers)
    assert sum(Path(path).parent.name == name for path, name in answers[0].items()) >= 57


def by_path(frame: DataFrame) -> dict[str, str | None]:
    return {row.path: row.predicted_label for row in frame.collect()}


@pytest.mark.long
@pytest.mark.parametrize("face", ["transform", "sql"])
def test_images_that_arrive_are_scored_once(
    face: str, search_store: Path, spark: SparkSession, letters: Path
) -> None:
    arriving, answers = search_store / "arriving", search_store / "answers"
    arriving.mkdir()
    schema = spark.read.format("binaryFile").load(str(letters / "A")).schema
    stream = spark.readStream.format("binaryFile").schema(schema).load(str(arriving))
    if face == "transform":
        scored = mlflow.spark.load_model(CHAMPION).transform(stream)
        scored = scored.select("path", F.col("predicted_label").alias("prediction"))
    else:
        register_sql_function(spark, "classify_stream", CHAMPION)
        scored = stream.select("path", F.expr("classify_stream(content).prediction").alias("prediction"))

    def run() -> dict[str, str | None]:
        query = (
            scored.writeStream.format("parquet")
            .option("checkpointLocation", str(search_store / "checkpoint"))
            .trigger(availableNow=True)
            .start(str(answers))
        )
        query.awaitTermination(120)
        rows = spark.read.parquet(str(answers)).collect()
        assert len(rows) == len({row.path for row in rows})
        return {Path(row.path).name: row.prediction for row in rows}

    (first,) = letter_files(letters, "A", 1)
    (arriving / "first.png").write_bytes(first.read_bytes())
    (arriving / "broken.png").write_bytes(b"no image")
    assert run() == {"first.png": "A", "broken.png": None}
    (second,) = letter_files(letters, "o", 1)
    (arriving / "second.png").write_bytes(second.read_bytes())
    assert run() == {"first.png": "A", "broken.png": None, "second.png": "o"}
