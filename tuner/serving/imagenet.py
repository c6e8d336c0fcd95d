"""`ImageNetScorer`: a network with its own head names what is in images; Keras and NumPy, no Spark."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from tuner.base.columns import ERROR, PREDICTION, PROBABILITY, TOP_K
from tuner.base.machine import machine_cores
from tuner.experiment.networks import NetworkSpec
from tuner.networks.imagenet import check_head, decode_predictions, imagenet_classes
from tuner.networks.inference import BATCH_SIZE, content_reader, featurize
from tuner.networks.resolution import Network, load_network, resolve_network
from tuner.networks.store import NetworkStore
from tuner.networks.table import find_architecture


class ImageNetScorer:
    """A network with its head for ImageNet's classes, on the bytes of image files in this process.

    It gives what `DeepImagePredictor` gives on Spark.

    Parameters
    ----------
    network
        Its `file` is where the network lies here.
    threads
        For TensorFlow, and for decoding; None: this machine's cores.

    Raises
    ------
    NetworkError
        The network has no such head.
    """

    score_column = PROBABILITY
    listed = ("class", "label", PROBABILITY)  # what is known of each of the likeliest classes

    def __init__(self, network: Network, threads: int | None = None) -> None:
        check_head(network.name, network.width)
        threads = threads or machine_cores()
        self.labels = tuple(name for _, name in imagenet_classes())
        self._read = content_reader(network)
        self._compute = load_network(network, Path(network.file), threads)
        self._pool = ThreadPoolExecutor(threads)

    @classmethod
    def of(cls, name: str) -> ImageNetScorer:
        """Open a network of the table, with the weights of its own.

        Parameters
        ----------
        name
            Such as EfficientNetLite0.

        Raises
        ------
        NetworkError
            There is no such network, it has no such head, or its weights cannot be had.
        """
        find_architecture(name)
        return cls(resolve_network(NetworkSpec(name=name), "float32", NetworkStore(), include_top=True))

    def answer(self, contents: Sequence[bytes | None], top_k: int = 0) -> pd.DataFrame:
        """Name what is in images.

        Parameters
        ----------
        contents
            The bytes of n files.
        top_k
            How many of the likeliest classes to list; 0: none.

        Returns
        -------
        pandas.DataFrame
            A row for each: `prediction` (the likeliest class's name), `probability` (list of 1,000 floats,
            in ImageNet's order) and `error`: why an image cannot be read; then the others are None. With
            `top_k`, a column of that name: lists of `class` (WordNet's id), `label` (name) and
            `probability`, the likeliest first.
        """
        outcomes = list(featurize(contents, self._read, self._compute, BATCH_SIZE, self._pool.map))
        rows = [self._row(probability, top_k) for probability, _ in outcomes]
        table = pd.DataFrame(rows, columns=[PREDICTION, PROBABILITY, TOP_K], dtype=object)
        table.insert(2, ERROR, [reason for _, reason in outcomes])
        return table if top_k else table.drop(columns=TOP_K)

    def _row(self, probability: np.ndarray | None, top_k: int) -> tuple[object, ...]:
        if probability is None:
            return None, None, None
        likeliest = decode_predictions(probability[None], max(top_k, 1))[0]
        listed = [dict(zip(self.listed, likely, strict=True)) for likely in likeliest]
        return likeliest[0][1], probability.tolist(), listed
