"""Export a model for use without MLflow: a `.keras` file, or a SavedModel that takes image bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tuner.base.choices import Decoding, ScoreKind
from tuner.base.columns import CONTENT, PREDICTION
from tuner.base.errors import ImageError, ModelError
from tuner.base.uris import expanded
from tuner.classifiers.scikit import LEAST_SCORE
from tuner.images.decoding import MAX_PIXELS, decode_image, resize, whites
from tuner.models.scorer import Scorer
from tuner.networks.files import import_keras
from tuner.networks.resolution import Network
from tuner.serving.keras_scorer import keras_scorer

Format = Literal["keras", "savedmodel"]
_KINDS = {".keras": "A Keras", ".onnx": "An ONNX"}
_PNG, _PNG_DEPTH = b"\x89PNG\r\n\x1a\n", 24  # how a file begins, and where its bits a channel are told
KERAS_TOLERANCE = 1e-5  # of a score; the SavedModel decodes with TensorFlow, so its pixels differ
_MEASURED = {"probability": "in a probability", "decision": "of the greatest decision value"}


@dataclass(frozen=True)
class Export:
    """What was written and how it compares with the model on `images` images.

    `difference` is the largest difference of a probability or, where a classifier gives decision values, of
    one of these, as a share of the greatest on these images. `disagreements` is the number of images of
    which the class differs; `unread` could not be compared, for one of the two cannot read them.
    """

    path: Path
    gives: ScoreKind
    images: int
    difference: float
    disagreements: int
    unread: int


def free_target(target: Path, suffix: str = "") -> Path:
    """Give where to write an export, made absolute, in a folder that is there.

    Raises
    ------
    ModelError
        It exists already, does not end with the suffix, or its folder cannot be made.
    """
    try:
        target = expanded(target)
    except ValueError as error:
        raise ModelError(f"{error}, with --to.") from None
    if target.exists():
        raise ModelError(f"{target} exists already: remove it, or give another --to.")
    if suffix and target.suffix != suffix:
        raise ModelError(f"{_KINDS[suffix]} file must be called *{suffix}, and --to is {target}.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{target} cannot be written: {error.strerror}: give another --to.") from error
    return target


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
        `prediction` (class names) and `probability` or, of a classifier without, `decision`.
    sample
        Image files to compare on.

    Raises
    ------
    ModelError
        The target exists or cannot be made, the classifier or the network's own file cannot become part of
        a Keras file, or the `.keras` file does not give the model's answers (it is removed then).
    """
    target = free_target(target, ".keras" if form == "keras" else "")
    keras_network = keras_scorer(scorer)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        aside = Path(folder) / target.name
        if form == "keras":
            keras_network.save(aside)
        else:
            _save_with_decoder(keras_network, scorer.network, aside)
        import tensorflow as tf  # which does not read all formats

        done = compare_answers(scorer, _loaded(aside, form, scorer), sample, target, tf.errors.OpError)
        if form == "keras" and done.difference > KERAS_TOLERANCE:
            raise ModelError(
                f"The Keras file differs from the model by {done.difference:.2g} {_MEASURED[done.gives]}, "
                f"more than {KERAS_TOLERANCE:g}: it was not kept."
            )
        aside.replace(target)
    return done


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
    """Open what was written, as its user would: one image file → class name and scores."""
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
        return result[PREDICTION].numpy()[0].decode(), result[scorer.score_column].numpy()[0]

    return answer


def compare_answers(
    scorer: Scorer,
    exported: Callable[[bytes], tuple[str, np.ndarray]],
    sample: Sequence[bytes],
    path: Path,
    *unreadable: type[Exception],
) -> Export:
    """Compare what was exported with the model.

    Parameters
    ----------
    scorer
        The model.
    exported
        One image file → the class name, and the scores of shape (k,).
    sample
        Image files to compare on.
    path
        Where the export will be.
    unreadable
        What `exported` raises, beside `ImageError`, of a file that it does not read.
    """
    not_read: tuple[type[Exception], ...] = (ImageError, *unreadable)
    expected, reasons = scorer.score(sample)
    size = _size(scorer, expected)
    difference, disagreements, compared = 0.0, 0, 0
    for content, row, reason in zip(sample, expected, reasons, strict=True):
        if reason is not None:
            continue
        try:
            name, scores = exported(content)
        except not_read:
            continue
        compared += 1
        difference = max(difference, float(np.abs(scores - row).max()) / size)
        disagreements += name != scorer.labels[int(row.argmax())]
    unread = len(sample) - compared
    return Export(path, scorer.head.gives, compared, difference, disagreements, unread)


def _size(scorer: Scorer, scores: np.ndarray) -> float:
    """What a difference is measured by: 1 or, of decision values, the greatest.

    That of a class which the classifier does not know is the same everywhere, and does not count.
    """
    if scorer.head.gives == "probability":
        return 1.0
    known = np.abs(scores[scores > LEAST_SCORE])
    return float(known.max(initial=0.0)) or 1.0
