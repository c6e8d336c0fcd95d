"""Image bytes → a network's input: the one decode, for the featurizer and for serving; without Spark."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tuner.errors import ImageError
from tuner.experiment import Preprocessing

DECODING_VERSION = 1  # part of the feature cache's key: raise it when pixels change
MAX_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"})

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
_CAFFE_MEAN_BGR = np.array([103.939, 116.779, 123.68], dtype=np.float32)
_TORCH_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_TORCH_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def decode_image(content: bytes | None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode the bytes of a JPEG, PNG, GIF (first frame), BMP, WebP or TIFF file.

    The EXIF orientation is applied; grayscale, palette, CMYK, 16-bit and floating images become RGB; an
    alpha channel is dropped, as Keras does.

    Returns
    -------
    uint8 array of shape (height, width, 3), RGB.

    Raises
    ------
    ImageError
        The content is null or empty, no image, truncated, or larger than `max_pixels`.
    """
    if not content:
        raise ImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's on odd metadata; what it cannot read, it raises
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise ImageError(f"too large: {width} x {height} pixels")
                image.load()
                return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError("too large") from None
    except UnidentifiedImageError:
        raise ImageError("not an image of a known format") from None
    except Exception as error:  # Pillow's plugins raise whatever their parsers meet
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ImageError("truncated" if "truncated" in reason else f"damaged: {reason}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scale 16-bit, 32-bit and floating gray to 8 bits; Pillow would clip them."""
    pixels = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    highest = pixels.max(initial=0.0)
    scale = 1.0 if values.dtype.kind == "f" and highest <= 1 else 255.0 if highest <= 255 else 65535.0
    scale = max(scale, highest)
    return (np.clip(pixels / scale, 0, 1) * 255 + 0.5).astype(np.uint8)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to (height, width) by Pillow's bilinear filter, as `keras.utils.load_img` does.

    Takes and gives uint8 of shape (height, width, 3).
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


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
    values = pixels.astype(np.float32)
    match mode:
        case "tf":
            return values / np.float32(127.5) - np.float32(1)
        case "caffe":
            return values[..., ::-1] - _CAFFE_MEAN_BGR
        case "torch":
            return (values / np.float32(255) - _TORCH_MEAN) / _TORCH_STD
        case "unit":
            return values / np.float32(255)
        case "none":
            return values


def load_input(content: bytes | None, size: tuple[int, int], mode: Preprocessing) -> np.ndarray:
    """Bytes of an image file → float32 of shape (height, width, 3), ready for a network."""
    return preprocess(resize(decode_image(content), size), mode)


def struct_to_image(struct: Mapping[str, Any]) -> np.ndarray:
    """Read a row of Spark's image struct (`height`, `width`, `nChannels`, `data`: gray, BGR or BGRA).

    Returns
    -------
    uint8 array of shape (height, width, 3), RGB.

    Raises
    ------
    ImageError
        The struct is null, or its data do not fit its size.
    """
    data = struct.get("data") if struct else None
    if not data:
        raise ImageError("empty image")
    height, width, channels = (int(struct[name]) for name in ("height", "width", "nChannels"))
    if channels not in (1, 3, 4) or len(data) != height * width * channels:
        raise ImageError(f"{len(data)} bytes do not make {height} x {width} pixels of {channels} channels")
    pixels = np.frombuffer(data, dtype=np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if channels == 1 else pixels[..., 2::-1])
