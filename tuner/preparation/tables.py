"""The tables of features that trials read: small ones made on the driver, large ones by Spark."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tuner.base.columns import FEATURES, LABEL_INDEX, PART, PATH
from tuner.extraction.cache import FeatureCache
from tuner.images.index import nominal
from tuner.images.splits import TEST
from tuner.networks.resolution import Network
from tuner.preparation.images import PreparedImages
from tuner.spark.sessions import DriverSession
from tuner.spark.settings import is_local

_PARTITION_BYTES = 64 * 2**20  # of features; smaller data goes in one: each MLlib step is a job
_SMALL_BYTES = 16 * 2**20  # made on the driver, whose memory holds several copies for a moment
# Where a third of the values is 0, as after a ReLU, MLlib makes sparse blocks, which take thrice the time.
# So small that no sum changes, and a column of zeros still has no variance.
_NEARLY_ZERO = 1e-30
_MOST_COPIES = 39  # Spark takes no more


def feature_table(
    session: DriverSession, cache: FeatureCache, network: Network, rows: pd.DataFrame, *, classes: int
) -> DataFrame:
    """The features of `rows`, one row an image: path, label_index, part, features; in a fixed order.

    The column of labels says that there are so many `classes`: Spark Connect asks for the size of a model
    before it is fitted, and without that stops at 100.
    """
    return _table(session, cache, network, rows).withMetadata(LABEL_INDEX, nominal(classes))


def _table(session: DriverSession, cache: FeatureCache, network: Network, rows: pd.DataFrame) -> DataFrame:
    if _bytes(network, rows) <= _SMALL_BYTES:
        return _small_table(session, cache, network, rows)
    columns = ["path", "digest", "label_index", "part"]
    index = session.spark.createDataFrame(rows[columns])
    table = (
        cache.read(session.spark, network, zero=_NEARLY_ZERO)
        .join(F.broadcast(index), "digest")
        .drop("digest")
    )
    partitions = _partitions(network, rows)
    spread = table.coalesce(1) if partitions == 1 else table.repartitionByRange(partitions, "path")
    return spread.sortWithinPartitions("path")


def _small_table(
    session: DriverSession, cache: FeatureCache, network: Network, rows: pd.DataFrame
) -> DataFrame:
    """One partition, made here: to plan a scan, a join and a sort costs a new JVM seconds."""
    rows = rows.sort_values("path")
    values = cache.load(network, list(rows["digest"])).astype(np.float64)
    values[values == 0] = _NEARLY_ZERO
    ends = np.arange(len(rows) + 1, dtype=np.int32) * network.width
    columns = {name: pa.array(rows[name]) for name in (PATH, LABEL_INDEX, PART)}
    columns[FEATURES] = pa.ListArray.from_arrays(pa.array(ends), pa.array(values.ravel()))
    table = session.spark.createDataFrame(pa.table(columns)).coalesce(1)
    return table.withColumn(FEATURES, array_to_vector(F.col(FEATURES)))


def _partitions(network: Network, rows: pd.DataFrame) -> int:
    return math.ceil(_bytes(network, rows) / _PARTITION_BYTES)


def _bytes(network: Network, rows: pd.DataFrame) -> int:
    return len(rows) * network.width * 8


def publish_tables(
    session: DriverSession, cache: FeatureCache, prepared: PreparedImages, copies: int = 1
) -> dict[str, str]:
    """Hold each network's table, without the test part, and name it for the sessions of all workers.

    A table of one partition is held by so many executors, as far as there are: one of them would else fit
    all trials, and the others look on.
    """
    rows = prepared.index[prepared.index["part"] != TEST]
    names = {}
    for network in prepared.networks.values():
        view = re.sub(r"\W", "_", f"{network.name}_{network.key[:8]}").lower()
        most = 1 if _partitions(network, rows) > 1 else min(copies, _MOST_COPIES)
        table = feature_table(session, cache, network, rows, classes=len(prepared.labels))
        held = _hold(session, table, most)
        held.createOrReplaceGlobalTempView(view)
        names[network.name] = f"global_temp.{view}"
    return names


def _hold(session: DriverSession, table: DataFrame, copies: int) -> DataFrame:
    """Compute a table once and keep its rows: on a cluster in a form that is made anew where one is lost.

    On this machine there is none to lose. A checkpoint forgets how the table was made: the rows of one that
    the driver made would else travel with every task, as a part of it, and at each step of a fit.
    """
    if is_local(session.spark.sparkContext):
        return table.localCheckpoint()
    held = table.persist(StorageLevel(True, True, False, True, copies))
    held.count()
    return held
