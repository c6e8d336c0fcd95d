"""GlyphNet's architecture: a compact CNN for small images of signs and strokes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

CHANNELS = (32, 64, 128)
EMBEDDING = 48


def build_glyphnet(seed: int) -> keras.Model:
    """Build GlyphNet with random weights, as it is before ``scripts/pretrain_glyphnet.py``.

    Parameters
    ----------
    seed : int
        Decides every weight.

    Returns
    -------
    keras.Model
        Not compiled. Input ``(n, 32, 32, 3)`` float32 in [0, 1] (preprocessing ``unit``), output
        ``(n, 192)`` float32: 48 linear maps of 4 x 4 cells, averaged on a 2 x 2 grid. Without a
        ReLU at the end the features are dense, which MLlib fits faster than half-empty ones.
    """
    from keras import Input, Model, initializers, layers

    seeds = iter(range(seed * 100, seed * 100 + 100))

    def convolution(x: keras.KerasTensor, filters: int, size: int, name: str) -> keras.KerasTensor:
        kernel = initializers.HeNormal(seed=next(seeds))
        convolved = layers.Conv2D(
            filters, size, padding="same", use_bias=False, kernel_initializer=kernel, name=name
        )(x)
        return layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(convolved)

    image = x = Input((32, 32, 3), name="image")
    for block, filters in enumerate(CHANNELS, start=1):
        x = layers.ReLU(name=f"block{block}_relu")(convolution(x, filters, 3, f"block{block}"))
        x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
    x = layers.ReLU(name="block4_relu")(convolution(x, CHANNELS[-1], 3, "block4"))
    x = convolution(x, EMBEDDING, 1, "embedding")
    x = layers.AveragePooling2D(2, name="grid")(x)
    return Model(image, layers.Flatten(name="features")(x), name="glyphnet")
