"""`DeepImagePredictor`: the MLlib transformer that names what is in images, by ImageNet's classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark import keyword_only
from pyspark.ml.functions import array_to_vector
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tuner.extraction.udf import VALUES, Output
from tuner.models.stages.transformer import NetworkTransformer
from tuner.networks.imagenet import check_head, check_top_k, decode_predictions
from tuner.networks.resolution import Network

_KIND = "array<struct<class: string, description: string, probability: float>>"
_NAMES = ("class", "description", "probability")
_CLASSES = pa.list_(pa.struct(list(zip(_NAMES, (pa.string(), pa.string(), pa.float32()), strict=True))))


class DeepImagePredictor(NetworkTransformer):
    """ImageNet's classes of each image, by a pre-trained network with its own head.

    The input column holds the bytes of image files, or Spark's image struct. A row that is null or
    cannot be decoded gives a null; `nullCount` counts them, `errorCol` names the reasons.

    Parameters
    ----------
    inputCol, outputCol
        The images' column (binary or image struct), and the column to make.
    modelName
        A network of `tuner.networks.table.NETWORKS` that was trained on ImageNet, such as
        EfficientNetLite0; with `modelFile`, any name.
    topK
        How many of the likeliest classes to list, 1 to 1,000; default: 5.
    decodePredictions
        What the output column holds. True: an array of `topK` structs, the likeliest first: `class`
        (WordNet's id), `description` (the name) and `probability`, as Keras's `decode_predictions` has
        them. False: a vector of all 1,000 probabilities, in the order of ImageNet's classes. Default:
        whether `topK` is given.
    weights, seed
        `imagenet` (default), `random` (drawn with `seed`) or the path of a weights file with the head.
    modelFile, inputSize, preprocessing
        A network of one's own that gives ImageNet's 1,000 probabilities: a `.keras` file or SavedModel
        folder, its input (height, width) in pixels and its preprocessing (`tf`, `caffe`, `torch`, `unit`,
        `none`).
    precision
        `float32` (default) or `bfloat16`.
    transparent, maxValue
        As those of `DeepImageFeaturizer`.
    batchSize
        Images that go through the network at once.
    errorCol
        A column for the reason why a row is null; none by default.
    embedWeights, modelUri
        As those of `DeepImageFeaturizer`.

    References
    ----------
    The transformer of the same name in github.com/databricks/spark-deep-learning, whose defaults these are.
    """

    topK = Param(Params._dummy(), "topK", "how many classes to list", TypeConverters.toInt)
    decodePredictions = Param(
        Params._dummy(), "decodePredictions", "classes, not a vector", TypeConverters.toBoolean
    )

    _include_top = True

    @keyword_only
    def __init__(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        modelName: str | None = None,
        topK: int | None = None,
        decodePredictions: bool | None = None,
        weights: str | None = None,
        seed: int | None = None,
        modelFile: str | None = None,
        inputSize: list[int] | None = None,
        preprocessing: str | None = None,
        precision: str | None = None,
        transparent: str | None = None,
        maxValue: float | None = None,
        batchSize: int | None = None,
        errorCol: str | None = None,
        embedWeights: bool | None = None,
        modelUri: str | None = None,
    ) -> None:
        super().__init__()
        self._setDefault(topK=5)
        self.setParams(**self._input_kwargs)  # type: ignore[attr-defined]  # set by keyword_only

    def network(self) -> Network:
        """Find the network with its head, on the driver.

        Raises
        ------
        NetworkError
            No such network, no head for ImageNet's classes, or its weights cannot be found.
        """
        network = super().network()
        check_head(network.name, network.width)
        return network

    def _transform(self, dataset: DataFrame) -> DataFrame:
        top_k = self.getOrDefault(self.topK)
        check_top_k(top_k)
        if not self._decodes():
            return self._through_network(dataset, VALUES)
        return self._through_network(dataset, Output(_KIND, partial(_classes, top_k)))

    def _decodes(self) -> bool:
        said = self._value(self.decodePredictions)
        return self.isSet(self.topK) if said is None else bool(said)

    def _column(self, output: Column, network: Network) -> Column:
        return output if self._decodes() else F.when(output.isNotNull(), array_to_vector(output))


def _classes(top_k: int, rows: Sequence[np.ndarray | None]) -> pa.Array:
    """The likeliest classes of several images; None of those without probabilities."""
    known = [row for row in rows if row is not None]
    decoded = iter(decode_predictions(np.stack(known), top_k) if known else ())
    named = [
        None if row is None else [dict(zip(_NAMES, likely, strict=True)) for likely in next(decoded)]
        for row in rows
    ]
    return pa.array(named, _CLASSES)
