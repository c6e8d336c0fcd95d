"""ImageNet's 1,000 classes, and a network's probabilities as the likeliest of them."""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib.resources import files

import numpy as np

from tuner.base.errors import NetworkError

# `imagenet_classes.csv` has a line a class, in the order of outputs: WordNet's id and its first word, with
# underscores. They make Keras's `imagenet_class_index.json` again to the byte. Source: timm 1.0.31
# (Apache-2.0), `imagenet_synsets.txt` and `imagenet_synset_to_lemma.txt` in `data/_info`; the words are
# those of WordNet 3.0 (Princeton University, WordNet licence).


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Return id and name of the 1,000 classes, as ``("n01440764", "tench")``, in the order of outputs."""
    text = files("tuner.networks").joinpath("imagenet_classes.csv").read_text(encoding="utf-8")
    return tuple((wnid, name) for wnid, name in csv.reader(text.splitlines()))


def decode_predictions(probability: np.ndarray, top_k: int = 5) -> list[list[tuple[str, str, float]]]:
    """Name the likeliest classes of each image, as `keras.applications.imagenet_utils` does.

    Parameters
    ----------
    probability : numpy.ndarray
        ``(n, 1000)``, what a network with ImageNet's head gives.
    top_k : int
        How many classes an image, 1 to 1,000.

    Returns
    -------
    list of list of tuple
        For each image `top_k` of class id, name and probability, the likeliest first; of equals, the
        first in the order of outputs.

    Raises
    ------
    NetworkError
        The shape is another, or `top_k` is out of its range.
    """
    classes = imagenet_classes()
    if probability.ndim != 2 or probability.shape[1] != len(classes):
        raise NetworkError(
            f"ImageNet's classes need probabilities of shape (n, {len(classes)}), not {probability.shape}: "
            "those of a network with its head."
        )
    check_top_k(top_k)
    likeliest = np.argsort(-probability, axis=1, kind="stable")[:, :top_k]
    return [
        [(*classes[place], float(row[place])) for place in places]
        for row, places in zip(probability, likeliest, strict=True)
    ]


def check_top_k(top_k: int) -> None:
    """Refuse a number of classes to name that is out of its range.

    Raises
    ------
    NetworkError
        It is less than 1, or more than there are.
    """
    known = len(imagenet_classes())
    if not 1 <= top_k <= known:
        raise NetworkError(f"topK is the number of classes to name, 1 to {known}, not {top_k}.")


def check_head(name: str, width: int) -> None:
    """Refuse a network that does not give the probabilities of ImageNet's classes.

    Parameters
    ----------
    name, width
        Of the network: what it is called, and how many outputs it has.

    Raises
    ------
    NetworkError
        It has another number of outputs.
    """
    known = len(imagenet_classes())
    if width != known:
        raise NetworkError(
            f"The network {name} gives {width} numbers an image, and ImageNet has {known} classes: give "
            "one with its head (include_top=True)."
        )
