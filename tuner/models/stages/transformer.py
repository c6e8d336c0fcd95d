"""`NetworkTransformer`: the MLlib transformer that takes a column of images through a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self, cast, get_args

from pydantic import ValidationError
from pyspark.ml import Transformer
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasInputCol, HasOutputCol
from pyspark.ml.util import MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, StructType
from pyspark.sql.utils import is_remote

from tuner.base.choices import Decoding, Pooling, Precision, Preprocessing, Transparent
from tuner.base.errors import ImageSourceError, NetworkError
from tuner.base.files import file_digest
from tuner.experiment.networks import NetworkSpec
from tuner.extraction.udf import Output, network_udf, ship_network, worker_threads
from tuner.models.stages.saving import NetworkReader, NetworkWriter
from tuner.networks.inference import BATCH_SIZE, content_reader, struct_reader
from tuner.networks.onnx.session import SUFFIX, check_file
from tuner.networks.resolution import Network, resolve_network
from tuner.networks.store import NetworkStore

_IMAGE_FIELDS = frozenset({"height", "width", "nChannels", "data"})  # of Spark's image struct


class NetworkTransformer(Transformer, HasInputCol, HasOutputCol, MLReadable, MLWritable):  # type: ignore[type-arg]
    """What `DeepImageFeaturizer` and `DeepImagePredictor` share; they explain the parameters."""

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
    embedWeights = Param(Params._dummy(), "embedWeights", "save the network too", TypeConverters.toBoolean)
    modelDigest = Param(Params._dummy(), "modelDigest", "the network's digest", TypeConverters.toString)
    fileDigest = Param(Params._dummy(), "fileDigest", "the file's sha256", TypeConverters.toString)
    modelUri = Param(Params._dummy(), "modelUri", "where MLflow has the network", TypeConverters.toString)
    onnxDigest = Param(Params._dummy(), "onnxDigest", "the ONNX file's sha256", TypeConverters.toString)
    width = Param(Params._dummy(), "width", "the number of outputs", TypeConverters.toInt)

    _include_top: ClassVar[bool] = False  # whether the network keeps the head that it was trained with
    _choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "precision": get_args(Precision),
        "preprocessing": get_args(Preprocessing),
        "transparent": get_args(Transparent),
    }

    def __init__(self) -> None:
        super().__init__()
        self._setDefault(
            seed=0, precision="float32", transparent="white", batchSize=BATCH_SIZE, embedWeights=True
        )
        self.carried: Path | None = None  # the network's file beside a saved transformer
        self.onnx: Path | None = None  # the same, exported: it is what computes, where there is one
        self._nulls: Any = None

    @classmethod
    def from_network(cls, network: Network, **params: Any) -> Self:
        """Make a transformer of a network that is resolved already.

        Parameters
        ----------
        network
            What the images go through.
        params
            Further params, by name.
        """
        transformer = cls(**params)
        transformer.describe(network)
        transformer.carried = Path(network.file)
        return transformer

    # Parameters, also as sparkdl's scripts set them

    def setParams(self, **params: Any) -> Self:
        """Set params by name; one that is None stays as it is."""
        for name in params:
            if not self.hasParam(name):
                raise TypeError(f"{type(self).__name__} has no parameter {name}")
        self._set(**{name: value for name, value in params.items() if value is not None})
        return self

    def setInputCol(self, value: str) -> Self:
        """Name the column of images."""
        return self.setParams(inputCol=value)

    def setOutputCol(self, value: str) -> Self:
        """Name the column to make."""
        return self.setParams(outputCol=value)

    def setModelName(self, value: str) -> Self:
        """Name the network."""
        return self.setParams(modelName=value)

    def getModelName(self) -> str:
        """Give the network's name."""
        return str(self.getOrDefault(self.modelName))

    def describe(self, network: Network) -> None:
        """Set what identifies a network anywhere, instead of where it came from: a path of this machine."""
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
        for param in (self.weights, self.modelFile):
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
            raise NetworkError(f"{type(self).__name__} needs modelName, such as InceptionV3.")
        digest = self._value(self.modelDigest)
        if digest is None:
            return resolve_network(
                self._spec(),
                self._value(self.precision),
                NetworkStore(),
                Decoding(self._value(self.transparent), self._value(self.maxValue)),
                include_top=self._include_top,
            )
        return Network(
            name=self.getModelName(),
            digest=digest,
            file=str(self._computing()),
            input_size=cast("tuple[int, int]", tuple(self._value(self.inputSize))),
            preprocessing=self._value(self.preprocessing),
            width=self._value(self.width),
            precision=self._value(self.precision),
            transparent=self._value(self.transparent),
            max_value=self._value(self.maxValue),
            file_digest=self._value(self.fileDigest) or "",
            pooling=self._pooling(),
        )

    def carry_onnx(self, file: Path) -> None:
        """Compute with this ONNX file of the network, and carry it when saved with `embedWeights`."""
        self.onnx = file
        self._set(onnxDigest=file_digest(file))

    def files(self) -> list[Path]:
        """What is carried of the network: the file as it came, and the ONNX one if there is one."""
        if self._value(self.modelDigest) is None:
            return [Path(self.network().file)]
        return [self._stored(), *([self._computing()] if self._value(self.onnxDigest) else [])]

    def _computing(self) -> Path:
        sha256 = self._value(self.onnxDigest)
        if sha256 is None:
            return self._stored()
        found = self.onnx or Path(f"{sha256}{SUFFIX}")
        check_file(found, self.getModelName(), sha256)
        return found

    def _stored(self) -> Path:
        return NetworkStore().locate(
            self.getModelName(),
            self._value(self.modelDigest),
            self.carried,
            self._value(self.modelUri),
            self._value(self.fileDigest),
        )

    def _pooling(self) -> Pooling:
        """What becomes of the network's last map; with a head there is nothing left to pool."""
        return "avg"

    def _spec(self) -> NetworkSpec:
        size = self._value(self.inputSize)
        try:
            return NetworkSpec(
                name=self._value(self.modelName),
                weights=self._value(self.weights),
                seed=self._value(self.seed),
                file=self._value(self.modelFile),
                input_size=tuple(size) if size else None,
                preprocessing=self._value(self.preprocessing),
                pooling=self._pooling(),
            )
        except ValidationError as error:
            problem = error.errors()[0]
            place = " ".join([f"{type(self).__name__}:", *map(str, problem["loc"][:1])])
            reason = problem["msg"].removeprefix("Value error, ")
            raise NetworkError(f"{place} {reason}.") from None

    @property
    def nullCount(self) -> int:
        """Rows that gave a null so far; a task that Spark runs again counts again."""
        return int(self._nulls.value) if self._nulls is not None else 0

    # Images through the network

    def _check_params(self) -> None:
        owner = type(self).__name__
        for name, choices in self._choices.items():
            value = self._value(self.getParam(name))
            if value is not None and value not in choices:
                raise NetworkError(
                    f"{name} of {owner} is {value!r}: it must be one of {', '.join(choices)}."
                )
        white, batch = self._value(self.maxValue), self._value(self.batchSize)
        if white is not None and not 0 < white < float("inf"):
            raise NetworkError(f"maxValue of {owner} is {white}: it must be more than 0.")
        if batch < 1:
            raise NetworkError(f"batchSize of {owner} is {batch}: it must be 1 or more.")

    def _input_type(self, schema: StructType) -> BinaryType | StructType:
        """Give the type of the images' column, once it and the columns to make are seen to be fit."""
        owner = type(self).__name__
        if not self.isDefined(self.inputCol):
            raise ImageSourceError(f"{owner} needs inputCol, the column of images.")
        column = self.getInputCol()
        if column not in schema.names:
            raise ImageSourceError(
                f"There is no column {column} for {owner}: there are {', '.join(schema.names)}."
            )
        for made in (self.getOutputCol(), self._value(self.errorCol)):
            if made in schema.names:
                raise ImageSourceError(
                    f"The column {made}, which {owner} would make, exists already: choose "
                    "another outputCol or errorCol."
                )
        kind = schema[column].dataType
        if isinstance(kind, BinaryType) or (
            isinstance(kind, StructType) and set(kind.names) >= _IMAGE_FIELDS
        ):
            return kind
        raise ImageSourceError(
            f"The column {column} is {kind.simpleString()}, and {owner} reads binary file "
            "contents or Spark's image struct: read the folder with the binaryFile or image format."
        )

    def _through_network(self, dataset: DataFrame, output: Output) -> DataFrame:
        """Add the columns `outputCol`, made of the network's `output`, and `errorCol`."""
        self._check_params()
        kind = self._input_type(dataset.schema)
        network, spark = self.network(), dataset.sparkSession
        ship_network(spark, network)
        if self._nulls is None and not is_remote():
            self._nulls = spark.sparkContext.accumulator(0)
        udf = network_udf(
            network,
            struct_reader(network) if isinstance(kind, StructType) else content_reader(network),
            output,
            batch_size=self._value(self.batchSize),
            threads=worker_threads(spark),
            nulls=self._nulls,
        )
        result = f"_{self.uid}"
        frame = dataset.withColumn(result, udf(F.col(self.getInputCol())))
        made = self._column(F.col(result)["output"], network)
        frame = frame.withColumn(self.getOutputCol(), made)
        if self.isDefined(self.errorCol):
            frame = frame.withColumn(self._value(self.errorCol), F.col(result)["error"])
        return frame.drop(result)

    def _column(self, output: Column, network: Network) -> Column:
        """The column to make, of the network's output, which is null where an image gave none."""
        return output

    # Saved and loaded

    def write(self) -> MLWriter:
        """A writer of the parameters and, with `embedWeights`, of the network."""
        return NetworkWriter(self)

    @classmethod
    def read(cls) -> MLReader[Self]:
        """A reader of what `write` wrote."""
        return NetworkReader(cls)
