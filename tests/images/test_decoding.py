import contextlib
import importlib
import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps, ImageSequence
from pyspark.sql import Row, SparkSession

from tuner.base.choices import DEFAULT_DECODING, Decoding
from tuner.base.errors import ImageError, UndecidedImageError
from tuner.images.decoding import Seen, decode_image, load_input, outcomes, resize, struct_to_image
from tuner.images.preprocessing import preprocess

MODES = ["tf", "caffe", "torch", "unit", "none"]
SIZES = [(48, 64), (16, 16), (99, 40)]  # as it is, smaller, and larger in one direction only


def photo(height: int = 48, width: int = 64) -> Image.Image:
    """Smooth and noisy at once, with an alpha channel that matters."""
    random = np.random.default_rng(7)
    ramp = np.linspace(0, 220, height * width * 4).reshape(height, width, 4)
    return Image.fromarray((ramp + random.integers(0, 35, ramp.shape)).astype(np.uint8))


def file(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_palette() -> bytes:
    """A palette whose entries are transparent to different degrees."""
    return file(photo().convert("RGB").quantize(64), "PNG", transparency=bytes(range(0, 256, 4)))


FILES = {
    "JPEG RGB": file(photo().convert("RGB"), "JPEG"),
    "JPEG L": file(photo().convert("L"), "JPEG"),
    "JPEG CMYK": file(photo().convert("RGB").convert("CMYK"), "JPEG"),
    "JPEG progressive": file(photo().convert("RGB"), "JPEG", progressive=True),
    "PNG RGB": file(photo().convert("RGB"), "PNG"),
    "PNG RGBA": file(photo(), "PNG"),
    "PNG L": file(photo().convert("L"), "PNG"),
    "PNG LA": file(photo().convert("LA"), "PNG"),
    "PNG 1": file(photo().convert("1"), "PNG"),
    "PNG P": file(photo().convert("RGB").quantize(32), "PNG"),
    "PNG P transparent": with_palette(),
    "PNG RGB transparent": file(photo().convert("RGB"), "PNG", transparency=(0, 0, 0)),
    "GIF": file(photo().convert("RGB"), "GIF"),
    "BMP": file(photo().convert("RGB"), "BMP"),
    "WebP": file(photo().convert("RGB"), "WEBP"),
    "WebP RGBA": file(photo(), "WEBP", lossless=True),
    "TIFF RGB": file(photo().convert("RGB"), "TIFF"),
    "TIFF CMYK": file(photo().convert("RGB").convert("CMYK"), "TIFF"),
    "TIFF LZW": file(photo().convert("L"), "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", SIZES)
def test_a_file_gives_the_pixels_that_keras_gives(
    name: str, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    path = tmp_path / "image"
    path.write_bytes(opaque(FILES[name]))
    expected = np.asarray(keras.utils.load_img(path, target_size=size, interpolation="bilinear"))
    found = resize(decode_image(FILES[name]), size)
    assert found.dtype == np.uint8
    if opaque(FILES[name]) == FILES[name]:
        np.testing.assert_array_equal(found, expected)
    assert np.abs(found.astype(int) - expected).max() <= 1  # laid on white by another function of Pillow


def opaque(content: bytes, ground: str = "white") -> bytes:
    """The file itself or, where it is transparent, its picture laid on a ground."""
    image = Image.open(io.BytesIO(content))
    if not image.has_transparency_data:
        return content
    rgba = image.convert("RGBA")
    return file(Image.alpha_composite(Image.new("RGBA", rgba.size, ground), rgba).convert("RGB"), "PNG")


@pytest.mark.parametrize(
    ("mode", "module"), [("tf", "xception"), ("caffe", "resnet"), ("torch", "densenet")]
)
def test_preprocessing_equals_that_of_keras(mode: str, module: str) -> None:
    theirs = importlib.import_module(f"keras.applications.{module}").preprocess_input
    pixels = decode_image(FILES["PNG RGB"])
    found = preprocess(pixels, mode)  # type: ignore[arg-type]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, theirs(pixels.astype(np.float32)), rtol=1e-5, atol=1e-5)


@given(arrays(np.uint8, (3, 2, 3)))
def test_unit_and_none_are_what_their_names_say(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(preprocess(pixels, "unit"), (pixels / 255).astype(np.float32))
    np.testing.assert_array_equal(preprocess(pixels, "none"), pixels.astype(np.float32))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_preprocessing_neither_writes_nor_shares_its_input(mode: str, dtype: type) -> None:
    pixels = np.arange(24, dtype=dtype).reshape(2, 4, 3)
    found = preprocess(pixels, mode)  # type: ignore[arg-type]
    np.testing.assert_array_equal(pixels, np.arange(24, dtype=dtype).reshape(2, 4, 3))
    assert not np.shares_memory(found, pixels)


def test_load_input_is_decode_resize_preprocess() -> None:
    found = load_input(FILES["PNG L"], (20, 30), "caffe")
    assert found.shape == (20, 30, 3)
    expected = preprocess(resize(decode_image(FILES["PNG L"]), (20, 30)), "caffe")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24] = (250, 10, 10)  # upper left
    turns = {  # from the upright image to the stored one, by the Exif standard's table
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, 1),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels, -1),
    }
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation]))
    found = decode_image(file(stored, kind, exif=exif))
    assert found.shape == pixels.shape
    assert np.abs(found.astype(int) - pixels).mean() < 3  # JPEG and WebP are lossy


def test_a_damaged_exif_block_does_not_cost_the_image() -> None:
    image = photo().convert("RGB")
    content = file(image, "PNG", exif=b"Exif\0\0no block at all")
    with pytest.raises(SyntaxError):  # what Pillow does with it
        Image.open(io.BytesIO(content)).getexif()
    np.testing.assert_array_equal(decode_image(content), np.asarray(image))


def test_a_tag_that_cannot_be_written_does_not_cost_the_orientation() -> None:
    entries = [(0x100, 8, struct.pack("<hh", -6, 0)), (0x112, 3, struct.pack("<HH", 6, 0))]
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries))
    block += b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries)
    content = file(Image.new("RGB", (40, 20)), "JPEG", exif=block + bytes(4))
    with pytest.raises(struct.error):  # what Pillow does with it
        ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert decode_image(content).shape == (40, 20, 3)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20_000, 1), (1, 20_000)])
def test_extreme_shapes_are_images(width: int, height: int) -> None:
    content = file(Image.new("RGB", (width, height), "red"), "PNG")
    assert decode_image(content).shape == (height, width, 3)
    np.testing.assert_array_equal(
        load_input(content, (7, 5), "none"), np.broadcast_to([255, 0, 0], (7, 5, 3))
    )


# A process's own peak: ru_maxrss would be that of the one that forked it.
PEAK = "int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"


def test_a_bomb_is_refused_before_memory_is_used() -> None:
    """The pixels that the header claims would take 1.2 GB."""
    code = (
        "import sys; from tuner.images.decoding import decode_image\n"
        "from tuner.base.errors import ImageError\n"
        f"before = {PEAK}\n"
        "try: decode_image(sys.stdin.buffer.read())\n"
        f"except ImageError: print({PEAK} - before)"
    )
    bomb = png_that_claims(20_000, 20_000)
    done = subprocess.run([sys.executable, "-c", code], input=bomb, capture_output=True, check=True)
    assert int(done.stdout) < 50_000  # KiB


def test_the_largest_image_takes_less_than_six_bytes_of_memory_a_pixel() -> None:
    """A network's input needs no array of the whole: 20 KB of file are 177 million pixels here."""
    code = (
        "import sys; from tuner.images.decoding import load_input\n"
        f"before = {PEAK}\n"
        "assert load_input(sys.stdin.buffer.read(), (8, 9), 'none').shape == (8, 9, 3)\n"
        f"print({PEAK} - before)"
    )
    side = 13_300
    content = file(Image.new("1", (side, side)), "PNG")
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)
    assert int(done.stdout) * 1024 < 6 * side**2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bits_are_scaled_not_clipped(kind: str, order: str) -> None:
    gray = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(order)
    found = decode_image(file(Image.fromarray(gray), kind))
    expected = np.rint(gray.astype(float) / 257)
    assert np.abs(found - expected[..., None]).max() <= 1
    assert (found[..., 0] == found[..., 2]).all()


@pytest.mark.parametrize("brightest", [255, 256])
def test_a_dark_16_bit_image_stays_dark(brightest: int) -> None:
    gray = np.array([[0, brightest]], np.uint16)
    assert decode_image(file(Image.fromarray(gray), "PNG")).max() == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 100, 255]], np.int32), [0, 0, 1]),
        (np.array([[-9, 32768, 65535]], np.int32), [0, 128, 255]),
        (np.array([[0, 65_535, 1_000_000]], np.int32), [0, 255, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[-3, 0.1, 255]], np.float32), [0, 26, 255]),
        (np.array([[np.nan, np.inf, 1]], np.float32), [0, 0, 255]),
        (np.array([[np.nan, np.nan, 0]], np.float32), [0, 0, 0]),
    ],
)
def test_gray_of_32_bits_has_one_white_whatever_its_values_are(
    values: np.ndarray, expected: list[int]
) -> None:
    assert decode_image(file(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == expected


DEEP = {"16 bits": np.uint16, "32 bits": np.int32, "floats": np.float32}


@given(
    kind=st.sampled_from(sorted(DEEP)),
    shared=st.integers(0, 200),
    others=st.lists(st.integers(0, 60_000), min_size=2, max_size=2),
    max_value=st.sampled_from([None, 4095.0, 255.0]),
)
def test_neighbours_of_a_set_are_scaled_alike(
    kind: str, shared: int, others: list[int], max_value: float | None
) -> None:
    """The same value is the same gray, whatever else its image holds."""
    grays = {
        int(decode_image(deep(kind, [shared, other]), decoding=Decoding(max_value=max_value))[0, 0, 0])
        for other in others
    }
    assert len(grays) == 1


def deep(kind: str, values: list[float]) -> bytes:
    return file(Image.fromarray(np.array([values]).astype(DEEP[kind])), "TIFF")


@pytest.mark.parametrize("kind", DEEP)
def test_data_that_fill_less_of_their_range_have_a_white_that_is_stated(kind: str) -> None:
    found = decode_image(deep(kind, [0, 2048, 4095, 5000]), decoding=Decoding(max_value=4095))
    assert found[0, :, 0].tolist() == [0, 128, 255, 255]


def test_a_stated_white_leaves_images_alone_that_cannot_reach_beyond_it() -> None:
    """In a set of 12-bit files, one of 8 bits keeps its 255; data of 4 bits in 8 are scaled."""
    for name in ("PNG RGB", "PNG RGBA", "JPEG L", "PNG P transparent"):
        for stated in (255.0, 4095.0):
            np.testing.assert_array_equal(
                decode_image(FILES[name], decoding=Decoding(max_value=stated)), decode_image(FILES[name])
            )
    four_bits = file(Image.fromarray(np.array([[0, 5, 15, 99]], np.uint8)), "PNG")
    found = decode_image(four_bits, decoding=Decoding(max_value=15))
    assert found[0, :, 0].tolist() == [0, 85, 255, 255]
    assert found.shape == (1, 4, 3)


def test_16_bits_a_colour_have_the_white_that_is_stated() -> None:
    """Pillow keeps the upper 8 bits of them."""
    values = struct.pack(">6H", 0, 2048, 4095, 0, 4095, 4095)
    content = png_file(2, 1, 16, 2, b"\0" + values)
    assert decode_image(content).max() == 15
    assert decode_image(content, decoding=Decoding(max_value=4095)).tolist() == [
        [[0, 128, 240], [0, 240, 240]]
    ]


# Transparency


def shape_on(mode: str, ground: int = 0) -> Image.Image:
    """A black bar; the pixels beside it are transparent, and `ground` below that."""
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:4] = 255
    gray = np.where(alpha > 0, 0, ground).astype(np.uint8)
    image = Image.merge("LA", [Image.fromarray(gray), Image.fromarray(alpha)])
    return image.convert(mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(width: int, height: int, depth: int, colour: int, rows: bytes, more: bytes = b"") -> bytes:
    """A PNG by hand, of depths and chunks that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def hidden(*values: int) -> bytes:
    return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


BARS = {
    "PNG RGBA": file(shape_on("RGBA"), "PNG"),
    "PNG LA": file(shape_on("LA"), "PNG"),
    "PNG P": file(shape_on("RGBA").quantize(4), "PNG"),
    "GIF": file(shape_on("LA", 9).getchannel("L").convert("P"), "GIF", transparency=9),
    "WebP": file(shape_on("RGBA"), "WEBP", lossless=True),
    "TIFF RGBA": file(shape_on("RGBA"), "TIFF"),
    "TIFF LA": file(shape_on("LA"), "TIFF"),
    "TIFF PA": file(shape_on("RGBA").convert("PA"), "TIFF"),
}
PAIRS = {  # a black pixel, and one that is hidden
    "tRNS of 1 bit": png_file(2, 1, 1, 0, b"\0\x40", hidden(1)),
    "tRNS of 2 bits": png_file(2, 1, 2, 0, b"\0\x20", hidden(2)),
    "tRNS of 4 bits": png_file(2, 1, 4, 0, b"\0\x0a", hidden(10)),
    "tRNS of 8 bits": png_file(2, 1, 8, 0, b"\0\0\x0a", hidden(10)),
    "tRNS of 16 bits": png_file(2, 1, 16, 0, b"\0\0\0\x12\x34", hidden(0x1234)),
    "tRNS of a colour": png_file(2, 1, 8, 2, b"\0\0\0\0\1\2\3", hidden(1, 2, 3)),
    "tRNS of 16 bits a colour": png_file(
        2, 1, 16, 2, b"\0" + bytes(6) + b"\1\2\3\4\5\6", hidden(0x102, 0x304, 0x506)
    ),
    "16 bits with alpha": png_file(2, 1, 16, 4, b"\0" + b"\0\0\xff\xff" + bytes(4)),
    "16 bits a colour with alpha": png_file(2, 1, 16, 6, b"\0" + bytes(6) + b"\xff\xff" + bytes(8)),
    "palette": png_file(2, 1, 8, 3, b"\0\0\1", chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\xff\0")),
}


@pytest.mark.parametrize("name", BARS)
def test_a_black_shape_on_nothing_is_seen_on_white_and_not_on_black(name: str) -> None:
    found = decode_image(BARS[name])
    assert (found[2:4] <= 9).all()
    assert (np.delete(found, [2, 3], axis=0) == 255).all()
    assert (decode_image(BARS[name], decoding=Decoding("black")) <= 9).all()


@pytest.mark.parametrize("name", PAIRS)
def test_what_a_file_hides_is_the_ground(name: str) -> None:
    assert decode_image(PAIRS[name])[0].tolist() == [[0] * 3, [255] * 3]
    assert decode_image(PAIRS[name], decoding=Decoding("black"))[0].tolist() == [[0] * 3, [0] * 3]


@given(st.integers(0, 255), st.integers(0, 255), st.sampled_from(["white", "black"]))
def test_half_transparent_pixels_are_mixed_with_the_ground(value: int, alpha: int, ground: str) -> None:
    content = file(Image.new("RGBA", (2, 2), (value, 0, 255, alpha)), "PNG")
    below = {"white": 255, "black": 0}[ground]
    expected = [(part * alpha + below * (255 - alpha)) / 255 for part in (value, 0, 255)]
    found = decode_image(content, decoding=Decoding(ground))
    assert np.abs(found[0, 0] - np.array(expected)).max() <= 1


# What is seen of an image, for the cache


def seen(content: bytes, decoding: Decoding = DEFAULT_DECODING) -> Seen:
    noted: list[Seen] = []
    load_input(content, (8, 8), "none", decoding, noted.append)
    return noted[0]


@pytest.mark.parametrize("name", [*FILES, *PAIRS, *DEEP])
def test_an_image_depends_on_the_options_that_change_its_pixels(name: str) -> None:
    content = deep(name, [0, 9, 99]) if name in DEEP else (FILES | PAIRS)[name]
    usual = decode_image(content)
    assert seen(content).depends in outcomes(DEFAULT_DECODING)
    for option, other in (
        ("transparent", "black"),
        ("max_value", 2),
        ("max_value", 254),
        ("max_value", 4095),
    ):
        decoding = replace(DEFAULT_DECODING, **{option: other})
        depends = seen(content, decoding).depends
        assert depends in outcomes(decoding)
        if not np.array_equal(decode_image(content, decoding=decoding), usual):
            assert f"{option}: {other}" in str(depends)
    if name in ("JPEG RGB", "JPEG CMYK", "BMP", "PNG RGB", "PNG L", "PNG 1", "PNG P", "WebP", "TIFF RGB"):
        assert seen(content).depends is None


def test_an_opaque_image_in_a_mode_with_alpha_depends_on_no_ground() -> None:
    content = file(photo().convert("RGB").convert("RGBA"), "PNG")
    np.testing.assert_array_equal(decode_image(content), np.asarray(photo().convert("RGB")))
    assert seen(content).depends is None


def test_what_counts_under_other_options_is_told_apart() -> None:
    transparent, deep_one = FILES["PNG RGBA"], deep("16 bits", [1, 2])
    white, black = Decoding(), Decoding("black")
    assert seen(transparent, black).depends not in outcomes(white)
    assert seen(deep_one, black).depends in outcomes(white)
    assert seen(deep_one, Decoding(max_value=4095)).depends not in outcomes(white)
    assert seen(FILES["JPEG RGB"], Decoding("black", 4095)).depends in outcomes(white)
    assert seen(FILES["JPEG RGB"]).depends not in outcomes(Decoding(max_value=15))  # of 8 bits, scaled


@pytest.mark.parametrize(
    ("content", "highest", "white"),
    [
        (deep("16 bits", [7, 4095]), 4095, 65535),
        (deep("32 bits", [7, 99_999]), 99_999, 65535),
        (deep("floats", [0.5, 255]), 255, 1),
        (FILES["JPEG L"], 235, 255),
        (file(Image.new("L", (9, 9), 15), "PNG"), 15, 255),
    ],
    ids=["16 bits", "32 bits", "floats", "8 bits", "dark"],
)
def test_the_highest_value_is_told_with_what_stands_for_white(content, highest, white) -> None:
    assert seen(content).white == white
    assert seen(content).highest == pytest.approx(highest, rel=0.1)


@pytest.mark.parametrize(
    ("content", "lowest"),
    [
        (deep("floats", [-1, 1]), -1),
        (deep("floats", [0, 1]), 0),
        (deep("32 bits", [-9999, 200]), -9999),
        (FILES["JPEG L"], 0),
    ],
    ids=["floats", "none below", "32 bits", "8 bits"],
)
def test_values_below_black_are_told(content: bytes, lowest: float) -> None:
    assert seen(content).lowest == lowest
    assert decode_image(content).min() >= 0


# Failures that say nothing of the image


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "memory did not suffice to decode it"),
        (OSError(24, "Too many open files"), "the system failed to decode it: Too many open files"),
    ],
)
def test_a_failure_of_memory_or_system_is_no_verdict(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    for decode in (decode_image, lambda content: load_input(content, (8, 8), "tf")):
        with pytest.raises(UndecidedImageError, match=reason):
            decode(FILES["PNG RGB"])


ADDRESSES = "int(open('/proc/self/status').read().partition('VmSize:')[2].split()[0]) * 1024"


def test_an_image_that_does_not_fit_into_memory_is_undecided() -> None:
    code = (
        "import resource, sys; from tuner.images.decoding import decode_image\n"
        "from tuner.base.errors import UndecidedImageError\n"
        "content = sys.stdin.buffer.read()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({ADDRESSES} + 100 * 2**20,) * 2)\n"
        "try: decode_image(content)\n"
        "except UndecidedImageError as error: print(error)"
    )
    content = file(Image.new("1", (13_300, 13_300)), "PNG")
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "memory did not suffice to decode it"


def test_a_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    content = file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(content))))) == 2
    assert decode_image(content)[0, 0].tolist() == [255, 0, 0]


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "empty file"),
        (b"", "empty file"),
        (b"hello, this is no image at all", "not an image of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image of a known format"),
        (file(Image.new("RGB", (9, 9)), "ICO"), "not an image of a known format"),
        (png_that_claims(20_000, 20_000), "too large: .*400000000 pixels"),
        (png_that_claims(12_000, 12_000), "truncated"),
    ],
    ids=["null", "empty", "text", "svg", "ico", "bomb", "claims too much"],
)
def test_what_is_no_image_is_refused_with_its_reason(content: bytes | None, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode_image(content)


def test_the_limit_of_pixels_can_be_lowered() -> None:
    content = file(Image.new("RGB", (40, 30)), "PNG")
    assert decode_image(content, max_pixels=1200).shape == (30, 40, 3)
    with pytest.raises(ImageError, match="too large: 40 x 30 pixels"):
        decode_image(content, max_pixels=1199)


@pytest.mark.parametrize("name", ["JPEG RGB", "PNG RGB", "GIF", "BMP", "WebP", "TIFF RGB"])
def test_a_truncated_file_is_refused_wherever_it_ends(name: str) -> None:
    content = FILES[name]
    reasons = set()
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(ImageError) as caught:
            decode_image(content[: int(len(content) * share)])
        reasons.add(str(caught.value))
    assert all("\n" not in reason and len(reason) < 200 for reason in reasons)
    if name != "WebP":  # whose decoder does not tell
        assert "truncated" in reasons


@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=20),
)
def test_damaged_bytes_give_pixels_or_an_image_error(name: str, changes: list[tuple[float, int]]) -> None:
    content = bytearray(FILES[name])
    for place, value in changes:
        content[int(place * len(content))] = value
    with contextlib.suppress(ImageError):
        # The limit keeps a damaged header from claiming gigabytes.
        assert decode_image(bytes(content), max_pixels=10**6).shape[2] == 3


def test_threads_do_not_touch_the_filters_of_warnings() -> None:
    before = list(warnings.filters)

    def decode() -> None:
        for _ in range(100):
            decode_image(FILES["PNG P transparent"])

    threads = [threading.Thread(target=decode) for _ in range(6)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert list(warnings.filters) == before


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", [dict, lambda fields: Row(**fields)])
def test_an_image_struct_becomes_rgb(channels: int, kind: type) -> None:
    stored = np.arange(2 * 3 * channels, dtype=np.uint8).reshape(2, 3, channels)
    fields = {"height": 2, "width": 3, "nChannels": channels, "data": bytearray(stored.tobytes())}
    found = struct_to_image(kind(fields))
    assert found.shape == (2, 3, 3)
    for rgb, bgr in enumerate([0, 0, 0] if channels == 1 else [2, 1, 0]):
        if channels == 4:
            alpha = stored[..., 3].astype(float) / 255
            expected = stored[..., bgr] * alpha + 255 * (1 - alpha)
            assert np.abs(found[..., rgb] - expected).max() <= 1
        else:
            np.testing.assert_array_equal(found[..., rgb], stored[..., bgr])


@pytest.mark.parametrize("decoding", [Decoding(), Decoding("black"), Decoding(max_value=40)])
def test_a_struct_and_a_file_of_the_same_pixels_are_decoded_alike(decoding: Decoding) -> None:
    for name, order in (("PNG RGBA", [2, 1, 0, 3]), ("PNG RGB", [2, 1, 0]), ("PNG L", None)):
        pixels = np.asarray(Image.open(io.BytesIO(FILES[name])))
        height, width = pixels.shape[:2]
        data = (pixels if order is None else pixels[..., order]).tobytes()
        fields = {"height": height, "width": width, "nChannels": len(order or [0]), "data": data}
        np.testing.assert_array_equal(
            struct_to_image(fields, decoding), decode_image(FILES[name], decoding=decoding)
        )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (None, "empty image"),
        ({"height": -1, "width": -1, "nChannels": -1, "data": b""}, "empty image"),
        ({"height": None, "width": None, "nChannels": None, "data": None}, "empty image"),
        ({"height": float("nan"), "width": 1, "nChannels": 3, "data": b"abc"}, "without its height"),
        ({"height": -1, "width": -1, "nChannels": 3, "data": b"abc"}, "do not make"),
        ({"height": 1, "width": 2, "nChannels": 3, "data": b"abc"}, "3 bytes do not make 1 x 2 pixels"),
        ({"height": 1, "width": 1, "nChannels": 2, "data": b"ab"}, "of 2 channels"),
    ],
)
def test_a_bad_image_struct_is_refused(fields: dict[str, object] | None, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        struct_to_image(fields)  # type: ignore[arg-type]


def test_spark_reads_a_png_to_a_struct_of_the_same_pixels(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("PNG RGB", "PNG RGBA", "PNG L"):
        (tmp_path / f"{name.replace(' ', '_')}.png").write_bytes(FILES[name])
    rows = spark.read.format("image").load(str(tmp_path)).select("image").collect()
    found = {row["image"]["nChannels"]: struct_to_image(row["image"]) for row in rows}
    for channels, name in ((3, "PNG RGB"), (1, "PNG L"), (4, "PNG RGBA")):
        np.testing.assert_array_equal(found[channels], decode_image(FILES[name]))


def test_the_module_needs_neither_spark_nor_tensorflow() -> None:
    code = (
        "import sys; import tuner.images.decoding; "
        "print({'pyspark', 'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_decoding_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "noisy.png").write_bytes(FILES["PNG P transparent"])
    code = (
        "import sys, pathlib; from tuner.images.decoding import decode_image;"
        "print(decode_image(pathlib.Path(sys.argv[1]).read_bytes()).shape)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "noisy.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("(48, 64, 3)", "")
