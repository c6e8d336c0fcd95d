"""A Keras model as a SQL function: what the model itself gives, of image structs and of files' bytes."""

from pathlib import Path

import keras
import numpy as np
import pytest
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, SparkSession

from tests.helpers.models import ODD_IMAGES
from tuner.base.errors import ModelError, NetworkError
from tuner.images.decoding import decode_image, resize
from tuner.sparkdl.images import read_images
from tuner.sparkdl.keras_function import registerKerasImageUDF


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models are stored below the working folder."""
    monkeypatch.chdir(tmp_path)


def file_name(name: str) -> str:
    return f"{name.replace(' ', '_')}.bin"


@pytest.fixture
def images(spark: SparkSession, tmp_path: Path) -> DataFrame:
    """A view of image structs, one of which is no image; sorted by their origin."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, content in (ODD_IMAGES | {"~bad": b"no image"}).items():
        (folder / file_name(name)).write_bytes(content)
    frame = read_images(str(folder))
    frame.createOrReplaceTempView("odd_images")
    return frame


def model(*, flat: bool = True) -> keras.Model:
    keras.utils.set_random_seed(1)
    last = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4, "softmax")]
    return keras.Sequential(
        [
            keras.Input((8, 6, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(5, 3),
            *(last if flat else []),
        ]
    )


def expected(network: keras.Model) -> np.ndarray:
    """What the model gives for the images, resized, in the order of their names."""
    names = sorted(ODD_IMAGES, key=file_name)
    pixels = np.stack([resize(decode_image(ODD_IMAGES[name]), (8, 6)) for name in names])
    return np.asarray(network(pixels.astype(np.float32))).reshape(len(names), -1)


def answers(spark: SparkSession, call: str) -> list[list[float] | None]:
    rows = spark.sql(f"SELECT {call} AS made FROM odd_images ORDER BY image.origin").collect()
    return [row.made for row in rows]


@pytest.mark.parametrize(
    "given",
    [
        "model",
        pytest.param("model.keras", marks=pytest.mark.long),
        pytest.param("model.h5", marks=pytest.mark.long),
    ],
)
def test_a_model_gives_what_it_gives_in_keras(
    given: str, spark: SparkSession, images: DataFrame, tmp_path: Path
) -> None:
    network = model()
    if given != "model":
        network.save(tmp_path / given)
    function = registerKerasImageUDF("classify", network if given == "model" else str(tmp_path / given))
    *found, bad = answers(spark, "classify(image)")
    assert bad is None
    np.testing.assert_allclose(found, expected(network), atol=1e-5)
    of_column = [
        row.made for row in images.orderBy("image.origin").select(function("image").alias("made")).collect()
    ]
    np.testing.assert_allclose(of_column[:-1], found, atol=1e-6)  # in other batches
    assert of_column[-1] is None


def test_bytes_are_taken_as_well(spark: SparkSession, images: DataFrame, tmp_path: Path) -> None:
    network = model()
    registerKerasImageUDF("of_bytes", network)
    files = spark.read.format("binaryFile").load(str(tmp_path / "images"))
    files.selectExpr("content AS image", "path").createOrReplaceTempView("bytes_of_images")
    rows = spark.sql("SELECT of_bytes(image) AS made FROM bytes_of_images ORDER BY path").collect()
    np.testing.assert_allclose([row.made for row in rows[:-1]], expected(network), atol=1e-5)
    assert rows[-1].made is None


def test_a_map_is_flattened(spark: SparkSession, images: DataFrame) -> None:
    network = model(flat=False)
    registerKerasImageUDF("map_of", network)
    *found, _ = answers(spark, "map_of(image)")
    assert len(found[0]) == 6 * 4 * 5
    np.testing.assert_allclose(found, expected(network), atol=1e-5)


def test_a_preprocessor_makes_the_input_of_a_file(spark: SparkSession, images: DataFrame) -> None:
    def load(path: str) -> np.ndarray:
        picture = keras.utils.load_img(path, target_size=(8, 6), interpolation="bilinear")
        return keras.utils.img_to_array(picture)[None] / 255

    network = model()
    network.layers[0].scale = 1.0  # the preprocessor scales
    registerKerasImageUDF("_preprocessed", network, load)
    *found, bad = answers(spark, "_preprocessed(image)")
    assert bad is None
    np.testing.assert_allclose(found, expected(model()), atol=1e-5)


def test_a_preprocessor_of_another_size_is_a_sentence(spark: SparkSession, images: DataFrame) -> None:
    registerKerasImageUDF("wrong", model(), lambda _: np.zeros((9, 9, 3)))
    with pytest.raises(
        PythonException, match=r"preprocessor of wrong gives an array of shape \(9, 9, 3\), and"
    ):
        answers(spark, "wrong(image)")


def lambda_model(folder: Path) -> Path:
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda pixels: pixels * 2)])
    network.save(folder / "lambda.keras")
    return folder / "lambda.keras"


def two_inputs(_: Path) -> keras.Model:
    inputs = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    return keras.Model(inputs, keras.layers.Add()(inputs))


def any_size(_: Path) -> keras.Model:
    return keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda _: "gone.h5", r"^There is no Keras model gone\.h5: check the path\.$"),
        (lambda_model, r"lambda\.keras cannot be loaded: .*[Ll]ambda"),
        (two_inputs, r"takes .* it must have one input of images of a stated size"),
        (
            any_size,
            r"for refused takes \(None, None, None, 3\): it must have one input of images of a stated",
        ),
    ],
)
def test_what_is_no_model_of_images_is_a_sentence(
    make, sentence: str, spark: SparkSession, tmp_path: Path
) -> None:
    with pytest.raises(NetworkError, match=sentence):
        registerKerasImageUDF("refused", make(tmp_path))
    with pytest.raises(ModelError, match="'two words' is not a name for a SQL function"):
        registerKerasImageUDF("two words", model())
