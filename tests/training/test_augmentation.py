import numpy as np
import pytest

from tests.helpers.training import SIDE
from tuner.experiment.training.fine_tuning import PRESETS, Augment
from tuner.networks.files import import_keras
from tuner.training.augmentation import augmentation_layers


def through(augment: Augment, images: np.ndarray, *, training: bool) -> np.ndarray:
    value = images
    for layer in augmentation_layers(augment, seed=7):
        value = layer(value, training=training)
    return np.asarray(import_keras().ops.convert_to_numpy(value))


def pictures() -> np.ndarray:
    """Values as preprocessing gives them, below 0, too."""
    return np.random.default_rng(1).uniform(-1, 1, (6, SIDE, SIDE, 3)).astype(np.float32)


def test_nothing_changes_outside_of_training_or_without_ranges() -> None:
    images = pictures()
    np.testing.assert_array_equal(through(PRESETS["strong"], images, training=False), images)
    assert augmentation_layers(Augment(), seed=7) == []


def test_strong_moves_pixels_and_keeps_their_range() -> None:
    images = pictures()
    changed = through(PRESETS["strong"], images, training=True)
    assert changed.shape == images.shape
    assert not np.allclose(changed, images, atol=0.1)
    assert changed.min() >= images.min() - 1e-5
    assert changed.max() <= images.max() + 1e-5
    gray = np.full((2, SIDE, SIDE, 3), -0.7, np.float32)  # with the fill nearest, an edge has its colour
    np.testing.assert_allclose(through(PRESETS["strong"], gray, training=True), gray, atol=1e-5)


@pytest.mark.parametrize("name", ["rotation", "shift", "shear", "zoom", "flip"])
def test_each_range_makes_a_layer(name: str) -> None:
    given = {"flip": True} if name == "flip" else {name: 0.3}
    augment = Augment.model_validate(given)
    assert len(augmentation_layers(augment, seed=1)) == 1
    images = pictures()
    assert not np.array_equal(through(augment, images, training=True), images)
