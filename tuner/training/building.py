"""Base and new head as one Keras model to train, and what is kept of it: network and linear classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuner.base.errors import NetworkError
from tuner.classifiers.linear import LinearHead
from tuner.networks.builders import seeded
from tuner.networks.files import compute_in, import_keras, pooling_layer
from tuner.training.augmentation import augmentation_layers
from tuner.training.bases import Base, open_base
from tuner.training.plan import Plan

# Keras's own momentum of batch normalization, and the steps of an epoch that it is good for.
_MOMENTUM, _STEPS = 0.99, 100


@dataclass(frozen=True, eq=False)
class Built:
    """A network with its head.

    Attributes
    ----------
    model
        Preprocessed images → probabilities; augments in training.
    base
        The layer that the base is in it.
    features
        Preprocessed images → what the classes are told from, of shape (n, width); shares all layers.
    whole
        Preprocessed images → probabilities, without augmentation; shares all layers.
    before, after
        Preprocessed images → what the base gives its head; that → probabilities, as `model` trains them.
        They share all layers.
    """

    model: Any
    base: Any
    features: Any
    whole: Any
    before: Any
    after: Any

    def head(self) -> LinearHead:
        """The last layer, as the classifier of MLlib's that computes the same of the features."""
        weights, biases = (np.asarray(value, np.float64) for value in self.whole.layers[-1].get_weights())
        if weights.shape[1] == 2:  # MLlib keeps of two classes what the second has more than the first
            return LinearHead((weights[:, 1] - weights[:, 0])[None, :], np.diff(biases))
        return LinearHead(weights.T.copy(), biases)


def build(
    base: Base, plan: Plan, classes: int, precision: str | None = None, *, steps: int = _STEPS
) -> Built:
    """Build base and head.

    The base is called as in inference even while it learns: its batch normalization keeps the means and
    variances that it was trained with (https://keras.io/guides/transfer_learning).

    Parameters
    ----------
    base, plan
        What to begin with, and how to go on.
    classes
        How many there are.
    precision
        What layers compute in; None: what the plan says.
    steps
        Of an epoch.
    """
    keras = import_keras()
    layers, policy = keras.layers, _policy(precision or plan.precision)
    with seeded(plan.seed):
        opened = open_base(base)  # small-cnn is drawn, too
        if policy != "float32" and not base.is_saved_model:
            compute_in(opened, policy)
        head: list[Any] = []
        if plan.units:
            head += [layers.Dense(plan.units, dtype=policy), layers.ReLU(dtype=policy)]
        if plan.batch_normalization:
            # Of an epoch of few steps the means and variances follow as far as of one of a hundred.
            momentum = _MOMENTUM ** max(1.0, _STEPS / steps)
            head.append(layers.BatchNormalization(momentum=momentum, dtype=policy))
        dropout = layers.Dropout(plan.dropout, seed=plan.seed + 5, dtype=policy)
        softmax = layers.Dense(classes, activation="softmax", dtype="float32", name="classes")
        images = keras.Input((*base.input_size, 3), name="images")
        given = _of_base(opened, base, images)
        features = _after(head, given)
        whole = softmax(features)
        alone = keras.Input(given.shape[1:], name="given")
        after = keras.Model(alone, softmax(dropout(_after(head, alone))))
        before = keras.Model(images, given)
        changed = _after(augmentation_layers(plan.augment, plan.seed), images)
        model = _trained(keras.Model(images, changed), before, after, infers=base.file is not None)
        model(images)
    return Built(
        model=model,
        base=opened,
        features=keras.Model(images, features),
        whole=keras.Model(images, whole),
        before=before,
        after=after,
    )


def _trained(changing: Any, before: Any, after: Any, *, infers: bool) -> Any:
    """Augmentation, base and head as one model; `infers`: the base is called as in inference.

    Of a functional model Keras 3.15 calls all layers as in training, though one was given `training=False`.
    """

    class Trained(import_keras().Model):  # type: ignore[misc]
        """Images → probabilities; it is fitted in this process, and never saved."""

        def __init__(self) -> None:
            super().__init__()
            self.changing, self.before, self.after = changing, before, after

        def call(self, images: Any, training: bool | None = None) -> Any:
            changed = self.changing(images, training=training)
            return self.after(self.before(changed, training=training and not infers), training=training)

    return Trained()


def _policy(precision: str) -> str:
    return precision if precision == "float32" else f"mixed_{precision}"


def _of_base(opened: Any, base: Base, images: Any) -> Any:
    """What the base gives, by name or as it is, pooled if it is a map."""
    outputs = opened(images)
    values = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
    if len(values) != 1:
        raise NetworkError(f"The base {base.name} has {len(values)} outputs: it must have one.")
    return values[0] if len(values[0].shape) == 2 else pooling_layer(base.pooling)(values[0])


def _after(layers: Sequence[Any], value: Any) -> Any:
    for layer in layers:
        value = layer(value)
    return value
