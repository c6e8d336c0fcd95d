"""The confusion matrix as a small image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tuner.evaluation.metrics import Evaluation

LOWEST, HIGHEST = np.array([247, 251, 255]), np.array([8, 48, 107])  # RGB of the row shares 0 and 1
_PREDICTED = "predicted →"
_LONGEST = 24  # letters of a name


def confusion_image(evaluation: Evaluation) -> Image.Image:
    """Draw the confusion matrix as a small picture, for MLflow's compare page.

    Returns
    -------
    PIL.Image.Image
        RGB, about 600 pixels a side, for MLflow shows it small. A name that cannot be drawn, or not so that
        it is told apart, is given as its position (`#3`).
    """
    labels = evaluation.labels
    try:
        return _matrix(evaluation, _drawable(labels, _font(_size(_cell(len(labels))))))
    except (ValueError, OSError):  # what libraries that lay text out make of some text is theirs to know
        return _matrix(evaluation, [f"#{index}" for index in range(len(labels))])


def _cell(classes: int) -> int:
    """The pixels of a cell of the matrix."""
    return max(4, min(64, 560 // classes))


def _size(cell: int) -> int:
    """The font's, beside such cells."""
    return max(11, min(18, cell * 2 // 5))


def _matrix(evaluation: Evaluation, names: Sequence[str]) -> Image.Image:
    counts, shares = evaluation.confusion, row_shares(evaluation.confusion)
    cell = _cell(len(counts))
    font = _font(_size(cell))
    margin = 20 + int(max(font.getlength(text) for text in (*names, _PREDICTED)))
    side = margin + cell * len(counts) + 14
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)
    _draw_names(picture, names, cell, margin, font)
    colours = np.rint(LOWEST + shares[..., None] * (HIGHEST - LOWEST)).astype(np.uint8)
    grid = Image.fromarray(colours).resize((cell * len(counts),) * 2, Image.Resampling.NEAREST)
    picture.paste(grid, (margin, margin))
    draw.rectangle((margin - 1, margin - 1, side - 14, side - 14), outline="grey")
    if cell >= 20:  # else there is no room for a number
        for (row, column), count in np.ndenumerate(counts):
            place = margin + (column + 0.5) * cell, margin + (row + 0.5) * cell
            ink = "white" if shares[row, column] > 0.5 else "black"
            draw.text(place, str(count), fill=ink if count else "lightgrey", font=font, anchor="mm")
    return picture


def _draw_names(
    picture: Image.Image, names: Sequence[str], cell: int, margin: int, font: ImageFont.FreeTypeFont
) -> None:
    """Write the names of the true classes on the left and, turned, of the predicted ones at the top."""
    left, top = Image.new("L", (margin, picture.height)), Image.new("L", (margin, picture.height))
    left_draw, top_draw = ImageDraw.Draw(left), ImageDraw.Draw(top)
    step = math.ceil((font.size + 1) / cell)  # where rows are lower than a line: every second, third, …
    for index in range(0, len(names), step):
        middle = margin + (index + 0.5) * cell
        left_draw.text((margin - 6, middle), names[index], 255, font, anchor="rm")
        top_draw.text((6, middle), names[index], 255, font, anchor="lm")
    picture.paste("black", mask=left)
    picture.paste("black", mask=top.transpose(Image.Transpose.ROTATE_90).crop((0, 0, *picture.size)))
    draw = ImageDraw.Draw(picture)
    draw.text((margin - 6, 4), _PREDICTED, "grey", font, anchor="ra")
    draw.text((4, margin - 6), "true ↓", "grey", font, anchor="ld")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that matplotlib ships: Pillow's own has no letter beyond ASCII."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _drawable(labels: Sequence[str], font: ImageFont.FreeTypeFont) -> list[str]:
    """What is drawn of names: on one line, short, in letters that the font has; else their positions."""
    missing = bytes(font.getmask("\U0010ffff"))
    lines = [" ".join(label.split()) for label in labels]
    drawn = [line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…" for line in lines]
    return [
        text
        if text
        and text.isprintable()
        and drawn.count(text) == 1
        and all(bytes(font.getmask(letter)) != missing for letter in set(text))
        else f"#{index}"
        for index, text in enumerate(drawn)
    ]


def row_shares(counts: np.ndarray) -> np.ndarray:
    """Counts → what share of its row each is; a row of zeros stays one."""
    shares: np.ndarray = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares
