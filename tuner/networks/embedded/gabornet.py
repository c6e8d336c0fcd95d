"""GaborNet: a bank of fixed Gabor filters and pooling; nothing in it was learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

SIDE = 32
CELL = 8
LUMA = np.array([0.299, 0.587, 0.114]).reshape(1, 1, 3, 1)  # ITU-R BT.601, as Pillow's "L"
WAVELENGTHS = (4.0, 6.0, 10.0)  # pixels of an image
ORIENTATIONS = 8
KERNEL_SIZE = 15


def gabor_kernel(wavelength: float, orientation: float, size: int) -> np.ndarray:
    """Return one complex Gabor filter: a plane wave under a Gaussian, blind to flat areas.

    Parameters
    ----------
    wavelength : float
        Pixels from crest to crest; the Gaussian's standard deviation is 0.4 of it, a band about
        1.5 octaves wide.
    orientation : float
        Direction of the wave in radians, 0 along x.
    size : int
        Side of the kernel in pixels, odd.

    Returns
    -------
    numpy.ndarray
        ``(size, size)`` complex128; the real part is the even filter, the imaginary part the odd
        one. Sums to zero; the modulus sums to one.

    References
    ----------
    J. G. Daugman, "Uncertainty relation for resolution in space, spatial frequency, and
    orientation optimized by two-dimensional visual cortical filters", JOSA A 2(7), 1985.
    """
    reach = size // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = x * np.cos(orientation) + y * np.sin(orientation)
    envelope = np.exp(-(x**2 + y**2) / (2 * (0.4 * wavelength) ** 2))
    wave = np.exp(2j * np.pi * along / wavelength)
    kernel: np.ndarray = envelope * (wave - (envelope * wave).sum() / envelope.sum())
    kernel /= np.abs(kernel).sum()
    return kernel


def gabor_bank() -> np.ndarray:
    """Return all filters, ``(15, 15, 24)`` complex128, orientation running faster than scale."""
    angles = np.arange(ORIENTATIONS) * np.pi / ORIENTATIONS
    return np.stack(
        [gabor_kernel(wave, angle, KERNEL_SIZE) for wave in WAVELENGTHS for angle in angles],
        axis=-1,
    )


def build_gabornet() -> keras.Model:
    """Build GaborNet; every call gives the same network.

    Returns
    -------
    keras.Model
        Not compiled, not trainable. Input ``(n, 32, 32, 3)`` float32 in [0, 1] (preprocessing
        ``unit``), output ``(n, 384)`` float32: the amplitude of 3 scales x 8 orientations, averaged
        on a 4 x 4 grid. Light strokes on dark and dark strokes on light give the same features.
    """
    from keras import Input, Model, initializers, layers

    bank = gabor_bank()[:, :, None, :]
    # Padded with its own edge: zeros would draw a frame around every image on a light background.
    # Keras has no such layer, but padding an axis is a matrix product.
    margin = KERNEL_SIZE // 2
    padding = np.pad(np.eye(SIDE), ((0, 0), (margin, margin)), mode="symmetric")
    padded = SIDE + 2 * margin

    image = Input((SIDE, SIDE, 3), name="image")
    gray = _fixed(layers.Conv2D(1, 1, use_bias=False, name="gray"), image, LUMA)
    rows = layers.EinsumDense("bhwc,hp->bpwc", (padded, SIDE, 1), name="pad_rows")
    columns = layers.EinsumDense("bhwc,wp->bhpc", (padded, padded, 1), name="pad_columns")
    x = _fixed(columns, _fixed(rows, gray, padding), padding)

    minus_one = initializers.Constant(-1.0)  # a PReLU with slope -1 is the absolute value

    def modulus(kernel: np.ndarray, name: str) -> keras.KerasTensor:
        filters = layers.Conv2D(bank.shape[-1], KERNEL_SIZE, use_bias=False, name=name)
        return layers.PReLU(minus_one, shared_axes=(1, 2), name=f"{name}_abs")(_fixed(filters, x, kernel))

    # |even| + |odd| stands for the root of the sum of their squares: it needs no custom layer.
    amplitude = layers.Add(name="amplitude")([modulus(bank.real, "even"), modulus(bank.imag, "odd")])
    pooled = layers.AveragePooling2D(CELL, name="grid")(amplitude)
    network = Model(image, layers.Flatten(name="features")(pooled), name="gabornet")
    network.trainable = False
    return network


def _fixed(layer: keras.Layer, inputs: keras.KerasTensor, kernel: np.ndarray) -> keras.KerasTensor:
    """Apply a layer without a bias and set its only weight."""
    outputs = layer(inputs)
    layer.set_weights([kernel])
    return outputs
