"""What a network expects of pixels: the arithmetic of each mode, once for arrays and for Keras layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tuner.base.choices import Preprocessing


@dataclass(frozen=True)
class Mode:
    """A mode's arithmetic: ``(x / divisor - mean) / deviation``, on RGB or BGR channels.

    Attributes
    ----------
    divisor
        What pixels from 0 to 255 are divided by first.
    mean, deviation
        By channel, in the order that the network sees.
    bgr
        Whether the network sees blue first.
    """

    divisor: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False


MODES: Mapping[Preprocessing, Mode] = {
    "tf": Mode(divisor=127.5, mean=(1.0, 1.0, 1.0)),
    "caffe": Mode(mean=(103.939, 116.779, 123.68), bgr=True),
    "torch": Mode(divisor=255.0, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225)),
    "unit": Mode(divisor=255.0),
    "none": Mode(),
}
"""Every mode by its name."""


def preprocess(pixels: np.ndarray, mode: Preprocessing) -> np.ndarray:
    """Scale RGB pixels to what a network was trained on; the input is left as it is.

    Parameters
    ----------
    pixels
        Array of shape (..., 3), RGB, 0 to 255.
    mode
        `tf`: -1 to 1; `caffe`: BGR minus the ImageNet mean; `torch`: 0 to 1, standardised by channel;
        `unit`: 0 to 1; `none`: 0 to 255.

    Returns
    -------
    float32 array of the same shape.

    References
    ----------
    `keras.applications.imagenet_utils.preprocess_input`.
    """
    row = MODES[mode]
    values: np.ndarray = pixels.astype(np.float32)
    if row.bgr:
        values = values[..., ::-1]
    # Steps that change nothing are left out: an image has 150,000 values and more.
    if row.divisor != 1:
        values = values / np.float32(row.divisor)
    if any(row.mean):
        values = values - np.array(row.mean, np.float32)
    if row.deviation != (1.0, 1.0, 1.0):
        values = values / np.array(row.deviation, np.float32)
    return values
