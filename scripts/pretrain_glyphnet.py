"""Pre-train GlyphNet on rendered letters and write the weights that the package carries.

The letters are drawn here, from the fonts that matplotlib ships; no digit is among them. The same
seed and the same library versions give the same weights on the same kind of machine.
"""

from __future__ import annotations

import argparse
import math
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.ndimage import map_coordinates

from tuner.networks.embedded.files import NETWORK_FILES
from tuner.networks.embedded.glyphnet import build_glyphnet

SIDE = 32
CANVAS = 64
BATCH = 128
FONTS = ("DejaVu*", "STIXGeneral*", "cmb10*", "cmmi10*", "cmr10*", "cmss10*", "cmti10*", "cmtt10*")
ALPHABETS = ("AZ", "az", "ΑΩ", "αω", "Ая", "ԱՖ", "աֆ", "აჰ", "את", "ءي", "ⴰⵥ")  # first, last


@dataclass(frozen=True)
class Glyph:
    """One letter in one font."""

    letter: str
    font: Path
    character: str


def is_letter(character: str) -> bool:
    """Whether Unicode calls a character a letter; digits, numbers and enclosed letters are not."""
    return unicodedata.category(character) in ("Lu", "Ll", "Lo")


def alphabet() -> list[str]:
    """Return the letters of `ALPHABETS`."""
    characters = [chr(c) for first, last in ALPHABETS for c in range(ord(first), ord(last) + 1)]
    return [character for character in characters if is_letter(character)]


def find_glyphs() -> dict[str, list[Glyph]]:
    """Return the glyphs of every letter: in each font, also its script, fraktur, ... forms."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    glyphs: dict[str, list[Glyph]] = {letter: [] for letter in alphabet()}
    for font in sorted(path for pattern in FONTS for path in folder.glob(pattern)):
        for code in sorted(FT2Font(str(font)).get_charmap()):
            letter = unicodedata.normalize("NFKC", chr(code))
            if letter in glyphs and is_letter(chr(code)):
                glyphs[letter].append(Glyph(letter, font, chr(code)))
    return {letter: variants for letter, variants in glyphs.items() if variants}


@cache
def open_font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    # Basic layout: the other one depends on libraries that not every machine has.
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def draw(glyph: Glyph, rng: np.random.Generator) -> Image.Image:
    """Draw a letter, cropped to its ink, with a stroke thinner or thicker than the font's."""
    font = open_font(glyph.font, 48)
    stroke = int(rng.choice([-1, 0, 0, 0, 1, 2]))
    image = Image.new("L", (3 * CANVAS, 3 * CANVAS))
    middle = (1.5 * CANVAS, 1.5 * CANVAS)
    ImageDraw.Draw(image).text(middle, glyph.character, 255, font, anchor="mm", stroke_width=max(stroke, 0))
    if stroke < 0:
        image = image.filter(ImageFilter.MinFilter(3))
    return image.crop(image.getbbox() or (0, 0, CANVAS, CANVAS))


def warp(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Place ink on the canvas, stretched, turned, sheared, shifted and bent: the hand's part."""
    height, width = ink.shape
    fill = CANVAS * rng.uniform(0.6, 1.0)
    scale_y = height / fill
    scale_x = max(width / fill, scale_y * rng.uniform(0.6, 1.2))
    scale_y = max(scale_y, scale_x * rng.uniform(0.5, 0.8))
    angle, shear = rng.normal(0, 0.15), rng.normal(0, 0.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.diag([scale_y, scale_x]) @ turn @ np.array([[1, 0], [shear, 1]])
    grid = np.mgrid[:CANVAS, :CANVAS].reshape(2, -1) + 0.5 - CANVAS / 2
    bend = rng.normal(0, 3.0, (2, 4, 4)).astype(np.float32)
    grid += np.stack([_enlarge(field) for field in bend]).reshape(2, -1) + rng.normal(0, 2, (2, 1))
    source = matrix @ grid + np.array([[height], [width]]) / 2 - 0.5
    return map_coordinates(ink, source, order=1).reshape(CANVAS, CANVAS)


def _enlarge(field: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(field).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC))


def sample(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bring the canvas to 32 x 32, by way of a camera or scanner that may be coarse or blurred."""
    image = Image.fromarray(ink)
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.5)))
    side = int(rng.choice([8, 8, 10, 12, 16, 24, SIDE]))
    coarse = image.resize((side, side), Image.Resampling.BOX)
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def colour(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paint ink on paper: light on dark or dark on light, any contrast, gray or tinted, noisy."""
    contrast = rng.uniform(0.4, 1.0)
    dark = rng.uniform(0, 1 - contrast)
    paper, pen = rng.permutation([dark, dark + contrast])
    tint = rng.normal(0, 0.1, (2, 3)) * (rng.random() < 0.3)
    paint = ink[..., None] / 255.0
    pixels = (paper + tint[0]) * (1 - paint) + (pen + tint[1]) * paint
    pixels += rng.normal(0, 1, (SIDE, SIDE, 1)) * rng.choice([0, 0.02, 0.06])
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8)


def render(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
    """Return one training image, (32, 32, 3) uint8."""
    ink = np.asarray(draw(glyph, rng))
    return colour(sample(warp(ink, rng), rng), rng)


def render_letters(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return ``count`` images, their classes, and the letters that the classes stand for."""
    rng = np.random.default_rng(seed)
    glyphs = find_glyphs()
    letters = sorted(glyphs)
    classes = rng.integers(len(letters), size=count)
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for image, index in zip(images, classes, strict=True):
        variants = glyphs[letters[index]]
        image[:] = render(variants[rng.integers(len(variants))], rng)
    return images, classes, letters


def train(count: int, epochs: int, seed: int) -> keras.Model:
    """Return GlyphNet, trained with a classifier on top that is then left behind."""
    keras.utils.set_random_seed(seed)
    images, classes, letters = render_letters(count, seed)
    network = build_glyphnet(seed)
    classifier = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            network,
            keras.layers.Dropout(0.2),
            keras.layers.Dense(len(letters), activation="softmax"),
        ]
    )
    steps = epochs * math.ceil(count / BATCH)
    classifier.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    classifier.fit(images, classes, batch_size=BATCH, epochs=epochs, verbose=2)
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000, help="letters to render")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output", type=Path, default=NETWORK_FILES["GlyphNet"])
    options = parser.parse_args()
    # One thread and deterministic operations: sums are then always taken in the same order.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    train(options.images, options.epochs, options.seed).save(options.output)


if __name__ == "__main__":
    main()
