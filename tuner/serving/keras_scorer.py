"""A whole model as one `keras.Model` of Keras's own layers: preprocessing, network and classifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuner.base.choices import Pooling, Preprocessing
from tuner.base.columns import PREDICTION
from tuner.base.errors import ModelError
from tuner.classifiers.heads.layers import Dense, Layers, layers_of
from tuner.images.preprocessing import MODES
from tuner.models.scorer import Scorer
from tuner.networks.files import import_keras, open_keras


def keras_scorer(scorer: Scorer) -> Any:
    """Build a `keras.Model`: pixels → `prediction` and `probability` or, without those, `decision`.

    Raises
    ------
    ModelError
        The classifier is neither linear nor a perceptron, or the network is no Keras file.
    """
    network = scorer.network
    layers = layers_of(scorer.head)
    if layers is None:
        raise ModelError(
            "The model's classifier cannot become part of a Keras model: linear classifiers and multilayer "
            "perceptrons can, and trees, neighbours and the rest cannot. Serve the model by MLflow instead "
            "(mlflow models serve, tuner predict), or search a linear one."
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
    scores = _classifier(keras, layers, scorer.score_column)(features)
    index = keras.ops.argmax(scores, axis=-1)
    names = keras.layers.StringLookup(
        vocabulary=list(scorer.labels),
        num_oov_indices=0,
        oov_token=max(scorer.labels, key=len) + "?",  # its own, "[UNK]", may be a class
        invert=True,
        name=PREDICTION,
    )
    return keras.Model(pixels, {PREDICTION: names(index), scorer.score_column: scores})


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


def _classifier(keras: Any, layers: Layers, name: str) -> Callable[[Any], Any]:
    """A classifier's layers in float64, as MLlib and scikit-learn compute; the last one has this name."""
    made = [keras.layers.UnitNormalization(dtype="float64")] if layers.unit else []
    for place, layer in enumerate(layers.dense, start=1):
        made.append(_dense(keras, layer, name if place == len(layers.dense) else f"hidden_{place}"))

    def apply(features: Any) -> Any:
        for layer in made:
            features = layer(features)
        return features

    return apply


def _dense(keras: Any, layer: Dense, name: str) -> Any:
    inputs, outputs = layer.matrix.shape
    made = keras.layers.Dense(outputs, activation=layer.activation, dtype="float64", name=name)
    made.build((None, inputs))
    made.set_weights([layer.matrix, layer.bias])
    return made
