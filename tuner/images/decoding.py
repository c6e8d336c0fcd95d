"""Image bytes → a network's input: the one decode, for the featurizer and for serving; without Spark."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from tuner.base.choices import DEFAULT_DECODING, Decoding, Preprocessing
from tuner.base.errors import ImageError, UndecidedImageError
from tuner.base.wording import first_line
from tuner.images.preprocessing import preprocess

DECODING_VERSION = 2  # raise it when more images can be read, or fewer: those left out are tried again
MAX_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb

# A filter, not `catch_warnings`: that one is not safe in threads, and a server decodes in several.
warnings.filterwarnings("ignore", module=r"PIL\.")  # on odd metadata; what Pillow cannot read, it raises

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")


class _Range(NamedTuple):
    white: float  # what stands for it in an image's own values, unless it is stated
    largest: float  # of all values


_EIGHT_BITS, _SIXTEEN_BITS = _Range(255, 255), _Range(65_535, 65_535)
# One rule for a mode, whatever the values of an image are: its neighbours are scaled alike. Integers of 32
# bits mostly hold those of 16, and floats go up to 1.
_RANGES = {"I": _Range(65_535, 2**31 - 1), "F": _Range(1, np.inf)}


def _white(decoding: Decoding, own: _Range) -> float:
    stated = decoding.max_value
    return stated if stated is not None and stated <= own.largest else own.white


def whites(decoding: Decoding) -> tuple[float, float]:
    """What stands for white in images of 8 and of 16 bits."""
    return _white(decoding, _EIGHT_BITS), _white(decoding, _SIXTEEN_BITS)


def _depends(decoding: Decoding, names: Sequence[str]) -> str | None:
    """Text for the options that decided an image's pixels; None if none of them did."""
    return "; ".join(f"{name}: {getattr(decoding, name)}" for name in names) or None


def outcomes(decoding: Decoding) -> tuple[str | None, ...]:
    """All that `Seen.depends` can be of an image that was decoded as an experiment says."""
    ground, white = "transparent", "max_value"
    deep = tuple(_depends(decoding, names) for names in ([white], [ground, white]))
    # A value that is stated for images of 8 bits, too, decides the pixels of all.
    stated = _white(decoding, _EIGHT_BITS) != _EIGHT_BITS.white
    return deep if stated else (None, _depends(decoding, [ground]), *deep)


@dataclass(frozen=True)
class Seen:
    """What was seen of an image beside its pixels."""

    depends: str | None  # the options of `Decoding` that decided its pixels, with their values
    highest: float  # its highest value, and what stands for white, in its own units
    white: float
    lowest: float = 0.0  # its lowest value, where that may be below 0


@dataclass(frozen=True)
class _Picture:
    rgb: Image.Image
    depends: str | None
    white: float
    highest: float | None  # None: as the pixels show it
    lowest: float = 0.0

    def seen(self, pixels: np.ndarray) -> Seen:
        highest = self.highest
        shown = float(pixels.max()) / 255 * self.white
        return Seen(self.depends, shown if highest is None else highest, self.white, self.lowest)


def decoder() -> str:
    """Name what decides whether an image can be read: Pillow and this module, by their versions."""
    return f"Pillow {PIL.__version__}, decoding {DECODING_VERSION}"


def decode_image(
    content: bytes | None, max_pixels: int = MAX_PIXELS, decoding: Decoding = DEFAULT_DECODING
) -> np.ndarray:
    """Decode the bytes of a JPEG, PNG, GIF (first frame), BMP, WebP or TIFF file.

    The EXIF orientation is applied; grayscale, palette, CMYK, 16-bit and floating images become RGB;
    transparent ones are laid on a ground.

    Returns
    -------
    uint8 array of shape (height, width, 3), RGB.

    Raises
    ------
    ImageError
        The content is null or empty, no image, truncated, or larger than `max_pixels`.
    UndecidedImageError
        Memory did not suffice, or the system failed: another time it may be read.
    """
    with _as_image_errors():
        return np.asarray(_open(content, max_pixels, decoding).rgb)


@contextmanager
def _as_image_errors() -> Iterator[None]:
    """Turn whatever goes wrong with an image into a reason."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"too large: {error}") from None
    except UnidentifiedImageError:
        raise ImageError("not an image of a known format") from None
    except MemoryError as error:
        raise UndecidedImageError("memory did not suffice to decode it") from error
    except Exception as error:  # Pillow's plugins raise whatever their parsers meet
        if isinstance(error, OSError) and error.errno is not None:  # Pillow's own have none
            raise UndecidedImageError(f"the system failed to decode it: {error.strerror}") from error
        reason = first_line(error)
        raise ImageError("truncated" if "truncated" in reason.lower() else f"damaged: {reason}") from error


def _open(content: bytes | None, max_pixels: int, decoding: Decoding) -> _Picture:
    """Decode to an upright RGB image."""
    if not content:
        raise ImageError("empty file")
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(f"too large: {width} x {height} pixels")
        own = _own_range(image)
        _correct_transparent_value(image)
        image.load()
        return _to_rgb(_upright(image), own, decoding)


def _stored(image: ImageFile.ImageFile) -> str:
    """How a file stores its pixels, such as `RGB;16B`; known until they are loaded."""
    arguments = image.tile[0].args if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _own_range(image: ImageFile.ImageFile) -> _Range:
    if image.mode in _RANGES:
        return _RANGES[image.mode]
    return _SIXTEEN_BITS if ";16" in image.mode or ";16" in _stored(image) else _EIGHT_BITS


def _correct_transparent_value(image: ImageFile.ImageFile) -> None:
    """State a PNG's transparent gray or colour as its pixels will be; Pillow leaves it as it is stored."""
    value, (mode, _, bits) = image.info.get("transparency"), _stored(image).partition(";")
    if mode == "L" and bits in ("2", "4") and isinstance(value, int):
        image.info["transparency"] = value * 255 // (2 ** int(bits) - 1)
    if mode == "RGB" and bits.startswith("16") and isinstance(value, tuple):
        image.info["transparency"] = tuple(part >> 8 for part in value)


def _upright(image: Image.Image) -> Image.Image:
    # A damaged EXIF block has many errors, and does not cost the pixels. In place they are turned before
    # Pillow writes the block anew, where a tag that it cannot write would else cost the orientation.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image, own: _Range, decoding: Decoding) -> _Picture:
    white, highest, lowest, options = _white(decoding, own), None, 0.0, []
    transparent = image.has_transparency_data
    if own is not _EIGHT_BITS or white != own.white:
        options.append("max_value")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        gray, lowest, highest = _to_8_bits(values, white)
        image, hidden = Image.fromarray(gray), image.info.get("transparency") if transparent else None
        if hidden is not None:
            image.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    elif white != own.white:
        # Of 16 bits a colour, Pillow keeps the upper 8.
        image = image.convert("RGBA" if transparent else "RGB")
        top = max(high for _, high in image.getextrema()[:3])  # type: ignore[misc]  # of bands
        highest = top / 255 * own.white
        scaled = [min(255, int(value * own.white / white + 0.5)) for value in range(256)]
        image = image.point(scaled * 3 + list(range(256)) * (image.mode == "RGBA"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema()[0] < 255:  # type: ignore[operator]  # of one band
            options.insert(0, "transparent")
            ground = Image.new("RGB", image.size, decoding.transparent)
            ground.paste(image, mask=alpha)
            image = ground
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return _Picture(rgb, _depends(decoding, options), white, highest, lowest)


def _to_8_bits(values: np.ndarray, white: float) -> tuple[np.ndarray, float, float]:
    """Scale 16-bit, 32-bit and floating gray to 8 bits, which Pillow would clip; and lowest and highest."""
    pixels = np.nan_to_num(values.astype(np.float32), copy=False, posinf=0.0, neginf=0.0)
    lowest, highest = float(pixels.min(initial=0.0)), float(pixels.max(initial=0.0))
    np.clip(pixels, 0, white, out=pixels)  # in place: a gigantic image is not held several times
    pixels /= white
    pixels *= 255
    pixels += 0.5
    return pixels.astype(np.uint8), lowest, highest


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to (height, width) by Pillow's bilinear filter, as `keras.utils.load_img` does.

    Takes and gives uint8 of shape (height, width, 3).
    """
    return image if image.shape[:2] == tuple(size) else _resized(Image.fromarray(image), size)


def _resized(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def load_input(
    content: bytes | None,
    size: tuple[int, int],
    mode: Preprocessing,
    decoding: Decoding = DEFAULT_DECODING,
    note: Callable[[Seen], None] | None = None,
) -> np.ndarray:
    """Bytes of an image file → float32 of shape (height, width, 3), ready for a network.

    `note` is told what else was seen; errors are those of `decode_image`.
    """
    with _as_image_errors():
        picture = _open(content, MAX_PIXELS, decoding)
        # Resized before it becomes an array: of a gigantic image there is one copy less, and it is faster.
        pixels = _resized(picture.rgb, size)
    if note is not None:
        note(picture.seen(pixels))
    return preprocess(pixels, mode)


def struct_to_image(struct: Mapping[str, Any], decoding: Decoding = DEFAULT_DECODING) -> np.ndarray:
    """Read a row of Spark's image struct (`height`, `width`, `nChannels`, `data`: gray, BGR or BGRA).

    Returns
    -------
    uint8 array of shape (height, width, 3), RGB.

    Raises
    ------
    ImageError
        The struct is null, or its data do not fit its size.
    """
    pixels = Image.fromarray(struct_pixels(struct))
    return np.asarray(_to_rgb(pixels, _EIGHT_BITS, decoding).rgb)


def struct_pixels(struct: Mapping[str, Any]) -> np.ndarray:
    """Read a row of Spark's image struct as it is: uint8, gray (height, width), RGB or RGBA.

    Errors are those of `struct_to_image`.
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
    return np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels[..., [2, 1, 0, 3][:channels]])
