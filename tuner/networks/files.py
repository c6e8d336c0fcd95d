"""Files of networks: a Keras file or a SavedModel → a function from pixels to features."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tuner.base.choices import Pooling, Precision
from tuner.base.errors import NetworkError
from tuner.base.files import files_of
from tuner.base.wording import VERBOSE, first_sentence

FeatureFunction = Callable[[np.ndarray], np.ndarray]
# With all weights as constants, ResNet50's first call takes three seconds and a gigabyte more.
_CONSTANT_VALUES = 16 * 2**10

_SIGNATURE = "serving_default"  # of a SavedModel: what it is to do for whoever serves it

# TensorFlow's libraries write these whatever the settings, on every machine without a GPU.
_NOTICES = (
    "oneDNN custom operations are on",
    "All log messages before absl::InitializeLog",
    "Could not find cuda drivers",
    "failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)",
)


def import_keras() -> ModuleType:
    """Import Keras on TensorFlow; the first time takes seconds, and is kept silent."""
    import_tensorflow()
    _look_for_devices()
    return sys.modules["keras"]


def import_tensorflow() -> None:
    """Import TensorFlow and Keras, and start nothing: a process that forks later may do this."""
    if not {"keras", "tensorflow"} <= sys.modules.keys():
        os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings and errors are still shown
        with _without_notices():
            import keras  # noqa: F401
            import tensorflow  # noqa: F401


def import_tensorflow_lightly() -> None:
    """Do so in a process of tuner's own, without the libraries that Keras draws and wraps with.

    It imports them where they are installed, for a third of the time, and needs none of them to compute.
    """
    absent = [name for name in ("matplotlib", "sklearn") if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # an import fails, as if it were not installed
    try:
        import_tensorflow()
    finally:
        for name in absent:
            del sys.modules[name]


@lru_cache(maxsize=1)
def _look_for_devices() -> None:
    """Look for GPUs now, not at the first image; a process does so once, and after it was forked.

    A GPU's memory is taken as it is needed, not all at once: other workers may be on it.
    """
    import tensorflow as tf

    with _without_notices():
        for gpu in tf.config.list_physical_devices("GPU"):
            with suppress(RuntimeError):  # it computes already, for somebody else in this process
                tf.config.experimental.set_memory_growth(gpu, True)


def sees_gpu() -> bool:
    """Whether TensorFlow sees a GPU in this process."""
    import_keras()
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@contextmanager
def _without_notices() -> Iterator[None]:
    """Hold back what is written to stderr, C++ included, and pass on all but the notices."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            shown = VERBOSE in os.environ
            for line in held.read().decode(errors="replace").splitlines(keepends=True):
                if shown or not any(notice in line for notice in _NOTICES):
                    sys.stderr.write(line)


def limit_threads(threads: int) -> None:
    """Give TensorFlow this many threads, unless it runs already: then it keeps what it has."""
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:  # TensorFlow sizes its pools once, when it first computes
        return


def open_network(
    file: Path, input_size: tuple[int, int], precision: Precision, pooling: Pooling = "avg"
) -> FeatureFunction:
    """Open a network without running anything that it brings along but its graph.

    Parameters
    ----------
    file : Path
        A ``.keras`` file, a SavedModel folder, or the zip that `pack_saved_model` makes of one.
    input_size : tuple of int
        Height and width in pixels.
    precision : {"float32", "bfloat16"}
        What the layers compute in; the features are float32 in any case.
    pooling : {"avg", "max", "none"}
        What becomes of an output of four dimensions: its average or maximum over height and width, or all
        of it, flattened row by row with the channels last.

    Returns
    -------
    Callable
        ``(n, height, width, 3)`` float32, preprocessed → ``(n, width)`` float32.

    Raises
    ------
    NetworkError
        The file is missing, cannot be loaded safely, or takes or gives something else.
    """
    features, width = feature_graph(file, input_size, precision, pooling)
    import tensorflow as tf

    def run(images: np.ndarray) -> np.ndarray:
        if len(images) == 0:  # TensorFlow's oneDNN kernels fail on a batch of none
            return np.empty((0, width), np.float32)
        return np.asarray(features(tf.constant(images, tf.float32)))

    return run


def feature_graph(
    file: Path, input_size: tuple[int, int], precision: Precision, pooling: Pooling = "avg"
) -> tuple[Any, int]:
    """Give the `tf.function` that `open_network` runs, and its width; parameters and errors as there."""
    import_keras()
    if not file.exists():
        raise NetworkError(f"There is no network {file}: check the path.")
    check_precision(file, precision)
    if file.suffix != ".keras":
        return _traced(open_saved_model(file), file, input_size, pooling)
    network = _with_constants(open_keras(file, input_size, precision))
    return _traced(network, file, input_size, pooling)


def check_precision(file: Path, precision: Precision) -> None:
    """Refuse bfloat16 for a SavedModel: its graph is fixed, so it would compute in float32."""
    if precision == "bfloat16" and file.suffix != ".keras":
        raise NetworkError(
            f"The network {file} is a SavedModel, whose precision is fixed: set precision: float32, "
            "or save the network as a .keras file."
        )


def open_keras(file: Path, input_size: tuple[int, int], precision: Precision) -> Any:
    """Open a ``.keras`` file as a `keras.Model`, in safe mode; parameters and errors as `open_network`."""
    keras = import_keras()
    try:
        network = keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # a file from outside can fail in any way
        if "Lambda" in str(error):
            raise NetworkError(
                f"The network {file} has a Lambda layer, which holds Python code and is not loaded: "
                "build it from Keras's own layers."
            ) from error
        # Keras tells what could not be rebuilt from the outside in: the cause comes last.
        reason = first_sentence(str(error).rpartition("Exception encountered: ")[2])
        raise NetworkError(f"The network {file} cannot be loaded as a Keras file: {reason}.") from error
    _check_input(network, file, input_size)
    if precision == "bfloat16":
        compute_in(network, "mixed_bfloat16")
    return network


def _check_input(network: Any, file: Path, input_size: tuple[int, int]) -> None:
    shape = getattr(network, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] not in (3, None):
        raise NetworkError(
            f"The network {file} takes {shape}: it must have one input of RGB images, (height, width, 3)."
        )
    if any(side not in (stated, None) for side, stated in zip(shape[1:3], input_size, strict=True)):
        raise NetworkError(
            f"The network {file} takes images of {shape[1]} x {shape[2]} pixels, and its input_size "
            f"is stated as {input_size[0]} x {input_size[1]}: state what it takes."
        )


def open_saved_model(file: Path, *, trainable: bool = False) -> Any:
    """Open a SavedModel, or the zip of one, as a `keras.layers.TFSMLayer`; errors as `open_network`.

    Called, it gives what the signature `serving_default` does; with `trainable`, its variables learn.
    """
    keras = import_keras()
    try:
        with _unpacked(file) as folder:
            return keras.layers.TFSMLayer(str(folder), call_endpoint=_SIGNATURE, trainable=trainable)
    except Exception as error:  # a file from outside can fail in any way
        if f"'{_SIGNATURE}' is neither" in str(error):
            raise NetworkError(
                f"The SavedModel {file} has no serving signature {_SIGNATURE}, so it is not known what to "
                "call: save it by Keras's export, or with signatures=."
            ) from error
        raise NetworkError(
            f"The network {file} is neither a .keras file nor a SavedModel folder that can be "
            f"loaded: {first_sentence(error)}."
        ) from error


@contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    if file.is_dir():
        yield file
        return
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
        yield Path(folder)


def compute_in(network: Any, policy: str) -> None:
    """Let every layer compute as a policy of Keras's says, its weights as they are; nested ones, too."""
    keras = import_keras()
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            compute_in(layer, policy)
        layer.dtype_policy = keras.DTypePolicy(policy)


def _with_constants(network: Any) -> Callable[..., Any]:
    """Let TensorFlow see small weights as constants, so that it computes once what follows from them alone.

    That is all of a normalization but one product and one sum, and these go into the convolution before it
    where its kernel is small, too: in the first layers, which have the largest maps.
    """
    keras = import_keras()
    import tensorflow as tf

    small = [(var, var.numpy()) for var in network.variables if math.prod(var.shape) <= _CONSTANT_VALUES]

    def call(images: Any, training: bool) -> Any:
        constants = [(variable, tf.constant(value)) for variable, value in small]
        with keras.StatelessScope(state_mapping=constants):
            return network(images, training=training)

    return call


def _traced(
    network: Callable[..., Any], file: Path, input_size: tuple[int, int], pooling: Pooling
) -> tuple[Any, int]:
    import tensorflow as tf

    def compute(images: Any) -> Any:
        outputs = tf.nest.flatten(network(images, training=False))
        if len(outputs) != 1:
            raise NetworkError(f"The network {file} has {len(outputs)} outputs: it must have one.")
        output = tf.cast(outputs[0], tf.float32)
        return _pooled(output, pooling) if output.shape.rank == 4 else output

    # Traced once for any number of images: many times faster than predict on small batches.
    taken = tf.TensorSpec((None, *input_size, 3), tf.float32, name="images")
    features = tf.function(compute, [taken])
    try:
        shape = features.get_concrete_function().structured_outputs.shape
    except NetworkError:
        raise
    except Exception as error:  # the network is from outside, and so is its mistake
        raise NetworkError(
            f"The network {file} does not run on images of {input_size[0]} x {input_size[1]} "
            f"pixels: {first_sentence(error)}."
        ) from error
    _check_output(shape, file)
    return features, int(shape[1])


def _pooled(output: Any, pooling: Pooling) -> Any:
    import tensorflow as tf

    if pooling == "none":
        return tf.keras.layers.Flatten()(output)
    return (tf.reduce_mean if pooling == "avg" else tf.reduce_max)(output, axis=(1, 2))


def pooling_layer(pooling: Pooling) -> Any:
    """What becomes of a network's last map, as a layer of Keras's."""
    layers = import_keras().layers
    made = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D, "none": layers.Flatten}
    return made[pooling]()


def _check_output(shape: Any, file: Path) -> None:
    if shape.rank != 2 or shape[1] is None:
        raise NetworkError(
            f"The network {file} gives {shape}: it must give one vector of features, "
            "(width), or one map of them, (height, width, channels), an image."
        )


def pack_saved_model(folder: Path, target: Path) -> None:
    """Zip a SavedModel folder; the same files give the same bytes."""
    with zipfile.ZipFile(target, "w") as archive:
        for part in files_of(folder):
            entry = zipfile.ZipInfo(part.relative_to(folder).as_posix())  # dated 1980
            archive.writestr(entry, part.read_bytes())
