"""`DeepImageFeaturizer`: the MLlib transformer that turns images into a network's features."""

from __future__ import annotations

from typing import ClassVar, cast, get_args

from pyspark import keyword_only
from pyspark.ml.functions import array_to_vector
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tuner.base.choices import Pooling
from tuner.extraction.udf import VALUES
from tuner.models.stages.transformer import NetworkTransformer
from tuner.networks.resolution import Network

_INVALID = {"keep": float("nan"), "infinity": float("inf")}  # what `handleInvalid` fills vectors with


class DeepImageFeaturizer(NetworkTransformer):
    """Features of a pre-trained network for each image, as a dense vector.

    The input column holds the bytes of image files, or Spark's image struct. A row that is null or
    cannot be decoded gives a null; `nullCount` counts them, `errorCol` names the reasons.

    Parameters
    ----------
    inputCol, outputCol
        The images' column (binary or image struct) and the vector's.
    modelName
        A network of `tuner.networks.table.NETWORKS`, such as InceptionV3; with `modelFile`, any name.
    weights, seed
        `imagenet`, `random` (drawn with `seed`) or a path; default: the network's own.
    modelFile, inputSize, preprocessing
        A network of one's own: a `.keras` file or SavedModel folder, its input (height, width) in
        pixels and its preprocessing (`tf`, `caffe`, `torch`, `unit`, `none`).
    precision
        `float32` (default) or `bfloat16`.
    pooling
        What becomes of the network's last map: `avg` (default), `max`, or `none`: it is flattened.
    transparent, maxValue
        The ground on which transparent pictures are laid, `white` (default) or `black`; and what stands for
        white where an image's values could go beyond it (default: the most that its format holds).
    batchSize
        Images that go through the network at once.
    errorCol
        A column for the reason why a row is null; none by default.
    handleInvalid
        What such a row gives: `null` (default) or, as MLlib's VectorAssembler has it, `keep`: a vector of
        NaN, for classifiers that cannot take a null; `infinity`: a vector of infinity, for those that fail
        on NaN, as MLlib's naive Bayes of counts.
    embedWeights
        Whether saving it stores the network's file too (default), so that it loads anywhere; else it is
        found by its digest, in the store or at `modelUri`.
    modelUri
        Where MLflow has the network of a featurizer that was saved without it.

    References
    ----------
    The transformer of the same name in github.com/databricks/spark-deep-learning.
    """

    pooling = Param(Params._dummy(), "pooling", "avg, max or none", TypeConverters.toString)
    handleInvalid = Param(
        Params._dummy(), "handleInvalid", "null, keep or infinity", TypeConverters.toString
    )

    _choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **NetworkTransformer._choices,
        "pooling": get_args(Pooling),
        "handleInvalid": ("null", *_INVALID),
    }

    @keyword_only
    def __init__(
        self,
        *,
        inputCol: str | None = None,
        outputCol: str | None = None,
        modelName: str | None = None,
        weights: str | None = None,
        seed: int | None = None,
        modelFile: str | None = None,
        inputSize: list[int] | None = None,
        preprocessing: str | None = None,
        precision: str | None = None,
        pooling: str | None = None,
        transparent: str | None = None,
        maxValue: float | None = None,
        batchSize: int | None = None,
        errorCol: str | None = None,
        handleInvalid: str | None = None,
        embedWeights: bool | None = None,
        modelUri: str | None = None,
    ) -> None:
        super().__init__()
        self._setDefault(handleInvalid="null", pooling="avg")
        self.setParams(**self._input_kwargs)  # type: ignore[attr-defined]  # set by keyword_only

    def describe(self, network: Network) -> None:
        """Set what identifies a network anywhere, with what becomes of its last map.

        Parameters
        ----------
        network
            What the images go through.
        """
        super().describe(network)
        self._set(pooling=network.pooling)

    def _pooling(self) -> Pooling:
        return cast("Pooling", self.getOrDefault(self.pooling))

    def _transform(self, dataset: DataFrame) -> DataFrame:
        return self._through_network(dataset, VALUES)

    def _column(self, output: Column, network: Network) -> Column:
        number = _INVALID.get(str(self._value(self.handleInvalid)))
        if number is not None:
            invalid = F.array_repeat(F.lit(number), network.width)
            return array_to_vector(F.coalesce(output, invalid))
        return F.when(output.isNotNull(), array_to_vector(output))
