"""`DeepImageFeaturizer`: the MLlib transformer that turns images into a network's features."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pandas as pd
from pyspark import SparkFiles, keyword_only
from pyspark.ml import Transformer
from pyspark.ml.functions import array_to_vector
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import HasInputCol, HasOutputCol
from pyspark.ml.util import (
    DefaultParamsReader,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWritable,
    MLWriter,
)
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import BinaryType, StructType
from pyspark.sql.utils import is_remote

from tuner.backbones import Backbone, load_network, resolve_backbone
from tuner.decoding import load_input, preprocess, resize, struct_to_image
from tuner.errors import BackboneError, ImageError
from tuner.experiment import BackboneSpec
from tuner.sessions import machine_cores

BATCH_SIZE = 32
STORE = Path(".tuner") / "backbones"
_FOLDER = "backbone"  # inside a saved featurizer: its network, when it carries it

Read = Callable[[Any], np.ndarray]


def _is_local(spark: SparkSession) -> bool:
    return str(spark.sparkContext.master).startswith("local")


def worker_threads(spark: SparkSession) -> int:
    """TensorFlow's threads in one Python worker, so that workers × threads = cores."""
    context = spark.sparkContext
    local = _is_local(spark)
    cores = machine_cores() if local else int(context.getConf().get("spark.executor.cores", "1"))
    slots = context.defaultParallelism if local else cores
    return max(1, cores // slots)


def ship_network(spark: SparkSession, backbone: Backbone) -> None:
    """Send the network's file to the executors of a cluster; local workers read the driver's."""
    if not is_remote() and not _is_local(spark):
        spark.sparkContext.addFile(backbone.file)


def shipped_file(backbone: Backbone) -> Path:
    """The network's file on a worker: the driver's own where it is visible, else what was shipped."""
    file = Path(backbone.file)
    return file if file.exists() else Path(SparkFiles.get(file.name))


def featurize(
    images: Iterable[Any], read: Read, network: Callable[[np.ndarray], np.ndarray], batch_size: int
) -> Iterator[tuple[np.ndarray | None, str | None]]:
    """Give (features, None), or (None, reason) where an image cannot be read, for each image in order.

    Runs on a worker, and wherever a network is loaded. Features are float32 of shape (width,).
    """
    reasons: list[str | None] = []
    arrays: list[np.ndarray] = []

    def flush() -> Iterator[tuple[np.ndarray | None, str | None]]:
        features = iter(network(np.stack(arrays))) if arrays else iter(())
        yield from ((None, reason) if reason else (next(features), None) for reason in reasons)
        reasons.clear()
        arrays.clear()

    for image in images:
        try:
            arrays.append(read(image))
            reasons.append(None)
        except ImageError as error:
            reasons.append(str(error))
        if len(arrays) == batch_size:
            yield from flush()
    yield from flush()


def content_reader(backbone: Backbone) -> Read:
    """Bytes of a file → float32 of shape (height, width, 3), ready for the network."""
    return lambda content: load_input(content, backbone.input_size, backbone.preprocessing)


def _struct_reader(backbone: Backbone) -> Read:
    """A row of Spark's image struct → the same."""
    size, mode = backbone.input_size, backbone.preprocessing
    return lambda struct: preprocess(resize(struct_to_image(struct), size), mode)


def _rows(batch: pd.Series | pd.DataFrame) -> Iterable[Any]:
    """The images of an Arrow batch: a struct column comes as a frame, with null structs as null fields."""
    return batch.to_dict("records") if isinstance(batch, pd.DataFrame) else batch


class _FeaturizerWriter(MLWriter):
    def __init__(self, instance: DeepImageFeaturizer) -> None:
        super().__init__()
        self._instance = instance

    def saveImpl(self, path: str) -> None:
        """Write the parameters with the network's identity and, if it is to carry it, its file."""
        backbone = self._instance.backbone()
        identified = self._instance.copy()
        identified._describe(backbone)
        DefaultParamsWriter.saveMetadata(identified, path, self.sparkSession)
        if identified.getOrDefault(identified.embedWeights):
            folder = local_path(path) / _FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(backbone.file, folder / Path(backbone.file).name)


class _FeaturizerReader(MLReader):  # type: ignore[type-arg]
    def load(self, path: str) -> DeepImageFeaturizer:
        """Read the parameters, and find the network in the saved folder if it is there."""
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        featurizer = DeepImageFeaturizer()
        featurizer._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(featurizer, metadata)
        folder = local_path(path) / _FOLDER
        featurizer._carried = next(iter(sorted(folder.glob("*"))), None) if folder.is_dir() else None
        return featurizer


def local_path(uri: str) -> Path:
    """The local path of a path or a `file:` URI.

    Raises
    ------
    BackboneError
        Another scheme.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        raise BackboneError(
            f"A DeepImageFeaturizer is saved and loaded with its network as a local folder, and {uri} is "
            "none: save it to a local or shared folder and copy it from there."
        )
    return Path(url2pathname(parts.path)) if parts.scheme else Path(uri)


class DeepImageFeaturizer(Transformer, HasInputCol, HasOutputCol, MLReadable, MLWritable):  # type: ignore[type-arg]
    """Features of a pre-trained network for each image, as a dense vector.

    The input column holds the bytes of image files, or Spark's image struct. A row that is null or
    cannot be decoded gives a null; `nullCount` counts them, `errorCol` names the reasons.

    Parameters
    ----------
    inputCol, outputCol
        The images' column (binary or image struct) and the vector's.
    modelName
        A network of `tuner.backbones.NETWORKS`, such as InceptionV3; with `modelFile`, any name.
    weights, seed
        `imagenet`, `random` (drawn with `seed`) or a path; default: the network's own.
    modelFile, inputSize, preprocessing
        A network of one's own: a `.keras` file or SavedModel folder, its input (height, width) in
        pixels and its preprocessing (`tf`, `caffe`, `torch`, `unit`, `none`).
    precision
        `float32` (default) or `bfloat16`.
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
    batchSize = Param(Params._dummy(), "batchSize", "images at once", TypeConverters.toInt)
    errorCol = Param(Params._dummy(), "errorCol", "column of reasons", TypeConverters.toString)
    handleInvalid = Param(Params._dummy(), "handleInvalid", "null or keep", TypeConverters.toString)
    embedWeights = Param(Params._dummy(), "embedWeights", "save the network too", TypeConverters.toBoolean)
    modelDigest = Param(Params._dummy(), "modelDigest", "the network's digest", TypeConverters.toString)
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
        batchSize: int | None = None,
        errorCol: str | None = None,
        handleInvalid: str | None = None,
        embedWeights: bool | None = None,
        modelUri: str | None = None,
    ) -> None:
        super().__init__()
        self._setDefault(
            seed=0, precision="float32", batchSize=BATCH_SIZE, handleInvalid="null", embedWeights=True
        )
        self._carried: Path | None = None
        self._nulls: Any = None
        given: dict[str, Any] = self._input_kwargs  # type: ignore[attr-defined]  # set by keyword_only
        self._set(**{name: value for name, value in given.items() if value is not None})

    @classmethod
    def from_backbone(cls, backbone: Backbone, **params: Any) -> DeepImageFeaturizer:
        """Make a featurizer of a network that is resolved already, with further params by name."""
        featurizer = cls(**params)
        featurizer._describe(backbone)
        featurizer._carried = Path(backbone.file)
        return featurizer

    def _describe(self, backbone: Backbone) -> None:
        self._set(
            modelName=backbone.name,
            modelDigest=backbone.digest,
            inputSize=list(backbone.input_size),
            preprocessing=backbone.preprocessing,
            precision=backbone.precision,
            width=backbone.width,
        )
        for param in (self.weights, self.modelFile):  # where it came from: a path of this machine
            self.clear(param)

    def _value(self, param: Param[Any]) -> Any:
        return self.getOrDefault(param) if self.isDefined(param) else None

    def backbone(self) -> Backbone:
        """Find the network, on the driver.

        Raises
        ------
        BackboneError
            No such network, or its weights cannot be found.
        """
        if not self.isDefined(self.modelName):
            raise BackboneError("DeepImageFeaturizer needs modelName, such as InceptionV3.")
        digest = self._value(self.modelDigest)
        if digest is None:
            size = self._value(self.inputSize)
            spec = BackboneSpec(
                name=self._value(self.modelName),
                weights=self._value(self.weights),
                seed=self._value(self.seed),
                file=self._value(self.modelFile),
                input_size=tuple(size) if size else None,
                preprocessing=self._value(self.preprocessing),
            )
            return resolve_backbone(spec, self._value(self.precision), STORE)
        return Backbone(
            name=self._value(self.modelName),
            digest=digest,
            file=str(self._stored_file(digest)),
            input_size=cast("tuple[int, int]", tuple(self._value(self.inputSize))),
            preprocessing=self._value(self.preprocessing),
            width=self._value(self.width),
            precision=self._value(self.precision),
        )

    def _stored_file(self, digest: str) -> Path:
        if self._carried is not None and self._carried.exists():
            return self._carried
        stored = next(iter(sorted(STORE.glob(f"{digest}.*[!n]"))), None)
        if stored is not None:
            return stored
        uri = self._value(self.modelUri)
        if uri is None:
            raise BackboneError(
                f"The network {self._value(self.modelName)} (digest {digest[:12]}) is neither in the saved "
                f"model nor in {STORE}: save the model with embedWeights=True."
            )
        import mlflow

        STORE.mkdir(parents=True, exist_ok=True)
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(STORE)))

    @property
    def nullCount(self) -> int:
        """Rows that gave a null so far; a task that Spark runs again counts again."""
        return int(self._nulls.value) if self._nulls is not None else 0

    def _transform(self, dataset: DataFrame) -> DataFrame:
        column, backbone = self.getInputCol(), self.backbone()
        kind = dataset.schema[column].dataType
        if not isinstance(kind, BinaryType | StructType):
            raise BackboneError(
                f"The column {column} is {kind.simpleString()}, and DeepImageFeaturizer reads binary file "
                "contents or Spark's image struct: read the folder with the binaryFile or image format."
            )
        spark = dataset.sparkSession
        ship_network(spark, backbone)
        if self._nulls is None and not is_remote():
            self._nulls = spark.sparkContext.accumulator(0)
        result = f"_{self.uid}"
        udf = _featurize_udf(
            backbone,
            struct=isinstance(kind, StructType),
            batch_size=self._value(self.batchSize),
            threads=1 if is_remote() else worker_threads(spark),
            nulls=self._nulls,
        )
        features = F.col(result)["features"]
        vector = F.when(features.isNotNull(), array_to_vector(features))
        if self._value(self.handleInvalid) == "keep":
            invalid = F.array_repeat(F.lit(float("nan")), backbone.width)
            vector = array_to_vector(F.coalesce(features, invalid))
        frame = dataset.withColumn(result, udf(F.col(column))).withColumn(self.getOutputCol(), vector)
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


def _featurize_udf(backbone: Backbone, *, struct: bool, batch_size: int, threads: int, nulls: Any) -> Any:
    read = _struct_reader(backbone) if struct else content_reader(backbone)

    def run(batches: Iterator[Any]) -> Iterator[pd.DataFrame]:
        network = load_network(backbone, shipped_file(backbone), threads)
        for batch in batches:
            rows = list(featurize(_rows(batch), read, network, batch_size))
            if nulls is not None:
                nulls.add(sum(features is None for features, _ in rows))
            yield pd.DataFrame(rows, columns=["features", "error"])

    schema = "features array<float>, error string"
    # The kind of an iterator UDF is told by its annotations, which must be real objects here.
    frame_or_series: Any = pd.DataFrame if struct else pd.Series
    run.__annotations__ = {"batches": Iterator[frame_or_series], "return": Iterator[pd.DataFrame]}
    return pandas_udf(run, schema)  # type: ignore[call-overload]
