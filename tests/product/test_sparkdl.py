"""Three scripts that were written for sparkdl, followed step by step: what changes is the import.

Their networks' ImageNet weights cannot be had here (InceptionV3), so that others take their place.
"""

from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from sklearn.datasets import load_digits
from sklearn.metrics import classification_report, confusion_matrix, roc_auc_score
from sklearn.preprocessing import LabelBinarizer

import tuner as dl
from tests.helpers.hadoop import mount
from tests.helpers.models import LITE


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spark: SparkSession) -> None:
    """The networks are stored below the working folder; the scripts ask for the session that there is."""
    monkeypatch.chdir(tmp_path)


def weights_at_hand(name: str, shared: Path) -> dict[str, object]:
    """The featurizer's parameters for a network that can be had here."""
    files = {"MobileNet": ("mobilenet_pw12", "tf"), "SqueezeNet": ("squeezenet", "caffe")}
    if name not in files:
        return {"modelName": name}
    file, mode = files[name]
    place = str(shared / "weights" / f"{file}.keras")
    return {"modelName": name, "modelFile": place, "inputSize": [224, 224], "preprocessing": mode}


@pytest.mark.long
@pytest.mark.parametrize("name", ["MobileNet", "SqueezeNet", pytest.param("EfficientNetLite0", marks=LITE)])
def test_two_footballers(name: str, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Apache Spark Deep Learning Cookbook (Sherif and Ravindra, Packt 2018), chapter 13."""
    folder = shared / "data" / "football"
    # The images of each player as a DataFrame, with a label.
    messi = dl.readImages(f"{folder}/messi").withColumn("label", F.lit(0))
    ronaldo = dl.readImages(f"{folder}/ronaldo").withColumn("label", F.lit(1))
    assert messi.count() == ronaldo.count() == 30
    # Each split in train and test, and put together.
    messi_train, messi_test = messi.randomSplit([66.7, 33.3], seed=12)
    ronaldo_train, ronaldo_test = ronaldo.randomSplit([66.7, 33.3], seed=12)
    train, test = messi_train.unionAll(ronaldo_train), messi_test.unionAll(ronaldo_test)
    assert train.count() + test.count() == 60
    # The pipeline.
    featurizer = dl.DeepImageFeaturizer(
        inputCol="image", outputCol="features", **weights_at_hand(name, shared)
    )
    classifier = LogisticRegression(maxIter=30, labelCol="label")
    model = Pipeline(stages=[featurizer, classifier]).fit(train)
    # Its predictions, as a list and as a table.
    predicted = model.transform(test)
    predicted.select("prediction", "label").show(n=test.count(), truncate=False)
    crossed = predicted.crosstab("prediction", "label")
    crossed.show()
    assert set(crossed.columns) == {"prediction_label", "0", "1"}
    # Its accuracy, then that of the parameters that the chapter ends with.
    evaluator = MulticlassClassificationEvaluator(metricName="accuracy")
    accuracy = evaluator.evaluate(predicted.select("prediction", "label"))
    tuned = LogisticRegression(regParam=0.05, elasticNetParam=0.3, maxIter=15, labelCol="label")
    tuned_model = Pipeline(stages=[featurizer, tuned]).fit(train)
    tuned_accuracy = evaluator.evaluate(tuned_model.transform(test).select("prediction", "label"))
    print(f"{name}: accuracy {accuracy:.3f}, tuned {tuned_accuracy:.3f}, of {test.count()} images")
    assert "|prediction|label|" in capsys.readouterr().out
    agreed = sum(int(row[label]) for row in crossed.collect() for label in "01" if row[0] == f"{label}.0")
    assert agreed / test.count() == pytest.approx(accuracy)
    assert featurizer.nullCount == 0
    assert min(accuracy, tuned_accuracy) >= 0.7


@pytest.mark.long
def test_bengali_digits(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """github.com/innat/Transfer-Learning-PySpark."""
    folder = shared / "data" / "bangla_digits" / "images"
    # The images of each digit as a DataFrame with its label; all of them merged, dealt anew, and split.
    digits = [dl.readImages(f"{folder}/{digit}").withColumn("label", F.lit(digit)) for digit in range(10)]
    every = reduce(lambda first, second: first.union(second), digits).repartition(
        8
    )  # of few cores; 200 there
    train, test = every.randomSplit([0.8, 0.2], 42)
    # The pipeline.
    featurizer = dl.DeepImageFeaturizer(
        inputCol="image", outputCol="features", **weights_at_hand("MobileNet", shared)
    )
    classifier = LogisticRegression(maxIter=5, regParam=0.03, elasticNetParam=0.5, labelCol="label")
    model = Pipeline(stages=[featurizer, classifier]).fit(train)
    predicted = model.transform(test)
    # The four metrics.
    evaluator = MulticlassClassificationEvaluator()
    names = ("f1", "weightedPrecision", "weightedRecall", "accuracy")
    scores = {name: evaluator.evaluate(predicted, {evaluator.metricName: name}) for name in names}
    # Confusion matrix, report and ROC AUC, by scikit-learn.
    truth = predicted.select("label").toPandas()["label"]
    answers = predicted.select("prediction").toPandas()["prediction"]
    matrix = confusion_matrix(truth, answers, labels=range(10))
    report = classification_report(truth, answers, target_names=[f"Class {digit}" for digit in range(10)])
    binarizer = LabelBinarizer().fit(truth)
    area = roc_auc_score(binarizer.transform(truth), binarizer.transform(answers), average="macro")
    print(scores, report, area, sep="\n")
    # Some predicted samples.
    assert predicted.columns == ["image", "label", "features", "rawPrediction", "probability", "prediction"]
    predicted.select("image", "prediction", "label").show()
    said = capsys.readouterr().out
    assert "|               image|prediction|label|" in said
    assert "{file:" in said
    assert matrix.sum() == len(truth) == test.count()
    assert np.trace(matrix) / matrix.sum() == pytest.approx(scores["accuracy"])
    assert scores["weightedRecall"] == pytest.approx(scores["accuracy"])
    assert scores["accuracy"] >= 0.809  # what the source reports, with InceptionV3 on other digits
    assert area >= 0.89


@pytest.mark.long
def test_digits_on_a_hadoop_filesystem(spark: SparkSession, tmp_path: Path) -> None:
    """Tables of pixels on HDFS, as many keep MNIST; `viewfs:` stands for it here."""
    (tmp_path / "disk").mkdir()
    place = mount(spark, tmp_path / "disk")
    # Written as Parquet.
    digits = load_digits()
    rows = [
        (number, pixels.ravel().tolist(), int(digit))
        for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True))
    ]
    written = spark.createDataFrame(rows[:1000], "number int, pixels array<double>, label int")
    written.repartition(4, "number").write.parquet(f"{place}/digits.parquet")
    assert len(list((tmp_path / "disk" / "digits.parquet").glob("part-*"))) == 4
    # Read by Spark.
    read = spark.read.parquet(f"{place}/digits.parquet")
    assert all(file.startswith("viewfs://digits/data/") for file in read.inputFiles())
    # Converted to Spark's image struct: gray levels from 0 to 16 as bytes.
    struct = "struct<origin: string, height: int, width: int, nChannels: int, mode: int, data: binary>"

    @F.udf(struct)
    def image(number, pixels):
        return f"digits/{number}", 8, 8, 1, 0, bytearray(int(level * 255 / 16) for level in pixels)

    images = read.select(image("number", "pixels").alias("image"), "label")
    # Classified.
    train, test = images.randomSplit([0.8, 0.2], seed=1)
    origins = [{row.origin for row in part.select("image.origin").collect()} for part in (train, test)]
    assert len(origins[0] | origins[1]) == 1000 == sum(map(len, origins))
    featurizer = dl.DeepImageFeaturizer(inputCol="image", outputCol="features", modelName="GlyphNet")
    classifier = LogisticRegression(maxIter=15, regParam=0.005, labelCol="label")
    model = Pipeline(stages=[featurizer, classifier]).fit(train)
    accuracy = MulticlassClassificationEvaluator(metricName="accuracy").evaluate(model.transform(test))
    assert accuracy >= 0.95
