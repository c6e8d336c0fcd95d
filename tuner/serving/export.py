"""Export a model for use without MLflow: a `.keras` file, or a SavedModel that takes image bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tuner.base.choices import Decoding, Pooling, Preprocessing
from tuner.base.columns import CONTENT, PREDICTION, PROBABILITY
from tuner.base.errors import ImageError, ModelError
from tuner.base.uris import expanded
from tuner.classifiers.heads.files import Head
from tuner.classifiers.heads.mllib import PerceptronHead
from tuner.classifiers.linear import LinearHead
from tuner.images.decoding import MAX_PIXELS, decode_image, resize, whites
from tuner.images.preprocessing import MODES
from tuner.models.scorer import Scorer
from tuner.networks.files import import_keras, open_keras
from tuner.networks.resolution import Network

Format = Literal["keras", "savedmodel"]
_PNG, _PNG_DEPTH = b"\x89PNG\r\n\x1a\n", 24  # how a file begins, and where its bits a channel are told
KERAS_TOLERANCE = 1e-5  # of a probability; the SavedModel decodes with TensorFlow, so its pixels differ


@dataclass(frozen=True)
class Export:
    """What was written and how it compares with the model on `images` images.

    `difference` is the largest difference of a probability, `disagreements` the number of images of which
    the class differs; `unread` could not be compared, for one of the two cannot read them.
    """

    path: Path
    images: int
    difference: float
    disagreements: int
    unread: int


def export_model(scorer: Scorer, target: Path, form: Format, sample: Sequence[bytes]) -> Export:
    """Write a model, load what was written, and compare its answers with the model's.

    Parameters
    ----------
    scorer
        The model.
    target
        The file (`keras`) or folder (`savedmodel`) to make.
    form
        `keras`: takes `(n, height, width, 3)` RGB pixels from 0 to 255, resized as
        `keras.utils.load_img` does, transparent ones laid on their ground first. `savedmodel`: its
        signature `serving_default` takes `content`, n JPEG, PNG, GIF or BMP files as strings. Both give
        `prediction` (class names) and `probability`.
    sample
        Image files to compare on.

    Raises
    ------
    ModelError
        The target exists or cannot be made, the network's own file cannot become part of a Keras file, or
        the `.keras` file does not give the model's answers (it is removed then).
    """
    try:
        target = expanded(target)
    except ValueError as error:
        raise ModelError(f"{error}, with --to.") from None
    if target.exists():
        raise ModelError(f"{target} exists already: remove it, or give another --to.")
    if form == "keras" and target.suffix != ".keras":
        raise ModelError(f"A Keras file must be called *.keras, and --to is {target}.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{target} cannot be written: {error.strerror}: give another --to.") from error
    keras_network = keras_scorer(scorer)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        aside = Path(folder) / target.name
        if form == "keras":
            keras_network.save(aside)
        else:
            _save_with_decoder(keras_network, scorer.network, aside)
        done = _compare(scorer, _loaded(aside, form, scorer), sample, target)
        if form == "keras" and done.difference > KERAS_TOLERANCE:
            raise ModelError(
                f"The Keras file differs from the model by {done.difference:.2g} in a probability, more "
                f"than {KERAS_TOLERANCE:g}: it was not kept."
            )
        aside.replace(target)
    return done


def keras_scorer(scorer: Scorer) -> Any:
    """Build preprocessing, keras_network and classifier as one `keras.Model` of Keras's own layers."""
    network = scorer.network
    if not isinstance(scorer.head, LinearHead | PerceptronHead):
        raise ModelError(
            "The model's classifier cannot become part of a Keras model: logistic regression and "
            "multilayer "
            "perceptrons of MLlib can. Serve the model by MLflow instead (mlflow models serve, tuner "
            "predict), "
            "or search one of these."
        )
    keras = import_keras()
    if Path(network.file).suffix != ".keras":
        raise ModelError(
            f"The network {network.name} is a SavedModel, which cannot become part of a Keras model: save "
            "the network as a .keras file and search again."
        )
    keras_network = open_keras(Path(network.file), network.input_size, network.precision)
    pixels = keras.Input((*network.input_size, 3), name="pixels")
    features = keras_network(_preprocessing(keras, network.preprocessing)(pixels), training=False)
    if len(features.shape) == 4:
        features = _pooling(keras, network.pooling)(features)
    probability = _classifier(keras, scorer.head, network.width)(features)
    index = keras.ops.argmax(probability, axis=-1)
    names = keras.layers.StringLookup(
        vocabulary=list(scorer.labels),
        num_oov_indices=0,
        oov_token=max(scorer.labels, key=len) + "?",  # its own, "[UNK]", may be a class
        invert=True,
        name=PREDICTION,
    )
    return keras.Model(pixels, {PREDICTION: names(index), PROBABILITY: probability})


def _preprocessing(keras: Any, name: Preprocessing) -> Callable[[Any], Any]:
    """The arithmetic of a mode as Keras's own layers."""
    mode, layers = MODES[name], []
    if mode.divisor != 1:
        layers.append(keras.layers.Rescaling(1 / mode.divisor))
    if any(mode.mean):
        variance = [value**2 for value in mode.deviation]
        layers.append(keras.layers.Normalization(mean=mode.mean, variance=variance))

    def apply(pixels: Any) -> Any:
        values = keras.ops.flip(pixels, axis=-1) if mode.bgr else pixels
        for layer in layers:
            values = layer(values)
        return values

    return apply


def _pooling(keras: Any, name: Pooling) -> Any:
    layers = keras.layers
    kinds = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D, "none": layers.Flatten}
    return kinds[name](dtype="float32")


def _classifier(keras: Any, head: Head, width: int) -> Callable[[Any], Any]:
    """MLlib's classifier as layers in float64, as MLlib computes."""
    if isinstance(head, LinearHead):
        layer: Callable[[Any], Any] = _dense(keras, head, width)
        return layer
    assert isinstance(head, PerceptronHead)
    steps = head.affine()
    layers = []
    for place, (matrix, bias) in enumerate(steps, start=1):
        last = place == len(steps)
        dense = keras.layers.Dense(
            matrix.shape[1],
            activation="softmax" if last else "sigmoid",
            dtype="float64",
            name=PROBABILITY if last else f"hidden_{place}",
        )
        dense.build((None, matrix.shape[0]))
        dense.set_weights([matrix, bias])
        layers.append(dense)

    def apply(features: Any) -> Any:
        for layer in layers:
            features = layer(features)
        return features

    return apply


def _dense(keras: Any, head: LinearHead, width: int) -> Any:
    """MLlib's classifier as a layer in float64, as MLlib computes; two classes become a softmax of two."""
    kernel, bias = head.coefficients.T, head.intercepts
    if kernel.shape[1] == 1:
        kernel, bias = np.hstack([np.zeros_like(kernel), kernel]), np.array([0.0, bias[0]])
    layer = keras.layers.Dense(kernel.shape[1], activation="softmax", dtype="float64", name=PROBABILITY)
    layer.build((None, width))
    layer.set_weights([kernel, bias])
    return layer


def _save_with_decoder(keras_network: Any, network: Network, folder: Path) -> None:
    import tensorflow as tf

    size = network.input_size

    def decode(content: Any) -> Any:
        image = tf.cond(
            tf.strings.substr(content, 0, len(_PNG)) == _PNG,
            lambda: _decode_png(content, network.decoding),
            lambda: _decode_opaque(content, network.decoding),
        )
        image.set_shape((None, None, 3))
        resized = tf.image.resize(image, size, "bilinear", antialias=True)
        return tf.round(tf.clip_by_value(resized, 0.0, 255.0))

    def score(content: Any) -> Any:
        pixels = tf.map_fn(decode, content, fn_output_signature=tf.TensorSpec((*size, 3), tf.float32))
        return keras_network(pixels, training=False)

    module = tf.Module()
    module.keras_network = keras_network  # or its weights would not be saved
    module.score = tf.function(score, [tf.TensorSpec([None], tf.string, name=CONTENT)])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.score})


def _decode_opaque(content: Any, decoding: Decoding) -> Any:
    """JPEG, GIF and BMP files, which TensorFlow reads without an alpha channel → RGB, 0 to 255."""
    import tensorflow as tf

    # Pillow decodes with the accurate transform; TensorFlow's default is the fast one.
    pixels = tf.cond(
        tf.io.is_jpeg(content),
        lambda: tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(content, channels=3, expand_animations=False),
    )
    white, _ = whites(decoding)
    return tf.round(tf.minimum(tf.cast(pixels, tf.float32) / white, 1.0) * 255.0)


def _decode_png(content: Any, decoding: Decoding) -> Any:
    """PNG files of 8 and 16 bits, transparent or not → RGB, 0 to 255."""
    import tensorflow as tf

    pixels = tf.cast(tf.io.decode_png(content, channels=4, dtype=tf.uint16), tf.float32)
    of_8_bits, of_16_bits = whites(decoding)
    deep = tf.strings.substr(content, _PNG_DEPTH, 1) == b"\x10"
    white = tf.where(deep, tf.constant(of_16_bits, tf.float32), tf.constant(of_8_bits * 257, tf.float32))
    colours = tf.round(tf.minimum(pixels[..., :3] / white, 1.0) * 255.0)
    alpha = pixels[..., 3:]
    # Of an opaque PNG of 1, 2 or 4 bits, TensorFlow gives the highest value of these bits for "opaque".
    depth = tf.cast(tf.io.decode_raw(tf.strings.substr(content, _PNG_DEPTH, 1), tf.uint8)[0], tf.float32)
    unscaled = (2.0**depth - 1) * 257
    alpha = tf.where((depth < 8) & tf.reduce_all(alpha == unscaled), 1.0, alpha / 65535.0)
    ground = {"white": 255.0, "black": 0.0}[decoding.transparent]
    return tf.round(colours * alpha + ground * (1.0 - alpha))


def _loaded(path: Path, form: Format, scorer: Scorer) -> Callable[[bytes], tuple[str, np.ndarray]]:
    """Open what was written, as its user would: one image file → class name and probabilities."""
    keras = import_keras()
    import tensorflow as tf

    if form == "keras":
        keras_network = keras.saving.load_model(path, compile=False, safe_mode=True)

        def run(content: bytes) -> Any:
            decoded = decode_image(content, MAX_PIXELS, scorer.network.decoding)
            image = resize(decoded, scorer.network.input_size)
            return keras_network(image[None].astype(np.float32), training=False)
    else:
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]

        def run(content: bytes) -> Any:
            return signature(content=tf.constant([content]))

    def answer(content: bytes) -> tuple[str, np.ndarray]:
        result = run(content)
        return result[PREDICTION].numpy()[0].decode(), result[PROBABILITY].numpy()[0]

    return answer


def _compare(
    scorer: Scorer,
    exported: Callable[[bytes], tuple[str, np.ndarray]],
    sample: Sequence[bytes],
    path: Path,
) -> Export:
    import tensorflow as tf

    expected, reasons = scorer.score(sample)
    difference, disagreements, compared = 0.0, 0, 0
    for content, row, reason in zip(sample, expected, reasons, strict=True):
        if reason is not None:
            continue
        try:
            name, probability = exported(content)
        except (ImageError, tf.errors.OpError):  # a format that TensorFlow does not read
            continue
        compared += 1
        difference = max(difference, float(np.abs(probability - row).max()))
        disagreements += name != scorer.labels[int(row.argmax())]
    return Export(path, compared, difference, disagreements, len(sample) - compared)
