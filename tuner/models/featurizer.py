"""`DeepImageFeaturizer`: the MLlib transformer that turns images into a network's features."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import ValidationError
from pyspark import keyword_only
from pyspark.ml import Transformer
from pyspark.ml.functions import array_to_vector
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasInputCol, HasOutputCol
from pyspark.ml.util import (
    DefaultParamsReader,
    MLReadable,
    MLReader,
    MLWritable,
    MLWriter,
)
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, StructType
from pyspark.sql.utils import is_remote

from tuner.base.choices import Decoding, Precision, Preprocessing, Transparent
from tuner.base.errors import ImageSourceError, NetworkError
from tuner.base.uris import hadoop_path
from tuner.experiment.schema import NetworkSpec
from tuner.extraction.udf import featurize_udf, ship_network, worker_threads
from tuner.models.format import FORMAT, check_format
from tuner.models.mllib_files import PythonStage
from tuner.networks.inference import BATCH_SIZE, content_reader, struct_reader
from tuner.networks.resolution import Network, resolve_network
from tuner.networks.store import NetworkStore

_FORMAT_KEY = "tunerFormat"  # in a saved featurizer's metadata
_FOLDER = "network"  # inside a saved featurizer: its network, when it carries it
_IMAGE_FIELDS = frozenset({"height", "width", "nChannels", "data"})  # of Spark's image struct
_CHOICES = {
    "precision": get_args(Precision),
    "preprocessing": get_args(Preprocessing),
    "transparent": get_args(Transparent),
    "handleInvalid": ("null", "keep"),
}


@dataclass(frozen=True)
class FeaturizerStage:
    """A featurizer as it is saved: parameters, the network's identity and, if asked, its file."""

    featurizer: DeepImageFeaturizer

    @property
    def uid(self) -> str:
        """The featurizer's own."""
        return str(self.featurizer.uid)

    def write(self, folder: Path) -> None:
        """Write to a folder that is not there yet; needs no session."""
        network = self.featurizer.network()
        identified = self.featurizer.copy()
        identified._describe(network)
        PythonStage.of(identified, **{_FORMAT_KEY: FORMAT}).write(folder)
        if identified.getOrDefault(identified.embedWeights):
            place = folder / _FOLDER
            place.mkdir()
            shutil.copyfile(network.file, place / Path(network.file).name)


class _FeaturizerWriter(MLWriter):
    def __init__(self, instance: DeepImageFeaturizer) -> None:
        super().__init__()
        self._instance = instance

    def saveImpl(self, path: str) -> None:
        """Write as a stage of a pipeline is written."""
        FeaturizerStage(self._instance).write(local_path(path))


class _FeaturizerReader(MLReader):  # type: ignore[type-arg]
    def load(self, path: str) -> DeepImageFeaturizer:
        """Read the parameters, and find the network in the saved folder if it is there."""
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        check_format(f"The DeepImageFeaturizer in {path}", metadata.get(_FORMAT_KEY))
        featurizer = DeepImageFeaturizer()
        featurizer._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(featurizer, metadata)
        folder = local_path(path) / _FOLDER
        featurizer._carried = next(iter(sorted(folder.glob("*"))), None) if folder.is_dir() else None
        return featurizer


def local_path(uri: str) -> Path:
    """The local path that Spark means by a path or a `file:` URI.

    Raises
    ------
    NetworkError
        Another scheme.
    """
    path = hadoop_path(uri)
    if path is None:
        raise NetworkError(
            f"A DeepImageFeaturizer is saved and loaded with its network as a local folder, and {uri} is "
            "none: save it to a local or shared folder and copy it from there."
        )
    return path


class DeepImageFeaturizer(Transformer, HasInputCol, HasOutputCol, MLReadable, MLWritable):  # type: ignore[type-arg]
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
    transparent, maxValue
        The ground on which transparent pictures are laid, `white` (default) or `black`; and what stands for
        white where an image's values could go beyond it (default: the most that its format holds).
    batchSize
        Images that go through the network at once.
    errorCol
        A column for the reason why a row is null; none by default.
    handleInvalid
        What such a row gives: `null` (default) or, as MLlib's VectorAssembler has it, `keep`: a vector of
        NaN, for classifiers that cannot take a null.
    embedWeights
        Whether saving it stores the network's file too (default), so that it loads anywhere; else it is
        found by its digest, in the store or at `modelUri`.
    modelUri
        Where MLflow has the network of a featurizer that was saved without it.

    References
    ----------
    The transformer of the same name in github.com/databricks/spark-deep-learning.
    """

    modelName = Param(Params._dummy(), "modelName", "the network's name", TypeConverters.toString)
    weights = Param(Params._dummy(), "weights", "imagenet, random or a path", TypeConverters.toString)
    seed = Param(Params._dummy(), "seed", "seed of random weights", TypeConverters.toInt)
    modelFile = Param(Params._dummy(), "modelFile", "a network of one's own", TypeConverters.toString)
    inputSize = Param(Params._dummy(), "inputSize", "height, width", TypeConverters.toListInt)
    preprocessing = Param(Params._dummy(), "preprocessing", "pixels' scale", TypeConverters.toString)
    precision = Param(Params._dummy(), "precision", "float32 or bfloat16", TypeConverters.toString)
    transparent = Param(Params._dummy(), "transparent", "white or black", TypeConverters.toString)
    maxValue = Param(Params._dummy(), "maxValue", "what stands for white", TypeConverters.toFloat)
    batchSize = Param(Params._dummy(), "batchSize", "images at once", TypeConverters.toInt)
    errorCol = Param(Params._dummy(), "errorCol", "column of reasons", TypeConverters.toString)
    handleInvalid = Param(Params._dummy(), "handleInvalid", "null or keep", TypeConverters.toString)
    embedWeights = Param(Params._dummy(), "embedWeights", "save the network too", TypeConverters.toBoolean)
    modelDigest = Param(Params._dummy(), "modelDigest", "the network's digest", TypeConverters.toString)
    fileDigest = Param(Params._dummy(), "fileDigest", "the file's sha256", TypeConverters.toString)
    modelUri = Param(Params._dummy(), "modelUri", "where MLflow has the network", TypeConverters.toString)
    width = Param(Params._dummy(), "width", "the number of features", TypeConverters.toInt)

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
        transparent: str | None = None,
        maxValue: float | None = None,
        batchSize: int | None = None,
        errorCol: str | None = None,
        handleInvalid: str | None = None,
        embedWeights: bool | None = None,
        modelUri: str | None = None,
    ) -> None:
        super().__init__()
        self._setDefault(
            seed=0,
            precision="float32",
            transparent="white",
            batchSize=BATCH_SIZE,
            handleInvalid="null",
            embedWeights=True,
        )
        self._carried: Path | None = None
        self._nulls: Any = None
        given: dict[str, Any] = self._input_kwargs  # type: ignore[attr-defined]  # set by keyword_only
        self._set(**{name: value for name, value in given.items() if value is not None})

    @classmethod
    def from_network(cls, network: Network, **params: Any) -> DeepImageFeaturizer:
        """Make a featurizer of a network that is resolved already.

        Parameters
        ----------
        network
            Where its features come from.
        params
            Further params, by name.
        """
        featurizer = cls(**params)
        featurizer._describe(network)
        featurizer._carried = Path(network.file)
        return featurizer

    def _describe(self, network: Network) -> None:
        self._set(
            modelName=network.name,
            modelDigest=network.digest,
            inputSize=list(network.input_size),
            preprocessing=network.preprocessing,
            precision=network.precision,
            width=network.width,
            transparent=network.transparent,
            fileDigest=network.file_digest,
        )
        if network.max_value is not None:
            self._set(maxValue=network.max_value)
        for param in (self.weights, self.modelFile):  # where it came from: a path of this machine
            self.clear(param)

    def _value(self, param: Param[Any]) -> Any:
        return self.getOrDefault(param) if self.isDefined(param) else None

    def network(self) -> Network:
        """Find the network, on the driver.

        Raises
        ------
        NetworkError
            No such network, or its weights cannot be found.
        """
        if not self.isDefined(self.modelName):
            raise NetworkError("DeepImageFeaturizer needs modelName, such as InceptionV3.")
        digest = self._value(self.modelDigest)
        if digest is None:
            size = self._value(self.inputSize)
            try:
                spec = NetworkSpec(
                    name=self._value(self.modelName),
                    weights=self._value(self.weights),
                    seed=self._value(self.seed),
                    file=self._value(self.modelFile),
                    input_size=tuple(size) if size else None,
                    preprocessing=self._value(self.preprocessing),
                )
            except ValidationError as error:
                problem = error.errors()[0]
                place = " ".join(["DeepImageFeaturizer:", *map(str, problem["loc"][:1])])
                reason = problem["msg"].removeprefix("Value error, ")
                raise NetworkError(f"{place} {reason}.") from None
            return resolve_network(spec, self._value(self.precision), NetworkStore(), self._decoding())
        return Network(
            name=self._value(self.modelName),
            digest=digest,
            file=str(
                NetworkStore().locate(
                    self._value(self.modelName),
                    digest,
                    self._carried,
                    self._value(self.modelUri),
                    self._value(self.fileDigest),
                )
            ),
            input_size=cast("tuple[int, int]", tuple(self._value(self.inputSize))),
            preprocessing=self._value(self.preprocessing),
            width=self._value(self.width),
            precision=self._value(self.precision),
            transparent=self._value(self.transparent),
            max_value=self._value(self.maxValue),
            file_digest=self._value(self.fileDigest) or "",
        )

    def _decoding(self) -> Decoding:
        return Decoding(self._value(self.transparent), self._value(self.maxValue))

    @property
    def nullCount(self) -> int:
        """Rows that gave a null so far; a task that Spark runs again counts again."""
        return int(self._nulls.value) if self._nulls is not None else 0

    def _check_params(self) -> None:
        for name, choices in _CHOICES.items():
            value = self._value(self.getParam(name))
            if value is not None and value not in choices:
                raise NetworkError(
                    f"{name} of DeepImageFeaturizer is {value!r}: it must be one of {', '.join(choices)}."
                )
        white = self._value(self.maxValue)
        if white is not None and not 0 < white < float("inf"):
            raise NetworkError(f"maxValue of DeepImageFeaturizer is {white}: it must be more than 0.")
        if self._value(self.batchSize) < 1:
            raise NetworkError(
                f"batchSize of DeepImageFeaturizer is {self._value(self.batchSize)}: it must be 1 or more."
            )

    def _input_type(self, schema: StructType) -> BinaryType | StructType:
        """Give the type of the images' column, once it and the columns to make are seen to be fit."""
        if not self.isDefined(self.inputCol):
            raise ImageSourceError("DeepImageFeaturizer needs inputCol, the column of images.")
        column = self.getInputCol()
        if column not in schema.names:
            raise ImageSourceError(
                f"There is no column {column} for DeepImageFeaturizer: there are {', '.join(schema.names)}."
            )
        for made in (self.getOutputCol(), self._value(self.errorCol)):
            if made in schema.names:
                raise ImageSourceError(
                    f"The column {made}, which DeepImageFeaturizer would make, exists already: choose "
                    "another outputCol or errorCol."
                )
        kind = schema[column].dataType
        if isinstance(kind, BinaryType) or (
            isinstance(kind, StructType) and set(kind.names) >= _IMAGE_FIELDS
        ):
            return kind
        raise ImageSourceError(
            f"The column {column} is {kind.simpleString()}, and DeepImageFeaturizer reads binary file "
            "contents or Spark's image struct: read the folder with the binaryFile or image format."
        )

    def _transform(self, dataset: DataFrame) -> DataFrame:
        self._check_params()
        kind = self._input_type(dataset.schema)
        network, spark = self.network(), dataset.sparkSession
        ship_network(spark, network)
        if self._nulls is None and not is_remote():
            self._nulls = spark.sparkContext.accumulator(0)
        result = f"_{self.uid}"
        udf = featurize_udf(
            network,
            struct_reader(network) if isinstance(kind, StructType) else content_reader(network),
            batch_size=self._value(self.batchSize),
            threads=1 if is_remote() else worker_threads(spark),
            nulls=self._nulls,
        )
        features = F.col(result)["features"]
        vector = F.when(features.isNotNull(), array_to_vector(features))
        if self._value(self.handleInvalid) == "keep":
            invalid = F.array_repeat(F.lit(float("nan")), network.width)
            vector = array_to_vector(F.coalesce(features, invalid))
        frame = dataset.withColumn(result, udf(F.col(self.getInputCol())))
        frame = frame.withColumn(self.getOutputCol(), vector)
        if self.isDefined(self.errorCol):
            frame = frame.withColumn(self._value(self.errorCol), F.col(result)["error"])
        return frame.drop(result)

    def write(self) -> MLWriter:
        """A writer of the parameters and, with `embedWeights`, of the network."""
        return _FeaturizerWriter(self)

    @classmethod
    def read(cls) -> MLReader[DeepImageFeaturizer]:
        """A reader of what `write` wrote."""
        return _FeaturizerReader()
