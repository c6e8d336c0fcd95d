"""`SklearnModel`: the MLlib transformer that applies a classifier of scikit-learn to features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import keyword_only
from pyspark.ml import Transformer
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.ml.param.shared import HasFeaturesCol, HasOutputCol, HasPredictionCol
from pyspark.ml.util import DefaultParamsReader, MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from tuner.base.errors import ModelError
from tuner.base.uris import hadoop_path
from tuner.classifiers.scikit import SklearnHead
from tuner.models.format import FORMAT, FORMAT_KEY, check_format
from tuner.models.mllib.files import PythonStage

_FOLDER = "sklearn"  # inside a saved model: the classifier


class SklearnModel(
    Transformer,
    HasFeaturesCol,
    HasPredictionCol,
    HasOutputCol,
    MLReadable,  # type: ignore[type-arg]
    MLWritable,
):
    """A fitted classifier of scikit-learn as a stage of a pipeline.

    Features that are not numbers, of images that cannot be decoded, get scores that are not numbers, as of
    MLlib's own models.

    Parameters
    ----------
    head
        The classifier.
    featuresCol, predictionCol
        MLlib's own names, `features` and `prediction`, unless they are given.
    outputCol
        The column of scores, a vector with one number a class: default `probability` or, of a classifier
        without, `decision`.
    """

    @keyword_only
    def __init__(
        self,
        *,
        head: SklearnHead,
        featuresCol: str | None = None,
        predictionCol: str | None = None,
        outputCol: str | None = None,
    ) -> None:
        super().__init__()
        self._head = head
        self._setDefault(outputCol=head.gives)
        given: dict[str, Any] = self._input_kwargs  # type: ignore[attr-defined]  # set by keyword_only
        self._set(**{name: value for name, value in given.items() if name != "head" and value is not None})

    def _transform(self, dataset: DataFrame) -> DataFrame:
        result = f"_{self.uid}"
        scores = F.col(result)
        place = F.array_position(scores, F.array_max(scores)) - 1
        features = F.col(self.getFeaturesCol())
        there = F.when(features.isNotNull(), vector_to_array(features))
        return (
            dataset.withColumn(result, _score_udf(self._head)(there))
            .withColumn(self.getOutputCol(), array_to_vector(scores))
            .withColumn(self.getPredictionCol(), place.cast("double"))
            .drop(result)
        )

    def write(self) -> MLWriter:
        """A writer of the parameters and the classifier."""
        return _Writer(self)

    @classmethod
    def read(cls) -> MLReader[SklearnModel]:
        """A reader of what `write` wrote."""
        return _Reader()


def _score_udf(head: SklearnHead) -> Any:
    """Make the column function: an array of features → an array of scores."""
    data, classes = head.dumps(), head.classes

    def run(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        loaded = SklearnHead.loads(data, "the pipeline")
        for batch in batches:
            scores = np.full((len(batch), classes), np.nan)
            there = np.flatnonzero(batch.is_valid().to_numpy(zero_copy_only=False))
            if len(there):
                values = batch.drop_null().flatten().to_numpy(zero_copy_only=False)
                rows = values.reshape(len(there), -1)
                good = np.isfinite(rows).all(axis=1)
                if good.any():
                    scores[there[good]] = loaded.score(rows[good])
            ends = np.arange(len(batch) + 1, dtype=np.int32) * classes
            yield pa.ListArray.from_arrays(pa.array(ends), pa.array(scores.ravel()))

    # Said to be nondeterministic, Spark does not repeat it for each of its uses.
    function: Any = arrow_udf(run, "array<double>")  # type: ignore[call-overload]
    return function.asNondeterministic()


@dataclass(frozen=True)
class SklearnStage:
    """A model as it is saved: parameters, and the classifier by skops."""

    model: SklearnModel

    @property
    def uid(self) -> str:
        """The model's own."""
        return str(self.model.uid)

    def write(self, folder: Path) -> None:
        """Write to a folder that is not there yet; needs no session."""
        PythonStage.of(self.model, **{FORMAT_KEY: FORMAT}).write(folder)
        place = folder / _FOLDER
        place.mkdir()
        self.model._head.write(place)


class _Writer(MLWriter):
    def __init__(self, instance: SklearnModel) -> None:
        super().__init__()
        self._instance = instance

    def saveImpl(self, path: str) -> None:
        """Write as a stage of a pipeline is written."""
        SklearnStage(self._instance).write(_local(path))


class _Reader(MLReader):  # type: ignore[type-arg]
    def load(self, path: str) -> SklearnModel:
        """Read parameters and classifier."""
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        check_format(f"The SklearnModel in {path}", metadata.get(FORMAT_KEY))
        model = SklearnModel(head=SklearnHead.read(_local(path) / _FOLDER))
        model._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(model, metadata)
        return model


def _local(uri: str) -> Path:
    path = hadoop_path(uri)
    if path is None:
        raise ModelError(
            f"A classifier of scikit-learn is saved and loaded as a local folder, and {uri} is none: "
            "save it to a local or shared folder and copy it from there."
        )
    return path
