"""Images named by a network with its own head: Keras's names, on Spark as without it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from pyspark.ml import PipelineModel
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame, Row, SparkSession
from sklearn.datasets import load_sample_image

from tests.helpers.models import LITE, ODD_IMAGES, contents_frame, embedded
from tuner.base.errors import NetworkError
from tuner.networks.imagenet import decode_predictions, imagenet_classes
from tuner.serving.imagenet import ImageNetScorer
from tuner.sparkdl.images import read_images
from tuner.sparkdl.predictor import DeepImagePredictor

COLUMNS = {"inputCol": "content", "outputCol": "named"}


@pytest.fixture(scope="module", autouse=True)
def working_folder(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession):
    """Networks that a predictor resolves by itself are stored below the working folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("work")
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A network of one's own with 1,000 probabilities, as a predictor's parameters."""
    keras.utils.set_random_seed(3)
    dense = keras.layers.Dense(1000, "softmax", kernel_initializer=keras.initializers.RandomNormal(0, 3))
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), dense])
    file = tmp_path_factory.mktemp("network") / "small.keras"
    network.save(file)
    return {"modelName": "small", "modelFile": str(file), "inputSize": [8, 8], "preprocessing": "unit"}


def photographs() -> list[bytes]:
    pictures = []
    for name in ("china.jpg", "flower.jpg"):
        buffer = io.BytesIO()
        Image.fromarray(load_sample_image(name)).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    return pictures


def collected(frame: DataFrame, *columns: str) -> list[Row]:
    return sorted(
        frame.select(*columns).collect(), key=lambda row: row.number
    )  # Spark's sort runs it twice


def plain(named: list[Row] | None) -> list[tuple[str, str, float]] | None:
    return named and [tuple(likely) for likely in named]


def check_equal(found: list[list[Row] | None], expected: list[list[tuple[str, str, float]] | None]) -> None:
    """The same classes in the same order, and probabilities within 1e-5."""
    for actual, wanted in zip(map(plain, found), expected, strict=True):
        assert (actual is None) == (wanted is None)
        if actual is not None and wanted is not None:
            assert [likely[:2] for likely in actual] == [likely[:2] for likely in wanted]
            assert [likely[2] for likely in actual] == pytest.approx(
                [likely[2] for likely in wanted], abs=1e-5
            )


# A real network ------------------------------------------------------------------------------------


@pytest.mark.long
@LITE
def test_photographs_get_the_names_of_the_reference_network(spark: SparkSession, shared: Path) -> None:
    """In both columns, and beside the JVM-free path: the same to 1e-5."""
    contents = photographs()
    reference = keras.saving.load_model(shared / "weights" / "efficientnet_lite0_top.keras")
    pixels = [
        keras.utils.img_to_array(
            keras.utils.load_img(io.BytesIO(c), target_size=(224, 224), interpolation="bilinear")
        )
        for c in contents
    ]
    expected = decode_predictions(np.asarray(reference(np.stack(pixels) / 127.5 - 1)), 7)
    predictor = DeepImagePredictor(**COLUMNS, modelName="EfficientNetLite0", topK=7)
    rows = collected(predictor.transform(contents_frame(spark, contents)), "number", "named")
    check_equal([row.named for row in rows], expected)
    assert [likely[1] for likely in expected[0]][:1] == ["bell_cote"]
    assert expected[1][0][:2] == ("n11939491", "daisy")

    answers = ImageNetScorer.of("EfficientNetLite0").answer(contents, 7)
    listed = [[tuple(likely.values()) for likely in row] for row in answers["top_k"]]
    check_equal([row.named for row in rows], listed)

    folder = Path("photographs").absolute()  # Spark keeps the folder that it was started in
    folder.mkdir()
    for number, content in enumerate(contents):
        (folder / f"{number}.png").write_bytes(content)
    predictor.setInputCol("image")
    named = predictor.transform(read_images(str(folder))).orderBy("image.origin").collect()
    check_equal([row.named for row in named], expected)


@pytest.mark.long
@LITE
def test_players_are_named_alike_with_spark_and_without(spark: SparkSession, shared: Path) -> None:
    files = sorted((shared / "data" / "football" / "messi").iterdir())
    contents = [file.read_bytes() for file in files]
    predictor = DeepImagePredictor(**COLUMNS, modelName="EfficientNetLite0", decodePredictions=True)
    rows = collected(predictor.transform(contents_frame(spark, contents)), "number", "named")
    answers = ImageNetScorer.of("EfficientNetLite0").answer(contents, 5)
    check_equal(
        [row.named for row in rows], [[tuple(each.values()) for each in row] for row in answers["top_k"]]
    )
    names = {likely.description for row in rows for likely in row.named}
    assert "soccer_ball" in names


# What comes out ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "listed"),
    [
        ({}, None),
        ({"topK": 3}, 3),
        ({"decodePredictions": True}, 5),
        ({"decodePredictions": True, "topK": 1000}, 1000),
        ({"decodePredictions": False, "topK": 3}, None),
    ],
    ids=str,
)
def test_classes_or_a_vector_as_sparkdl_has_it(
    given: dict[str, object], listed: int | None, spark: SparkSession, small: dict[str, object]
) -> None:
    frame = contents_frame(spark, list(ODD_IMAGES.values()))
    predictor = DeepImagePredictor(**COLUMNS, **small, **given)
    made = predictor.transform(frame)
    rows = [row.named for row in collected(made, "number", "named")]
    scorer = ImageNetScorer(predictor.network(), threads=1)
    expected = np.stack(scorer.answer(list(ODD_IMAGES.values()))["probability"].to_list())
    if listed is None:
        assert made.schema["named"].dataType == VectorUDT()
        np.testing.assert_allclose([row.toArray() for row in rows], expected, atol=1e-5)
        return
    kind = made.schema["named"].dataType.simpleString()
    assert kind == "array<struct<class:string,description:string,probability:float>>"
    assert {len(row) for row in rows} == {listed}
    by_class = [
        {wnid: value for (wnid, _), value in zip(imagenet_classes(), row, strict=True)} for row in expected
    ]
    for row, wanted in zip(rows, by_class, strict=True):
        assert [likely.probability for likely in row] == pytest.approx(
            sorted(wanted.values(), reverse=True)[:listed], abs=1e-5
        )
        assert [wanted[likely["class"]] for likely in row] == pytest.approx(
            [likely.probability for likely in row], abs=1e-5
        )
        assert {(likely["class"], likely.description) for likely in row} <= set(imagenet_classes())


@pytest.mark.parametrize("top_k", [None, 2])
def test_rows_without_an_image_give_a_null_counted_and_explained(
    top_k: int | None, spark: SparkSession, small: dict[str, object]
) -> None:
    contents = [ODD_IMAGES["GIF"], None, b"", b"no image", ODD_IMAGES["GIF"]]
    predictor = DeepImagePredictor(**COLUMNS, **small, topK=top_k, errorCol="reason", batchSize=2)
    rows = collected(predictor.transform(contents_frame(spark, contents)), "number", "named", "reason")
    assert [row.named is None for row in rows] == [False, True, True, True, False]
    assert [row.reason for row in rows] == [
        *(None, "empty file", "empty file", "not an image of a known format", None)
    ]
    assert predictor.nullCount == 3
    nobody = predictor.transform(contents_frame(spark, [None, b""]))
    assert [row.named for row in nobody.collect()] == [None, None]


# What cannot work ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"modelName": None}, r"^DeepImagePredictor needs modelName, such as"),
        ({"topK": 0}, r"^topK is the number of classes to name, 1 to 1000, not 0\.$"),
        ({"topK": 1001}, r"1 to 1000, not 1001"),
        (
            {"modelName": "GlyphNet"},
            r"^GlyphNet was not trained on ImageNet, .* such as EfficientNetLite0\.$",
        ),
        ({"modelName": "EficientNetLite0"}, r"no network EficientNetLite0: did you mean EfficientNetLite0"),
        ({"precision": "half"}, r"precision of DeepImagePredictor is 'half'"),
        ({"inputCol": "number"}, r"column number is int, and DeepImagePredictor reads binary"),
        ({"outputCol": "content"}, r"column content, which DeepImagePredictor would make"),
    ],
)
def test_wrong_parameters_are_refused_in_a_sentence(
    params: dict[str, object], sentence: str, spark: SparkSession
) -> None:
    frame = contents_frame(spark, [b""])
    given = {**COLUMNS, "modelName": "EfficientNetLite0", "topK": 5} | params
    with pytest.raises(Exception, match=sentence) as caught:
        DeepImagePredictor(**given).transform(frame)
    assert type(caught.value).__module__ == "tuner.base.errors"
    assert "\n" not in str(caught.value)


def test_a_network_without_a_head_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    network = embedded(tmp_path)
    own = DeepImagePredictor(
        **COLUMNS, modelName="mine", modelFile=network.file, inputSize=[32, 32], preprocessing="unit"
    )
    for predictor in (own, DeepImagePredictor.from_network(network, **COLUMNS)):
        with pytest.raises(
            NetworkError, match=r"gives 192 numbers an image, and ImageNet has 1000 classes"
        ):
            predictor.transform(contents_frame(spark, [b""]))


# Saved and loaded ----------------------------------------------------------------------------------

ELSEWHERE = """
import json, sys
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
asked = json.load(sys.stdin)
rows = [(number, bytes.fromhex(content)) for number, content in enumerate(asked["contents"])]
frame = spark.createDataFrame(rows, "number int, content binary")
named = PipelineModel.load(asked["path"]).transform(frame).orderBy("number").collect()
print(json.dumps([[tuple(likely) for likely in row.named] for row in named]))
"""


@pytest.mark.long
def test_a_saved_pipeline_names_the_same_in_a_fresh_process_elsewhere(
    spark: SparkSession, small: dict[str, object], tmp_path: Path
) -> None:
    contents = list(ODD_IMAGES.values())
    predictor = DeepImagePredictor(**COLUMNS, **small, topK=4, transparent="black")
    PipelineModel([predictor]).write().save(str(tmp_path / "saved"))
    (part,) = (tmp_path / "saved" / "stages").glob("*/metadata/part-*")
    assert json.loads(part.read_text())["class"] == "tuner.sparkdl.predictor.DeepImagePredictor"
    assert str(small["modelFile"]) not in part.read_text()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input=json.dumps({"path": str(tmp_path / "saved"), "contents": [c.hex() for c in contents]}),
        cwd=elsewhere,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.splitlines()[-1])
    here = collected(predictor.transform(contents_frame(spark, contents)), "number", "named")
    check_equal([row.named for row in here], [[tuple(each) for each in row] for row in there])


def test_a_copy_that_is_loaded_here_is_the_same(small: dict[str, object], tmp_path: Path) -> None:
    predictor = DeepImagePredictor(**COLUMNS, **small, topK=4)
    predictor.write().save(str(tmp_path / "saved"))
    loaded = DeepImagePredictor.load(str(tmp_path / "saved"))
    assert loaded.uid == predictor.uid
    assert loaded.getOrDefault("topK") == 4
    assert not loaded.isDefined("decodePredictions")
    assert loaded.network().digest == predictor.network().digest
