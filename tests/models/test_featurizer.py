import io
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from PIL import Image
from pyspark.ml import PipelineModel
from pyspark.ml.linalg import DenseVector, VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tests.helpers.models import ODD_IMAGES
from tuner.base.choices import Decoding, Preprocessing
from tuner.base.errors import ImageSourceError, NetworkError, TunerError
from tuner.experiment.networks import NetworkSpec
from tuner.extraction.udf import worker_threads
from tuner.models.featurizer import DeepImageFeaturizer
from tuner.networks.inference import content_reader, featurize
from tuner.networks.resolution import Network, load_network, resolve_network
from tuner.networks.store import NetworkStore
from tuner.spark.sessions import machine_cores


@pytest.fixture(scope="module", autouse=True)
def working_folder(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession):
    """The networks that a featurizer resolves by itself are stored below the working folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("work")
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def glyphnet(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return resolve_network(
        NetworkSpec(name="GlyphNet"), "float32", NetworkStore(tmp_path_factory.mktemp("store"))
    )


def png(seed: int, width: int = 60, height: int = 40) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def contents() -> list[bytes | None]:
    """Images of several shapes, a null, an empty file, one that is no image, a truncated one."""
    return [png(0), png(1, 31, 90), None, png(2, 32, 32), b"", b"no image", png(3)[:-40], png(4)]


@pytest.fixture(scope="module")
def table(spark: SparkSession, contents: list[bytes | None]) -> DataFrame:
    rows = list(enumerate(contents))
    return spark.createDataFrame(rows, "id int, content binary").repartition(3)


def collected(frame: DataFrame, *columns: str) -> list[object]:
    rows = frame.select("id", *columns).collect()
    return [tuple(row[1:]) if len(columns) > 1 else row[1] for row in sorted(rows)]


def keras_features(content: bytes, backbone: Network, file: Path) -> np.ndarray:
    """As Keras's own documentation has it: load_img, preprocess_input, model."""
    size = backbone.input_size
    image = keras.utils.load_img(io.BytesIO(content), target_size=size, interpolation="bilinear")
    pixels = keras.utils.img_to_array(image)[None]
    if backbone.preprocessing in ("tf", "caffe", "torch"):
        pixels = keras.applications.imagenet_utils.preprocess_input(pixels, mode=backbone.preprocessing)
    elif backbone.preprocessing == "unit":
        pixels = pixels / 255
    return np.asarray(keras.saving.load_model(file)(pixels))[0]


def assert_close(actual: object, expected: np.ndarray) -> None:
    assert isinstance(actual, DenseVector)
    values = actual.toArray()
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


# Features


@pytest.mark.parametrize(
    "mode",
    ["tf", *(pytest.param(mode, marks=pytest.mark.long) for mode in ("caffe", "unit", "torch", "none"))],
)
def test_features_of_contents_equal_those_of_keras(
    mode: Preprocessing, table: DataFrame, contents: list[bytes], glyphnet: Network
) -> None:
    featurizer = DeepImageFeaturizer(
        inputCol="content",
        outputCol="features",
        modelName="GlyphNet",
        modelFile=glyphnet.file,
        inputSize=[32, 32],
        preprocessing=mode,
        batchSize=2,
    )
    frame = featurizer.transform(table)
    assert frame.schema["features"].dataType == VectorUDT()
    found = collected(frame, "features")
    backbone = featurizer.network()
    for position in (0, 1, 3, 7):
        assert_close(found[position], keras_features(contents[position], backbone, Path(glyphnet.file)))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "mode"),
    [("mobilenet_pw12", "tf"), ("squeezenet", "caffe")],
)
def test_features_of_real_networks_equal_those_of_keras_from_both_columns(
    name: str, mode: str, spark: SparkSession, shared: Path
) -> None:
    file, folder = shared / "weights" / f"{name}.keras", shared / "data/bangla_digits/images/3"
    paths = sorted(folder.iterdir())[:3]
    featurizer = DeepImageFeaturizer(
        inputCol="content",
        outputCol="features",
        modelName=name,
        modelFile=str(file),
        inputSize=[224, 224],
        preprocessing=mode,
    )
    expected = [keras_features(path.read_bytes(), featurizer.network(), file) for path in paths]
    binary = spark.createDataFrame(
        [(i, p.read_bytes()) for i, p in enumerate(paths)], "id int, content binary"
    )
    structs = spark.read.format("image").load([path.as_uri() for path in paths])
    structs = structs.withColumn("id", F.element_at(F.split("image.origin", "/"), -1))
    for frame, column in ((binary, "content"), (structs, "image")):
        featurizer.set(featurizer.inputCol, column)
        for actual, wanted in zip(
            collected(featurizer.transform(frame), "features"), expected, strict=True
        ):
            assert_close(actual, wanted)


def test_bfloat16_is_recorded_and_gives_near_but_other_features(table: DataFrame) -> None:
    exact = DeepImageFeaturizer(inputCol="content", outputCol="features", modelName="GlyphNet")
    rough = exact.copy({exact.precision: "bfloat16"})
    assert rough.network().precision == "bfloat16"
    assert rough.getOrDefault("precision") == "bfloat16"
    first, second = (collected(f.transform(table), "features")[0].toArray() for f in (exact, rough))
    assert 1e-5 < np.linalg.norm(first - second) / np.linalg.norm(first) < 0.05


# Rows without features


@pytest.fixture
def simple(glyphnet: Network) -> DeepImageFeaturizer:
    return DeepImageFeaturizer.from_network(glyphnet, inputCol="content", outputCol="features")


def test_rows_without_an_image_give_a_null_counted_and_explained(
    simple: DeepImageFeaturizer, table: DataFrame
) -> None:
    simple.set(simple.errorCol, "reason")
    assert simple.nullCount == 0
    rows = collected(simple.transform(table), "features", "reason")
    assert [features is None for features, _ in rows] == [0, 0, 1, 0, 1, 1, 1, 0]
    assert [reason is None for _, reason in rows] == [1, 1, 0, 1, 0, 0, 0, 1]
    assert rows[2][1] == "empty file"
    assert rows[5][1] == "not an image of a known format"
    assert simple.nullCount == 4


def test_each_image_goes_through_the_network_once_for_several_uses(
    simple: DeepImageFeaturizer, table: DataFrame
) -> None:
    simple.set(simple.errorCol, "reason")
    frame = (
        simple.transform(table).where("features is not null or reason <> 'x'").select("features", "reason")
    )
    assert len(frame.collect()) == 8
    assert simple.nullCount == 4  # a filter below the network would have made it eight


@pytest.mark.parametrize(("kept", "number"), [("keep", np.nan), ("infinity", np.inf)])
def test_kept_rows_are_vectors_of_no_number(
    kept: str, number: float, simple: DeepImageFeaturizer, table: DataFrame
) -> None:
    simple.set(simple.handleInvalid, kept)
    vectors = [vector.toArray() for vector in collected(simple.transform(table), "features")]
    assert {vector.shape for vector in vectors} == {(192,)}
    unknown = np.full(192, number)
    assert [np.array_equal(vector, unknown, equal_nan=True) for vector in vectors] == [
        0,
        0,
        1,
        0,
        1,
        1,
        1,
        0,
    ]


def test_null_and_damaged_image_structs_give_a_null(
    spark: SparkSession, simple: DeepImageFeaturizer
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8).tobytes()
    rows = [
        (0, ("a", 4, 5, 3, 16, bytearray(pixels))),
        (1, None),
        (2, ("b", 4, 5, 3, 16, bytearray(pixels[:-1]))),
        (3, ("", -1, -1, -1, -1, bytearray())),  # Spark's own mark of an image that it could not read
        (4, ("c", 4, None, 3, 16, None)),
    ]
    image = "struct<origin:string,height:int,width:int,nChannels:int,mode:int,data:binary>"
    frame = spark.createDataFrame(rows, f"id int, content {image}").coalesce(1)
    assert [v is None for v in collected(simple.transform(frame), "features")] == [0, 1, 1, 1, 1]
    assert simple.nullCount == 4


def test_a_table_without_rows_gives_none(simple: DeepImageFeaturizer, table: DataFrame) -> None:
    assert simple.transform(table.where("id < 0")).collect() == []


OPTIONS = [{}, {"transparent": "black"}, {"maxValue": 4095.0}, {"transparent": "black", "maxValue": 100.0}]


@pytest.mark.long
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_images_are_decoded_as_without_spark_whatever_the_options(
    options: dict[str, object], spark: SparkSession, glyphnet: Network, tmp_path: Path
) -> None:
    featurizer = DeepImageFeaturizer(
        inputCol="content", outputCol="features", modelName="GlyphNet", **options
    )
    featurizer.write().overwrite().save(str(tmp_path / "saved"))
    featurizer = DeepImageFeaturizer.load(str(tmp_path / "saved"))
    network = featurizer.network()
    assert network.decoding == Decoding(options.get("transparent", "white"), options.get("maxValue"))
    images = list(ODD_IMAGES.values())
    frame = spark.createDataFrame(list(enumerate(images)), "id int, content binary").coalesce(1)
    found = [vector.toArray() for vector in collected(featurizer.transform(frame), "features")]
    compute = load_network(network, Path(network.file), 1)
    expected = [features for features, _ in featurize(images, content_reader(network), compute, 64)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    if options:
        usual = [features for features, _ in featurize(images, content_reader(glyphnet), compute, 64)]
        assert not np.allclose(found, usual, atol=1e-3)


# Parameters


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"modelName": None}, r"needs modelName, such as"),
        ({"modelName": "GlyphNut"}, r"no network GlyphNut: did you mean GlyphNet"),
        ({"precision": "float16"}, r"precision .* 'float16': it must be one of float32, bfloat16"),
        ({"preprocessing": "half"}, r"preprocessing .* 'half': it must be one of tf, caffe"),
        ({"handleInvalid": "skip"}, r"handleInvalid .* 'skip': it must be one of null, keep, infinity"),
        ({"transparent": "gray"}, r"transparent .* 'gray': it must be one of white, black"),
        ({"pooling": "sum"}, r"pooling .* 'sum': it must be one of avg, max, none"),
        ({"pooling": "max"}, r"GlyphNet gives one vector an image, .* leave out its pooling"),
        ({"maxValue": 0.0}, r"maxValue .* 0\.0: it must be more than 0"),
        ({"batchSize": 0}, r"batchSize .* 0: it must be 1 or more"),
        ({"inputSize": [32]}, r"input_size"),
        ({"seed": -1}, r"seed"),
        ({"modelFile": "x.keras"}, r"input_size and preprocessing must be stated"),
        ({"modelFile": "x.keras", "inputSize": [9, 9], "preprocessing": "tf"}, r"no file x\.keras"),
        ({"weights": "nowhere.h5"}, r"no weights file nowhere\.h5"),
        ({"inputCol": None}, r"needs inputCol"),
        ({"inputCol": "picture"}, r"no column picture .* there are id, content, pair"),
        ({"inputCol": "id"}, r"column id is int.* binary file contents or Spark's image struct"),
        ({"inputCol": "pair"}, r"column pair is struct"),
        ({"outputCol": "content"}, r"column content, .* exists already"),
        ({"errorCol": "id"}, r"column id, .* exists already"),
    ],
)
def test_wrong_parameters_are_refused_in_a_sentence_without_a_job(
    params: dict[str, object], sentence: str, table: DataFrame, spark: SparkSession
) -> None:
    frame = table.withColumn("pair", F.struct("id", "content"))
    given = {"inputCol": "content", "outputCol": "features", "modelName": "GlyphNet"} | params
    spark.sparkContext.setJobGroup("checks", "no job is to be seen here")
    with pytest.raises(TunerError, match=sentence) as caught:
        DeepImageFeaturizer(**given).transform(frame)
    assert spark.sparkContext.statusTracker().getJobIdsForGroup("checks") == []
    spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)
    assert isinstance(caught.value, NetworkError | ImageSourceError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("params", [{"batchSize": "many"}, {"inputSize": "big"}, {"embedWeights": 3}])
def test_parameters_of_another_type_are_refused_by_name(params: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=next(iter(params))):
        DeepImageFeaturizer(**params)


def test_threads_times_workers_are_the_cores(spark: SparkSession) -> None:
    slots = spark.sparkContext.defaultParallelism
    assert worker_threads(spark) == max(1, machine_cores() // slots)


# Saved and loaded

ELSEWHERE = """
import json, os, sys
import mlflow
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
asked = json.load(sys.stdin)
mlflow.set_tracking_uri(asked["tracking"])
rows = [(i, bytes.fromhex(c) if c is not None else None) for i, c in enumerate(asked["contents"])]
table = spark.createDataFrame(rows, "id int, content binary").repartition(2)

def features(path):
    frame = PipelineModel.load(path).transform(table)
    return [row.features and row.features.toArray().tolist() for row in sorted(frame.collect())]

def opened(batches):
    import pyarrow as pa
    from tuner.networks.resolution import _open_once
    from tuner.networks.store import NetworkStore
    list(batches)
    seen = _open_once.cache_info()
    yield pa.RecordBatch.from_pydict({"pid": [os.getpid()], "misses": [seen.misses], "hits": [seen.hits]})

carried = features(asked["carried"])
workers = spark.range(1).coalesce(1).mapInArrow(opened, "pid long, misses long, hits long").collect()
print(json.dumps({"carried": carried, "light": features(asked["light"]), "workers": workers}))
"""


@pytest.mark.long
def test_a_saved_pipeline_gives_the_same_in_a_fresh_process_elsewhere(
    glyphnet: Network, table: DataFrame, contents: list[bytes | None], tmp_path: Path
) -> None:
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking)
    run = client.create_run(client.create_experiment("networks", (tmp_path / "runs").as_uri()))
    client.log_artifact(run.info.run_id, glyphnet.file, "networks")
    uri = f"runs:/{run.info.run_id}/networks/{Path(glyphnet.file).name}"

    params = {"inputCol": "content", "outputCol": "features"}
    saved = {"carried": {"embedWeights": True}, "light": {"embedWeights": False, "modelUri": uri}}
    for name, further in saved.items():
        featurizer = DeepImageFeaturizer.from_network(glyphnet, **params, **further)
        PipelineModel([featurizer]).write().save(str(tmp_path / name))
    weights = {name: len(list((tmp_path / name).rglob("*.keras"))) for name in saved}
    assert weights == {"carried": 1, "light": 0}
    assert str(glyphnet.file) not in "".join(
        part.read_text() for part in (tmp_path / "carried").rglob("part-*")
    )

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    asked = {name: str(tmp_path / name) for name in saved} | {
        "tracking": tracking,
        "contents": [content.hex() if content is not None else None for content in contents],
    }
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        input=json.dumps(asked),
        cwd=elsewhere,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    expected = collected(DeepImageFeaturizer.from_network(glyphnet, **params).transform(table), "features")
    for name in saved:
        assert [row is None for row in answer[name]] == [row is None for row in expected]
        for actual, wanted in zip(answer[name], expected, strict=True):
            if wanted is not None:
                np.testing.assert_allclose(actual, wanted.toArray(), rtol=1e-5, atol=1e-6)
    # One worker, several tasks: the network was opened once. The light model's stayed in the store.
    ((_, misses, hits),) = answer["workers"]
    assert misses == 1
    assert hits >= 1
    assert (elsewhere / ".tuner/networks" / Path(glyphnet.file).name).is_file()


def test_a_network_that_is_nowhere_is_a_sentence(
    glyphnet: Network, table: DataFrame, tmp_path: Path
) -> None:
    params = {"inputCol": "content", "outputCol": "features", "embedWeights": False}
    lost, gone = (
        DeepImageFeaturizer.from_network(glyphnet, **params, **further)
        for further in ({}, {"modelUri": str(tmp_path / "gone.keras")})
    )
    for featurizer in (lost, gone):
        featurizer.set(featurizer.modelDigest, "0" * 64)
        featurizer.carried = None  # as it is when one was loaded that carries no network
    with pytest.raises(NetworkError, match=r"neither in the saved model nor in .*embedWeights=True"):
        lost.transform(table)
    with pytest.raises(NetworkError, match=r"cannot be fetched from .*gone\.keras"):
        gone.transform(table)
