"""Random changes of training images, as Keras layers on what a network is given."""

from __future__ import annotations

from typing import Any

from tuner.experiment.training.fine_tuning import Augment
from tuner.networks.files import import_keras


def augmentation_layers(augment: Augment, seed: int) -> list[Any]:
    """Make the layers, none for what does not change; they do nothing outside of training.

    All of them move pixels, and none looks at their values, so they may stand behind the preprocessing.

    Parameters
    ----------
    augment
        The ranges. What `keras.layers.RandomShear` calls the factor is the shear's; height and width are
        shifted, each by up to `shift`, and zoomed alike.
    seed
        Each layer draws from a generator of its own.
    """
    layers = import_keras().layers
    how = {"fill_mode": augment.fill, "dtype": "float32"}
    made = []
    if augment.flip:
        made.append(layers.RandomFlip("horizontal", seed=seed, dtype="float32"))
    if augment.rotation:
        made.append(layers.RandomRotation(augment.rotation / 360, seed=seed + 1, **how))
    if augment.shift:
        made.append(layers.RandomTranslation(augment.shift, augment.shift, seed=seed + 2, **how))
    if augment.shear:
        made.append(layers.RandomShear(augment.shear, seed=seed + 3, **how))
    if augment.zoom:
        made.append(layers.RandomZoom(augment.zoom, seed=seed + 4, **how))
    return made
