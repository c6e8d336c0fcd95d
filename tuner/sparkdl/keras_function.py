"""`registerKerasImageUDF`: a Keras model of images as a SQL function, under sparkdl's name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql.pandas.functions import arrow_udf

from tuner.base.errors import NetworkError
from tuner.base.wording import first_sentence
from tuner.experiment.networks import NetworkSpec
from tuner.extraction.udf import check_function_name, open_on_worker, ship_network, worker_threads
from tuner.images.decoding import decode_image, struct_to_image
from tuner.networks.files import import_keras
from tuner.networks.inference import BATCH_SIZE, Read, content_reader, featurize, struct_reader
from tuner.networks.resolution import Network, resolve_network
from tuner.networks.store import NetworkStore

if TYPE_CHECKING:
    import keras

Preprocessor = Callable[[str], np.ndarray]


def registerKerasImageUDF(
    udf_name: str,
    keras_model_or_file_path: keras.Model | str | Path,
    preprocessor: Preprocessor | None = None,
) -> Any:
    """Register a Keras model as a SQL function of a column of images.

    The function gives what the model gives, flattened, as an array of floats; a null of what is no image.
    It takes Spark's image struct or the bytes of image files. The model gets RGB pixels from 0 to 255 as
    float32, resized to its input by Pillow's bilinear filter, so that it has to scale them itself, unless
    the preprocessor does.

    Parameters
    ----------
    udf_name
        The function's name: ``SELECT classify(image) FROM images``.
    keras_model_or_file_path
        A `keras.Model` of one input, ``(n, height, width, 3)`` with height and width stated, and of one
        output; or the path of a `.keras` or `.h5` file that holds one, without `Lambda` layers.
    preprocessor
        Makes the model's input of the path of a PNG file: an array of shape (height, width, 3), float32 or
        of whole numbers. Images are resized and scaled by it alone. It runs on the workers.

    Returns
    -------
    The same function for columns of a DataFrame.

    Raises
    ------
    ModelError
        The function's name is none.
    NetworkError
        The model cannot be loaded safely, or takes or gives something else.
    """
    check_function_name(udf_name)
    spark = SparkSession.getActiveSession() or SparkSession.builder.getOrCreate()
    network = _stored(udf_name, keras_model_or_file_path)
    ship_network(spark, network)
    threads = worker_threads(spark)

    def run(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        compute = open_on_worker(network, threads)
        folder: AbstractContextManager[str | None] = (
            tempfile.TemporaryDirectory() if preprocessor is not None else nullcontext()
        )
        with folder as place:
            for batch in batches:
                structs = pa.types.is_struct(batch.type)
                read = struct_reader(network) if structs else content_reader(network)
                if preprocessor is not None and place is not None:
                    read = _preprocessed(
                        udf_name, preprocessor, network.input_size, Path(place, "image.png")
                    )
                images = (value.as_py() for value in batch)
                rows = featurize(images, read, compute, BATCH_SIZE)
                yield pa.array([values for values, _ in rows], pa.list_(pa.float32()))

    function: Any = arrow_udf(run, "array<float>")  # type: ignore[call-overload]
    return spark.udf.register(udf_name, function)


def _stored(name: str, given: keras.Model | str | Path) -> Network:
    """Put a model, with its output flattened, where the workers find it."""
    keras = import_keras()
    model = _loaded(given) if isinstance(given, str | Path) else given
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise NetworkError(
            f"The Keras model for {name} takes {shape}: it must have one input of images of a stated size, "
            "(height, width, 3)."
        )
    if isinstance(model.output_shape, tuple) and len(model.output_shape) != 2:
        model = keras.Sequential([keras.Input(shape[1:]), model, keras.layers.Flatten()])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.keras")
        model.save(file)
        spec = NetworkSpec(name="KerasModel", file=file, input_size=shape[1:3], preprocessing="none")
        return resolve_network(spec, "float32", NetworkStore())


def _loaded(file: str | Path) -> keras.Model:
    keras = import_keras()
    if not Path(file).is_file():
        raise NetworkError(f"There is no Keras model {file}: check the path.")
    try:
        return keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # a file from outside can fail in any way
        reason = first_sentence(str(error).rpartition("Exception encountered: ")[2])
        raise NetworkError(f"The Keras model {file} cannot be loaded: {reason}.") from error


def _preprocessed(name: str, preprocessor: Preprocessor, size: tuple[int, int], file: Path) -> Read:
    """Read an image as the preprocessor does, which wants a file."""

    def read(image: Mapping[str, Any] | bytes | None) -> np.ndarray:
        pixels = struct_to_image(image) if isinstance(image, Mapping) else decode_image(image)
        Image.fromarray(pixels).save(file)
        made = np.asarray(preprocessor(str(file)), np.float32)
        made = made[0] if made.ndim == 4 and len(made) == 1 else made  # a batch of one, as for `predict`
        if made.shape != (*size, 3):
            raise NetworkError(
                f"The preprocessor of {name} gives an array of shape {made.shape}, and its model takes "
                f"{(*size, 3)}: let it resize to that."
            )
        return made

    return read
