"""Hostile and odd inputs, made by code: single images, and whole sources, each with what must become of it.

`python tests/corpus.py FOLDER` writes them to a folder, to look at.
"""

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageCms

ODD, OTHER = "odd", "other"  # the classes of the folder of image cases


@dataclass(frozen=True)
class Case:
    """One input: `make` writes it into an empty folder; `reason` is a pattern of what is said of it.

    An image is `used` or `quarantined`, a source `used` or `refused`.
    """

    name: str
    make: Callable[[Path], object]
    outcome: Literal["used", "quarantined", "refused"]
    reason: str = ""


def picture(name: str, height: int = 24, width: int = 32) -> Image.Image:
    """An RGB picture that is like no other name's."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.copy().save(buffer, kind, **options)  # a copy: Pillow keeps options with the image
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, data: bytes, more: bytes = b"") -> bytes:
    """A PNG by hand: `data` are the filtered rows, before compression."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(data, 9))
    return b"\x89PNG\r\n\x1a\n" + header + more + rows + chunk(b"IEND", b"")


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x112] = orientation
    return block


def frames(name: str) -> dict[str, object]:
    return {"save_all": True, "append_images": [picture(f"{name} {number}") for number in range(3)]}


def png_of(name: str) -> bytes:
    return encoded(picture(name), "PNG")


def jpeg_of(name: str) -> bytes:
    return encoded(picture(name, 96, 128), "JPEG", quality=90)


def claimed_jpeg(side: int) -> bytes:
    """A JPEG whose header claims so many pixels a side."""
    content = bytearray(jpeg_of("claimed"))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", side, side)
    return bytes(content)


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# Images -------------------------------------------------------------------------------------------


def content(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def named(name: str) -> Callable[[Path], object]:
    return content(name, png_of(name))


def in_both(one: bytes) -> Callable[[Path], object]:
    """The same bytes in the class of odd images and in the other one."""

    def make(folder: Path) -> None:
        twin = folder.parents[1] / OTHER / folder.name
        twin.mkdir(parents=True)
        for place in (folder, twin):
            (place / "copy.png").write_bytes(one)

    return make


def linked_loop(folder: Path) -> None:
    (folder / "1.png").write_bytes(png_of("loop"))
    (folder / "down").mkdir()
    (folder / "down" / "up").symlink_to(folder)
    (folder / "down" / "class").symlink_to(folder.parent)


def copies(folder: Path) -> None:
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png_of("copies"))


def not_utf8(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).write_bytes(png_of("not UTF-8"))


def sparse(folder: Path) -> None:
    with (folder / "huge.png").open("wb") as huge:
        huge.truncate(2**40)  # no block of it is on the disk


def nested(folder: Path) -> None:
    (folder / "a.jpg" / "b.png").mkdir(parents=True)
    (folder / "a.jpg" / "b.png" / "c.gif").write_bytes(png_of("nested"))


_RGB = picture("rgb")
_JPEG = jpeg_of("cut")
_TEXT_BOMB = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(20 * 2**20), 9))
_ICC_BOMB = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(20 * 2**20), 9))

USED_IMAGES = {
    "jpeg": content("1.jpg", jpeg_of("jpeg")),
    "jpeg gray": content("1.jpg", encoded(picture("gray").convert("L"), "JPEG")),
    "jpeg progressive": content("1.jpg", encoded(picture("progressive"), "JPEG", progressive=True)),
    "jpeg CMYK": content("1.jpg", encoded(picture("cmyk").convert("CMYK"), "JPEG")),
    "jpeg with bytes after its end": content("1.jpg", jpeg_of("after") + b"<?php ?>" * 99),
    "jpeg of two pictures": content("1.jpg", encoded(picture("mpo"), "MPO", **frames("mpo"))),
    "png named jpg": content("1.jpg", png_of("png named jpg")),
    "no ending": content("image", png_of("no ending")),
    "ending in capitals": content("1.PNG", png_of("capitals")),
    "one pixel": content("1.png", encoded(picture("pixel", 1, 1), "PNG")),
    "wide": content("1.png", encoded(picture("wide", 1, 20_000), "PNG")),
    "tall": content("1.png", encoded(picture("tall", 20_000, 1), "PNG")),
    "gif animated": content("1.gif", encoded(picture("gif"), "GIF", **frames("gif"))),
    "png animated": content("1.png", encoded(picture("apng"), "PNG", **frames("apng"))),
    "webp animated": content("1.webp", encoded(picture("webp"), "WEBP", **frames("webp"))),
    "tiff of pages": content("1.tif", encoded(picture("tiff"), "TIFF", **frames("tiff"))),
    "tiff CMYK": content("1.tif", encoded(picture("tiff cmyk").convert("CMYK"), "TIFF")),
    "tiff LAB": content("1.tif", encoded(Image.new("LAB", (9, 9), (99, 140, 120)), "TIFF")),
    "tiff of floats": content(
        "1.tif", encoded(Image.fromarray(np.linspace(0, 1, 99, dtype=np.float32)[None]), "TIFF")
    ),
    "bmp": content("1.bmp", encoded(picture("bmp"), "BMP")),
    "png of 1 bit": content("1.png", encoded(picture("1 bit").convert("1"), "PNG")),
    "png of 16 bits": content(
        "1.png", encoded(Image.fromarray(np.arange(0, 65536, 64, np.uint16).reshape(32, 32)), "PNG")
    ),
    "png of 16 bits a colour": content("1.png", png(1, 1, 16, 2, b"\0" + b"\xff\xff\x80\0\0\0")),
    "png with a palette": content(
        "1.png", encoded(picture("palette").quantize(32), "PNG", transparency=bytes(range(0, 256, 8)))
    ),
    "png with alpha": content("1.png", encoded(picture("alpha").convert("RGBA"), "PNG")),
    "png with gray and alpha": content("1.png", encoded(picture("gray alpha").convert("LA"), "PNG")),
    "png of which nothing is opaque": content("1.png", encoded(Image.new("RGBA", (9, 9)), "PNG")),
    "png with a transparent colour": content(
        "1.png", encoded(picture("trns"), "PNG", transparency=(9, 9, 9))
    ),
    "png of 16 bits with a transparent gray": content(
        "1.png", png(2, 1, 16, 0, b"\0\0\5\x12\x34", chunk(b"tRNS", b"\x12\x34"))
    ),
    "png of 16 bits with alpha": content("1.png", png(1, 1, 16, 6, b"\0" + b"\xff\xff\x80\0\0\0\x80\0")),
    "png of 12 bits in 16": content(
        "1.png", encoded(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), "PNG")
    ),
    "gif with a transparent colour": content(
        "1.gif", encoded(picture("gif hole").quantize(16), "GIF", transparency=3)
    ),
    "webp with alpha": content("1.webp", encoded(picture("webp a").convert("RGBA"), "WEBP", lossless=True)),
    "tiff with alpha": content("1.tif", encoded(picture("tiff a").convert("RGBA"), "TIFF")),
    "tiff of whole numbers of 32 bits": content(
        "1.tif", encoded(Image.fromarray(np.arange(0, 65536, 64, np.int32)[None]), "TIFF")
    ),
    "tiff of floats beyond 1": content(
        "1.tif", encoded(Image.fromarray(np.linspace(-9, 255, 99, dtype=np.float32)[None]), "TIFF")
    ),
    "png with more data than pixels": content("1.png", png(1, 1, 8, 2, bytes(50 * 2**20))),
    "png without its end": content("1.png", png_of("no IEND")[:-12]),
    "icc profile": content("1.jpg", encoded(picture("icc"), "JPEG", icc_profile=srgb())),
    "icc garbage": content("1.png", encoded(picture("icc garbage"), "PNG", icc_profile=b"garbage")),
    "exif rotated": content("1.jpg", encoded(picture("exif 6"), "JPEG", exif=exif(6))),
    "exif of no meaning": content("1.jpg", encoded(picture("exif 99"), "JPEG", exif=exif(99))),
    "exif garbage": content("1.png", encoded(picture("exif"), "PNG", exif=b"Exif\0\0no block at all")),
    "name of two lines": named("two\nlines.png"),
    "name with a return": named("carriage\rreturn\ttab.png"),
    "name of emoji": named("🐈‍⬛👩🏽‍🚀.png"),
    "name of 255 bytes": named("ü" * 125 + "x.png"),
    "name of markup": named("[bold]<script>alert(1)<script>[bold].png"),
    "name of a formula": named("=1+1,\"2\";'3'.png"),
    "name of a pattern": named("100%25 [x]{y}*?:#\\.png"),
    "name of an option": named("--rm -rf.png"),
    "folders named as files": nested,
    "links that lead back": linked_loop,
    "copies in one class": copies,
}

QUARANTINED_IMAGES = {
    "no bytes": (content("1.jpg", b""), "^empty file$"),
    "no bytes in two classes": (in_both(b""), "^empty file$"),
    "jpeg cut at a tenth": (content("1.jpg", _JPEG[: len(_JPEG) // 10]), "truncated|not an image"),
    "jpeg cut in the middle": (content("1.jpg", _JPEG[: len(_JPEG) // 2]), "^truncated$"),
    "jpeg cut before its end": (content("1.jpg", _JPEG[:-200]), "^truncated$"),
    "jpeg of a start alone": (content("1.jpg", b"\xff\xd8\xff\xe0"), "not an image|truncated"),
    "jpeg that claims too much": (content("1.jpg", claimed_jpeg(65_500)), "^too large: .*pixels"),
    "png cut": (content("1.png", png_of("png cut")[:900]), "^truncated$"),
    "png with a wrong checksum": (
        content("1.png", png(9, 9, 8, 2, b"\0" * 252)[:-20] + bytes(20)),
        "damaged",
    ),
    "png bomb": (content("1.png", png(14_000, 14_000, 1, 0, bytes(1751 * 14_000))), "^too large: .*pixels"),
    "png with a bomb of text": (content("1.png", png(1, 1, 8, 2, bytes(4), _TEXT_BOMB)), "too large"),
    "png with a bomb of a profile": (content("1.png", png(1, 1, 8, 2, bytes(4), _ICC_BOMB)), "too large"),
    "png of no size": (content("1.png", png(0, 5, 8, 2, bytes(5))), "not an image"),
    "gif cut": (content("1.gif", encoded(_RGB, "GIF")[:-200]), "^truncated|^damaged"),
    "gif without a picture": (content("1.gif", encoded(_RGB, "GIF")[:13] + b";"), "^not an image"),
    "webp cut": (content("1.webp", encoded(_RGB, "WEBP")[:100]), "^damaged"),
    "tiff cut": (content("1.tif", encoded(_RGB, "TIFF")[:500]), "^truncated$"),
    "bmp cut": (content("1.bmp", encoded(_RGB, "BMP")[:500]), "^truncated$"),
    "text": (content("1.jpg", b"not an image at all\n" * 99), "^not an image of a known format$"),
    "web page": (content("1.png", b"<!DOCTYPE html><script>alert(1)</script>"), "^not an image"),
    "web page in two classes": (in_both(b"<!DOCTYPE html><title>404</title>"), "^not an image"),
    "svg": (content("1.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "^not an image"),
    "postscript": (content("1.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "^not an image"),
    "icon": (content("1.png", encoded(_RGB, "ICO", sizes=[(16, 16)])), "^not an image"),
    "pickle": (content("1.jpg", b"cposix\nsystem\n(S'touch unpickled'\ntR."), "^not an image"),
    "link to nothing": (lambda folder: (folder / "1.png").symlink_to("nowhere"), "No such file"),
    "link to itself": (
        lambda folder: (folder / "1.png").symlink_to("1.png"),
        "Too many levels of symbolic",
    ),
    "pipe": (lambda folder: os.mkfifo(folder / "1.png"), "^cannot be read: not a regular file$"),
    "device": (lambda folder: (folder / "1.png").symlink_to("/dev/zero"), "not a regular file"),
    "huge": (sparse, f"^too large: {2**40} bytes$"),
    "name that is not UTF-8": (not_utf8, "^cannot be read: No such file"),
    "one image in two classes": (
        in_both(png_of("conflict")),
        f"^label conflict: also in (?:{ODD}|{OTHER})$",
    ),
}

IMAGE_CASES = (
    *(Case(name, make, "used") for name, make in USED_IMAGES.items()),
    *(Case(name, make, "quarantined", reason) for name, (make, reason) in QUARANTINED_IMAGES.items()),
)


def make_images(root: Path) -> None:
    """All image cases in one folder of two classes: each in a folder of its own, below its class."""
    for label in (ODD, OTHER):
        (root / label).mkdir(parents=True)
        for number in range(10):
            (root / label / f"plain {number}.png").write_bytes(png_of(f"{label} {number}"))
    for case in IMAGE_CASES:
        place = root / ODD / case.name
        place.mkdir()
        case.make(place)


# Sources ------------------------------------------------------------------------------------------


def classes(*names: str, size: int = 5) -> Callable[[Path], None]:
    """Folders of `size` images each."""

    def make(root: Path) -> None:
        for name in names:
            (root / name).mkdir(parents=True)
            for number in range(size):
                (root / name / f"{number}.png").write_bytes(png_of(f"{name} {number}"))

    return make


def many_and_few(root: Path) -> None:
    """10,000 tiny images in one class, 2 in another."""
    for label, size in (("many", 10_000), ("few", 2)):
        (root / label).mkdir()
        for number in range(size):
            row = b"\0" + label[:1].encode() + struct.pack(">H", number)
            (root / label / f"{number}.png").write_bytes(png(1, 1, 8, 2, row))


def with_loose_file(root: Path) -> None:
    (root / "loose.png").write_bytes(png_of("loose"))
    (root / "loop").symlink_to("loop")
    classes("a", "b")(root)


def empty_class(root: Path) -> None:
    classes("a", "b")(root)
    (root / "none").mkdir()


def rows(**columns: pa.Array) -> Callable[[Path], None]:
    """A Parquet of ten good rows of two classes, with columns changed; None leaves one out."""
    good = {"content": _CONTENT, "label": _LABEL}
    table = {name: column for name, column in (good | columns).items() if column is not None}
    return lambda root: pq.write_table(pa.table(table), root / "images.parquet")


def parquets(*tables: dict[str, pa.Array]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for number, table in enumerate(tables):
            pq.write_table(pa.table(table), root / f"{number}.parquet")

    return make


def damaged(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        noise = pa.array([np.random.default_rng(number).bytes(2000) for number in range(10)])
        file = root / "images.parquet"
        pq.write_table(pa.table({"content": noise, "label": _LABEL}), file)
        file.write_bytes(change(file.read_bytes()))

    return make


_CONTENT = pa.array([png_of(f"row {number}") for number in range(10)])
_LABEL = pa.array(["a", "b"] * 5)
_STRUCTS = pa.array(
    [
        {"origin": str(n), "height": 2, "width": 2, "nChannels": 3, "mode": 16, "data": bytes([n] * 12)}
        for n in range(10)
    ]
)
_GOOD = {"content": _CONTENT, "label": _LABEL}
_TYPES = "must be text or whole numbers"


def beside_the_classes(*names: str) -> Callable[[Path], None]:
    """Two classes, and what systems leave beside them: folders with pictures in them, and files."""

    def make(root: Path) -> None:
        classes("cat", "dog")(root)
        for name in names:
            place = root / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(png_of(name))

    return make


def parts(*names: str) -> Callable[[Path], None]:
    """Folders of the same two classes."""
    return classes(*(f"{name}/{label}" for name in names for label in ("cat", "dog")))


def partitioned(*labels: str) -> Callable[[Path], None]:
    """Parquet files in folders of partitions, without the column `label`."""

    def make(root: Path) -> None:
        for label in labels:
            (root / f"label={label}").mkdir(parents=True)
            pq.write_table(pa.table({"content": _CONTENT}), root / f"label={label}" / "part-0.parquet")

    return make


def with_log(log: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        parquets(_GOOD, _GOOD)(root)
        (root / log).parent.mkdir()
        (root / log).write_text("{}")

    return make


USED_SOURCES = {
    "a mac's archive": beside_the_classes("__MACOSX/cat/._0.png", "__MACOSX/x.png", ".DS_Store"),
    "a disk": beside_the_classes("lost+found/1.png", "System Volume Information/1", "$RECYCLE.BIN/1"),
    "a file server": beside_the_classes("@eaDir/1.png", "cat/@eaDir/0.png/x.jpg", "Thumbs.db"),
    "a checkout and a notebook": beside_the_classes(".git/x.png", ".ipynb_checkpoints/1.png"),
    "a table beside the classes": beside_the_classes("metadata.parquet", "metadata.csv"),
    "classes called train and test": classes("train", "test"),
    "classes that hold train and test": classes("cat/train", "cat/test", "dog/train", "dog/test"),
    "partitions": partitioned("001", "1", "a%20b"),
    "hugging face's struct": lambda root: rows(
        content=None, image=pa.array([{"bytes": one.as_py(), "path": None} for one in _CONTENT])
    )(root),
    "spark's struct": lambda root: rows(content=None, image=_STRUCTS)(root),
    "labels": lambda root: rows(label=None, labels=_LABEL)(root),
    "classes that differ by case": classes("Cat", "cat"),
    "classes that differ by normal form": classes("caf\u00e9", "cafe\u0301"),
    "classes of odd names": classes(
        "<script>alert(1)<script>", "two\nlines", "🐈", "ü" * 127, "[bold]", "=1+1", "-rf", "a:b", " "
    ),
    "files beside the classes": with_loose_file,
    "parquet": rows(),
    "parquet of whole numbers": rows(label=pa.array([10, 9] * 5, pa.int8())),
    "parquet of dictionaries": rows(label=_LABEL.dictionary_encode()),
    "parquet of large types": rows(
        content=_CONTENT.cast(pa.large_binary()), label=_LABEL.cast(pa.large_string())
    ),
    "parquet with null contents": rows(content=pa.array([None, *_CONTENT.to_pylist()[1:]], pa.binary())),
    "parquet with paths that are numbers": rows(path=pa.array(range(10))),
    "parquet with equal paths": rows(path=pa.array(["../../same.png"] * 10)),
}

REFUSED_SOURCES = {
    "parts of a split": (parts("train", "val", "test"), r"\(test, train, val\) look like the parts of a"),
    "parts in capitals": (parts("Training", "TEST"), "Set split.given: folders to keep that split"),
    "parts one folder deeper": (parts("photos/train", "photos/test"), "did you mean .*photos, which holds"),
    "parquets of parts": (
        lambda root: [
            pq.write_table(pa.table(_GOOD), root / f"{part}-00000-of-00001.parquet")
            for part in ("train", "test")
        ],
        "look like the parts of a split. Set split.given: folders",
    ),
    "a delta table": (with_log("_delta_log/00000000000000000000.json"), "belongs to a Delta table"),
    "a hudi table": (with_log(".hoodie/hoodie.properties"), "belongs to a Hudi table"),
    "an iceberg table": (with_log("metadata/v1.metadata.json"), "belongs to an Iceberg table"),
    "partitions without a label": (
        partitioned("a", "__HIVE_DEFAULT_PARTITION__"),
        "column label of .* has nulls",
    ),
    "nothing": (classes(), "There is no class folder in"),
    "one class": (classes("a"), "only the class a in .*at least two classes"),
    "one class in a hidden folder": (classes("a", ".b"), "only the class a in"),
    "an empty class": (empty_class, "The class folder .*none has no images"),
    "10,000 and 2": (many_and_few, "The class few has 2 usable image.*none of it in test"),
    "parquet without contents": (rows(content=None), "has no column content"),
    "parquet without labels": (rows(label=None), "has no column label"),
    "parquet of columns in capitals": (rows(label=None, LABEL=_LABEL), "has no column label"),
    "parquet with a column twice": (rows(Label=_LABEL), "column `label` already exists"),
    "parquet with null labels": (rows(label=pa.array([None, *"abababaab"])), "label of .* has nulls"),
    "parquet of null labels": (rows(label=pa.nulls(10)), "label of .* (has nulls|is )"),
    "parquet with empty labels": (rows(label=pa.array(["", *"abababaab"])), "label of .* has empty text"),
    "parquet of one class": (rows(label=pa.array(["a"] * 10)), "only the class a in"),
    "parquet without rows": (rows(content=_CONTENT[:0], label=_LABEL[:0]), "There is no image in"),
    "parquet of text contents": (rows(content=pa.array(["x"] * 10)), "content of .* is string: .*binary"),
    "parquet of struct contents": (
        rows(content=pa.array([{"bytes": b"x"}] * 10)),
        "content of .* is struct.*binary",
    ),
    "parquet of floating labels": (rows(label=pa.array([0.5] * 10)), f"is double: it {_TYPES}"),
    "parquet of true and false": (rows(label=pa.array([True, False] * 5)), f"is boolean: it {_TYPES}"),
    "parquet of list labels": (rows(label=pa.array([["a"], ["b"]] * 5)), f"is array<string>: it {_TYPES}"),
    "parquet of binary labels": (rows(label=_CONTENT), f"is binary: it {_TYPES}"),
    "parquets of other labels": (
        parquets(_GOOD, _GOOD | {"label": pa.array([1, 2] * 5)}),
        r"cannot be read: \[",
    ),
    "parquets of other contents": (
        parquets(_GOOD, _GOOD | {"content": pa.array(range(10))}),
        r"cannot be read: \[FAILED_READ_FILE.*1\.parquet",
    ),
    "parquet of no bytes": (content("images.parquet", b""), r"cannot be read: \["),
    "parquet that is text": (content("images.parquet", b"not Parquet at all"), r"cannot be read: \["),
    "parquet cut": (damaged(lambda file: file[: len(file) // 2]), r"cannot be read: \["),
    "parquet with a damaged page": (
        damaged(lambda file: b"PAR1" + b"\xff" * 196 + file[200:]),
        r"cannot be read: \[FAILED_READ_FILE.*images\.parquet",
    ),
}

SOURCE_CASES = (
    *(Case(name, make, "used") for name, make in USED_SOURCES.items()),
    *(Case(name, make, "refused", reason) for name, (make, reason) in REFUSED_SOURCES.items()),
)


def make_sources(root: Path) -> None:
    """All source cases, each in a folder of its own."""
    for case in SOURCE_CASES:
        (root / case.name).mkdir(parents=True)
        case.make(root / case.name)


if __name__ == "__main__":
    make_images(Path(sys.argv[1]) / "images")
    make_sources(Path(sys.argv[1]) / "sources")
