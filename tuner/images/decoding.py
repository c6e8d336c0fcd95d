"""Image bytes → a network's input: the one decode, for the featurizer and for serving; without Spark."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tuner.base.choices import Preprocessing
from tuner.base.errors import ImageError
from tuner.base.wording import first_line
from tuner.images.preprocessing import preprocess

DECODING_VERSION = 1  # part of the feature cache's key: raise it when pixels change
MAX_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb

# A filter, not `catch_warnings`: that one is not safe in threads, and a server decodes in several.
warnings.filterwarnings("ignore", module=r"PIL\.")  # on odd metadata; what Pillow cannot read, it raises

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")


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
    return np.asarray(_open_rgb(content, max_pixels))


def _open_rgb(content: bytes | None, max_pixels: int) -> Image.Image:
    """Decode to an upright RGB image; the errors are those of `decode_image`."""
    if not content:
        raise ImageError("empty file")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(f"too large: {width} x {height} pixels")
            image.load()
            return _to_rgb(_upright(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"too large: {error}") from None
    except UnidentifiedImageError:
        raise ImageError("not an image of a known format") from None
    except Exception as error:  # Pillow's plugins raise whatever their parsers meet
        reason = first_line(error)
        raise ImageError("truncated" if "truncated" in reason.lower() else f"damaged: {reason}") from error


def _upright(image: Image.Image) -> Image.Image:
    # A damaged EXIF block has many errors, and does not cost the pixels. In place they are turned before
    # Pillow writes the block anew, where a tag that it cannot write would else cost the orientation.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scale 16-bit, 32-bit and floating gray to 8 bits; Pillow would clip them.

    32-bit and floating gray have no white of their own: it is the least usual one that fits the values.
    """
    pixels = np.nan_to_num(values.astype(np.float32), copy=False, posinf=0.0, neginf=0.0)
    highest = float(pixels.max(initial=0.0))
    usual = {"u": (65535.0,), "i": (255.0, 65535.0), "f": (1.0, 255.0, 65535.0)}[values.dtype.kind]
    white = next((white for white in usual if highest <= white), highest)
    np.clip(pixels, 0, white, out=pixels)  # in place: a gigantic image is not held several times
    pixels /= white
    pixels *= 255
    pixels += 0.5
    return pixels.astype(np.uint8)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to (height, width) by Pillow's bilinear filter, as `keras.utils.load_img` does.

    Takes and gives uint8 of shape (height, width, 3).
    """
    return image if image.shape[:2] == tuple(size) else _resized(Image.fromarray(image), size)


def _resized(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def load_input(content: bytes | None, size: tuple[int, int], mode: Preprocessing) -> np.ndarray:
    """Bytes of an image file → float32 of shape (height, width, 3), ready for a network."""
    # Resized before it becomes an array: of a gigantic image there is one copy less, and it is faster.
    return preprocess(_resized(_open_rgb(content, MAX_PIXELS), size), mode)


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
    data = struct["data"] if struct else None
    if not data:
        raise ImageError("empty image")
    try:
        height, width, channels = (int(struct[name]) for name in ("height", "width", "nChannels"))
    except (TypeError, ValueError):  # null, or pandas' NaN for it
        raise ImageError("an image without its height, width or number of channels") from None
    if channels not in (1, 3, 4) or min(height, width) < 1 or len(data) != height * width * channels:
        raise ImageError(f"{len(data)} bytes do not make {height} x {width} pixels of {channels} channels")
    pixels = np.frombuffer(data, dtype=np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if channels == 1 else pixels[..., 2::-1])
