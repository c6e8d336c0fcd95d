"""`tuner.load`: a model that scores paths, bytes, PIL images and arrays, without Spark."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from tuner.api.guest import as_it_was
from tuner.base.columns import ERROR, PATH
from tuner.base.errors import ImageSourceError, ModelError
from tuner.base.uris import expanded
from tuner.images.files import read_file
from tuner.models.loading import load_model
from tuner.models.scorer import Scorer

OneImage = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray
"""A path, the bytes of a file, a PIL image, or an array of pixels."""
Images = OneImage | Sequence[OneImage]

# The others go into a TIFF, with all of their values.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


class Model:
    """A model that a search logged, with which this process scores images.

    Safe to use from several threads at once.

    Parameters
    ----------
    scorer
        The model's JVM-free face.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def __repr__(self) -> str:
        return f"Model({self.scorer.network.name}, {len(self.labels)} classes)"

    @classmethod
    def of(cls, model: str | os.PathLike[str]) -> Model:
        """Open a model, as `tuner.load` does, with what MLflow has set in this process.

        Parameters
        ----------
        model
            As of `tuner.load`.
        """
        return cls(load_model(os.fspath(model)))

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, in the order of the scores."""
        return self.scorer.labels

    def predict(self, images: Images, *, top_k: int = 0) -> pd.DataFrame:
        """Name the class of each image.

        Parameters
        ----------
        images
            One image or a list: paths, bytes of image files, PIL images, arrays of pixels (uint8 of shape
            (h, w), (h, w, 3) or (h, w, 4); or several in one, of shape (n, h, w, 3)).
        top_k
            How many of the likeliest classes to list; 0: none.

        Returns
        -------
        pandas.DataFrame
            A row for each image: `prediction`, `probability` (of each class, in the order of `labels`; of
            a classifier without, `decision`), `error`, why an image cannot be read, and `top_k`, if asked
            for. Where all are paths, `path` stands before.

        Raises
        ------
        ImageSourceError
            What is given is no image, or a path leads nowhere.
        ModelError
            `top_k` is negative.
        """
        if top_k < 0:
            raise ModelError(f"top_k is {top_k}: it must be 0 or more.")
        listed = _listed(images)
        read = [image_content(image) for image in listed]
        table = self.scorer.answer([content for content, _ in read], min(top_k, len(self.labels)))
        table[ERROR] = [problem or error for (_, problem), error in zip(read, table[ERROR], strict=True)]
        if listed and all(isinstance(image, str | os.PathLike) for image in listed):
            table.insert(0, PATH, [os.fspath(image) for image in listed])
        return table

    def score(self, images: Images) -> np.ndarray:
        """Score each image for each class.

        Parameters
        ----------
        images
            As of `predict`, n of them.

        Returns
        -------
        numpy.ndarray
            float64 of shape (n, k), in the order of `labels`: probabilities or, of a classifier without,
            decision values. NaN in the rows of images that cannot be read.

        Raises
        ------
        ImageSourceError
            As of `predict`.
        """
        scores, _ = self.scorer.score([image_content(image)[0] for image in _listed(images)])
        return scores


@as_it_was()
def load(model: str | os.PathLike[str]) -> Model:
    """Load a model without Spark, to score images in this process.

    Parameters
    ----------
    model
        ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``runs:/ID/model`` or a folder.

    Returns
    -------
    Model
        It scores paths, bytes, PIL images and arrays.

    Raises
    ------
    ModelError
        There is no such model, or another tool made it.
    NetworkError
        The model carries no network, and it is not found elsewhere.
    """
    return Model.of(model)


def _listed(images: Images) -> list[Any]:
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image):
        return [images]
    return list(images)


def image_content(image: Any) -> tuple[bytes | None, str | None]:
    """The bytes of an image file, for what a program has of an image; or why a file cannot be read.

    Raises
    ------
    ImageSourceError
        It is no image, or a path that leads nowhere.
    """
    match image:
        case bytes() | bytearray() | memoryview():
            return bytes(image), None
        case Image.Image():
            return _encoded(image), None
        case np.ndarray():
            return _encoded(_picture(image)), None
        case str() | os.PathLike():
            return _read(os.fspath(image))
    raise ImageSourceError(
        f"An image of type {type(image).__name__} cannot be scored: give a path, the bytes of an image "
        "file, a PIL image or a NumPy array of pixels."
    )


def _read(given: str) -> tuple[bytes | None, str | None]:
    try:
        path = expanded(Path(given))
    except ValueError as error:
        raise ImageSourceError(f"There is no image {given}: {error}.") from None
    if not path.is_file():
        raise ImageSourceError(f"There is no image {given}: check the path.")
    return read_file(str(path))


def _picture(pixels: np.ndarray) -> Image.Image:
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if pixels.dtype != np.uint8 or not fits or 0 in pixels.shape:
        raise ImageSourceError(
            f"An array of {pixels.dtype} of shape {pixels.shape} is no image: give uint8 of shape (h, w), "
            "(h, w, 3) or (h, w, 4), with values from 0 to 255."
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _encoded(image: Image.Image) -> bytes:
    """A file with the same pixels: there is one way from files to what a network sees."""
    file = io.BytesIO()
    try:
        if image.mode in _PNG_MODES:  # what says how the picture is turned goes with it
            image.save(file, "PNG", compress_level=1, exif=image.getexif())
        else:
            image.save(file, "TIFF")
    except (OSError, ValueError) as error:
        raise ImageSourceError(f"The image of mode {image.mode} cannot be scored: {error}.") from error
    return file.getvalue()
