"""The index of a source: each image's digest, label and size on the driver; contents stay on workers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tuner.base.machine import machine_cores
from tuner.images.contents import with_contents
from tuner.images.files import CHANGED, hash_files
from tuner.images.sources import ImageSet, reading
from tuner.spark.settings import is_local

_HASHED_AT_ONCE = 64  # files


def index_images(images: ImageSet) -> pd.DataFrame:
    """Hash every image in one pass over the source; contents stay on the workers.

    Returns
    -------
    One row an image, sorted by path: `path`, `label`, `label_index` (int), `digest` (sha256, hex),
    `bytes` (int) and `error`: None, or why the file could not be read.
    """
    if images.listing is not None:
        index: pd.DataFrame = _hashed_listing(images)
    else:
        index = reading("listed", lambda: _hashed_frame(images.frame).toArrow().to_pandas())
    index["error"] = index["error"].astype(object).where(index["error"].notna(), None)
    positions = {label: position for position, label in enumerate(images.labels)}
    index.insert(2, "label_index", index["label"].map(positions))
    return index.sort_values(["path", "label"], ignore_index=True)


def _hashed_listing(images: ImageSet) -> pd.DataFrame:
    spark = images.spark
    if is_local(spark.sparkContext):  # here: a worker takes seconds to start
        batches = pa.Table.from_pandas(images.listing, preserve_index=False).to_batches(_HASHED_AT_ONCE)
        with ThreadPoolExecutor(machine_cores()) as pool:  # files are read and hashed outside Python's lock
            found = pool.map(lambda batch: next(hash_files(iter([batch]))), batches)
            return pa.Table.from_batches(found).to_pandas()
    listed = spark.createDataFrame(images.listing, "path string, label string")
    return listed.mapInArrow(
        hash_files, "path string, label string, digest string, bytes bigint, error string"
    ).toPandas()


def _hashed_frame(frame: DataFrame) -> DataFrame:
    return frame.select(
        "path",
        "label",
        F.coalesce(F.sha2("content", 256), F.lit("")).alias("digest"),
        F.coalesce(F.length("content"), F.lit(0)).cast("long").alias("bytes"),
        F.when(F.col("content").isNull(), "null content").alias("error"),
    )


def contents(images: ImageSet, index: pd.DataFrame, partitions: int) -> DataFrame:
    """The bytes of the images of `index`: `digest`, `content`, one row a digest, evenly spread.

    Of a local folder only these files are read; one that changed since it was indexed fails the job.
    """
    wanted = index.drop_duplicates("digest")[["path", "digest"]]
    wanted = wanted.assign(part=np.arange(len(wanted)) % partitions)  # Spark's own dealing is less even
    listed = images.spark.createDataFrame(wanted, "path string, digest string, part int")
    if images.listing is not None:
        read = with_contents(listed.repartitionById(partitions, "part"))
        return read.select("digest", _unchanged().alias("content"))
    hashed = images.frame.select(F.sha2("content", 256).alias("digest"), "content")
    found = hashed.join(F.broadcast(listed.drop("path")), "digest").dropDuplicates(["digest"])
    return found.repartitionById(partitions, "part").drop("part")


def _unchanged() -> Column:
    """The column `content`, with an error where it is not what `digest` stands for."""
    message = F.format_string(CHANGED, "path")
    same = F.sha2("content", 256) == F.col("digest")
    return F.when(same, F.col("content")).otherwise(F.raise_error(message))
