"""A registered model as a SQL function, as sparkdl's `registerKerasImageUDF` made one of a Keras file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd

from tuner.base.columns import ERROR, PREDICTION
from tuner.extraction.udf import check_function_name
from tuner.models.loading import check_model

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def register_sql_function(spark: SparkSession, name: str, model_uri: str) -> Any:
    """Register a model as a SQL function of a column of image files' bytes.

    The function gives a struct: `prediction` (class name), `probability` (array of double, in the order
    of the labels; of a classifier without, `decision`) and `error` (why an image cannot be read). It runs
    the model's JVM-free face on the workers, so tuner must be installed there.

    Parameters
    ----------
    spark
        A classic session.
    name
        The function's name: ``SELECT path, classify(content).prediction FROM images``.
    model_uri
        `models:/<name>@<alias>`, `models:/<name>/<version>` or `runs:/<run id>/model`.

    Returns
    -------
    The same function for columns of a DataFrame.

    Raises
    ------
    ModelError
        There is no such model, another tool made it, or the function's name is none.
    """
    check_function_name(name)
    check_model(model_uri)
    log = logging.getLogger("mlflow.pyfunc")
    level = log.level
    log.setLevel(logging.ERROR)  # MLflow warns that "local" makes no environment: the workers have one
    try:
        function = mlflow.pyfunc.spark_udf(spark, model_uri, env_manager="local")
    finally:
        log.setLevel(level)
    function = _with_nulls(function)
    spark.udf.register(name, function)
    return function


def _with_nulls(function: Any) -> Any:
    """Undo that MLflow's function makes a null of a text column the text None."""
    from pyspark.sql.functions import pandas_udf  # type: ignore[attr-defined]  # it is there

    answers = function.func
    (score,) = set(function.returnType.names) - {PREDICTION, ERROR}  # probability or decision

    def answer(batches: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.DataFrame]:
        for frame in answers(batches):
            known = frame[score].notna()
            yield frame.assign(
                **{
                    PREDICTION: frame[PREDICTION].where(known, None),
                    ERROR: frame[ERROR].where(~known, None),
                }
            )

    # The annotations as types, for Spark reads from them what kind of function this is.
    answer.__annotations__ = {"batches": Iterator[tuple[pd.Series, ...]], "return": Iterator[pd.DataFrame]}
    return pandas_udf(answer, function.returnType)
