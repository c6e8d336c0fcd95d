import keras
import numpy as np
import pytest

from tuner.images.preprocessing import MODES, preprocess
from tuner.serving.keras_scorer import _preprocessing

# Every value that a pixel may have, in each channel.
LEVELS = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 7)], axis=-1).astype(np.uint8)[None]
# The largest difference, of values from -2.2 to 255: arrays divide where layers multiply by the inverse.
LARGEST = 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_arrays_and_the_layers_of_an_export_are_scaled_alike(mode: str) -> None:
    layers = np.asarray(_preprocessing(keras, mode)(LEVELS[None].astype(np.float32)))[0]
    arrays = preprocess(LEVELS, mode)
    assert layers.dtype == arrays.dtype == np.float32
    assert np.abs(layers - arrays).max() < LARGEST


@pytest.mark.parametrize("mode", ["tf", "caffe", "torch"])
def test_the_modes_of_keras_are_those_of_keras(mode: str) -> None:
    theirs = keras.applications.imagenet_utils.preprocess_input(LEVELS.astype(np.float32), mode=mode)
    assert np.abs(preprocess(LEVELS, mode) - theirs).max() < LARGEST


def test_a_mode_is_the_arithmetic_of_its_row() -> None:
    for name, row in MODES.items():
        seen = LEVELS[..., ::-1] if row.bgr else LEVELS
        expected = (seen.astype(np.float64) / row.divisor - row.mean) / row.deviation
        np.testing.assert_allclose(preprocess(LEVELS, name), expected, atol=1e-4)
