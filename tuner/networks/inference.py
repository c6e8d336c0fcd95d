"""Images → features within one process, in batches, with a reason for each image left out; no Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from tuner.base.errors import ImageError
from tuner.images.decoding import Seen, load_input, resize, struct_to_image
from tuner.images.preprocessing import preprocess
from tuner.networks.files import FeatureFunction
from tuner.networks.resolution import Network

NOT_FINITE = "the network gives features that are not finite numbers"
BATCH_SIZE = 16  # of the first batch, half of 32 or more is memory that is touched for the first time

Read = Callable[[Any], np.ndarray]
Outcome = tuple[np.ndarray | None, str | None]  # what an image gave, or the reason why it gave nothing


def content_reader(network: Network, note: Callable[[Seen], None] | None = None) -> Read:
    """Bytes of a file → float32 of shape (height, width, 3), ready for the network.

    `note` is told what else was seen of each image that can be read.
    """
    size, mode, decoding = network.input_size, network.preprocessing, network.decoding
    return lambda content: load_input(content, size, mode, decoding, note)


def struct_reader(network: Network) -> Read:
    """A row of Spark's image struct → the same."""
    size, mode, decoding = network.input_size, network.preprocessing, network.decoding
    return lambda struct: preprocess(resize(struct_to_image(struct, decoding), size), mode)


def featurize(
    images: Iterable[Any],
    read: Read,
    compute: FeatureFunction,
    batch_size: int,
    apply: Callable[[Callable[[Any], Outcome], Iterable[Any]], Iterable[Outcome]] = map,
) -> Iterator[Outcome]:
    """Give (features, None), or (None, reason) where there are none, for each image in order.

    There are none of an image that cannot be read, or whose features are not finite. Features are float32
    of shape (width,). `apply` reads a batch's images: `map`, or that of a pool of threads, for Pillow
    decodes outside Python's lock.
    """

    def outcome(image: Any) -> Outcome:
        try:
            return read(image), None
        except ImageError as error:
            return None, str(error)

    remaining = iter(images)
    # Each is decoded as it is read: of large files one is held, not a batch.
    while outcomes := list(apply(outcome, islice(remaining, batch_size))):
        arrays = [array for array, _ in outcomes if array is not None]
        features = iter(map(_finite, compute(np.stack(arrays)) if arrays else ()))
        yield from ((None, reason) if reason else next(features) for _, reason in outcomes)


def _finite(features: np.ndarray) -> Outcome:
    return (features, None) if np.isfinite(features).all() else (None, NOT_FINITE)
