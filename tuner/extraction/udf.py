"""Images through a network on Spark's workers: what the transformers and the feature cache share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import SparkFiles, TaskContext
from pyspark.sql import SparkSession
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.utils import is_remote

from tuner.base.errors import ModelError
from tuner.base.machine import machine_cores
from tuner.base.uris import file_uri
from tuner.networks.files import FeatureFunction
from tuner.networks.inference import Read, featurize
from tuner.networks.resolution import Network, load_network
from tuner.spark.settings import is_local


def worker_threads(spark: SparkSession) -> int:
    """TensorFlow's threads in one Python worker, so that workers × threads = cores; 1 on Spark Connect."""
    if is_remote():
        return 1
    context = spark.sparkContext
    if is_local(context):
        return max(1, machine_cores() // context.defaultParallelism)
    return int(context.getConf().get("spark.task.cpus", "1"))  # the cores that a task's slot stands for


def ship_network(spark: SparkSession, network: Network) -> None:
    """Send the network's file to the executors of a cluster; local workers read the driver's."""
    if not is_remote() and not is_local(spark.sparkContext):
        spark.sparkContext.addFile(file_uri(Path(network.file)))


def shipped_file(network: Network) -> Path:
    """The network's file on a worker: the driver's own where it is visible, else what was shipped."""
    file = Path(network.file)
    return file if file.exists() else Path(SparkFiles.get(file.name))


def open_on_worker(network: Network, threads: int) -> FeatureFunction:
    """Open a network in a worker, on the GPUs of its task; parameters and errors as of `load_network`."""
    see_assigned_gpus()
    return load_network(network, shipped_file(network), threads)


def see_assigned_gpus() -> None:
    """Let TensorFlow see those GPUs alone that Spark gave the task that runs here, if it gives any.

    References
    ----------
    https://spark.apache.org/docs/latest/configuration.html, custom resource scheduling.
    """
    task = TaskContext.get()
    given = task.resources().get("gpu") if task is not None else None
    if given is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(given.addresses)


def check_function_name(name: str) -> None:
    """Refuse what is no name of a SQL function.

    Raises
    ------
    ModelError
        It has other signs than letters, digits and underscores.
    """
    if not name.isidentifier():
        raise ModelError(f"{name!r} is not a name for a SQL function: use letters, digits and underscores.")


@dataclass(frozen=True)
class Output:
    """What a column of images becomes.

    Attributes
    ----------
    kind
        Spark's type of an image's value, as in a schema's text.
    column
        Makes the values of the network's outputs, float32 of shape (width,) or None, of several images.
    """

    kind: str
    column: Callable[[Sequence[np.ndarray | None]], pa.Array]


def _values(rows: Sequence[np.ndarray | None]) -> pa.Array:
    return pa.array(rows, pa.list_(pa.float32()))


VALUES = Output("array<float>", _values)
"""The network's output as it is."""


def network_udf(
    network: Network, read: Read, output: Output, *, batch_size: int, threads: int, nulls: Any | None = None
) -> Any:
    """Make the column function: images → a struct of `output` and `error`, of which one is null.

    `nulls` is an accumulator of the images that gave no output.
    """

    def run(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        compute = open_on_worker(network, threads)
        for batch in batches:
            images = (value.as_py() for value in batch)
            rows = list(featurize(images, read, compute, batch_size))
            if nulls is not None:
                nulls.add(sum(values is None for values, _ in rows))
            errors = pa.array([error for _, error in rows], pa.string())
            made = output.column([values for values, _ in rows])
            yield pa.StructArray.from_arrays([made, errors], ["output", "error"])

    # Said to be nondeterministic, Spark neither repeats it for each use nor moves filters below it.
    function: Any = arrow_udf(run, f"output {output.kind}, error string")  # type: ignore[call-overload]
    return function.asNondeterministic()
