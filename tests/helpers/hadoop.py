"""A Hadoop filesystem that is none of Python's: `viewfs:`, mounted over a folder of this machine.

Python cannot open what lies there by its URI, nor by any path that the URI has: the mount has another name.
"""

import uuid
from pathlib import Path

from pyspark.sql import SparkSession


def mount_settings(folder: Path, table: str) -> dict[str, str]:
    """Hadoop's settings by which `viewfs://TABLE/mounted` is the folder."""
    return {f"fs.viewfs.mounttable.{table}.link./mounted": folder.absolute().as_uri()}


def mount(spark: SparkSession, folder: Path) -> str:
    """Mount a folder for a session that runs already; gives the URI."""
    folder.mkdir(parents=True, exist_ok=True)
    table = f"t{uuid.uuid4().hex}"
    for name, value in mount_settings(folder, table).items():
        spark.sparkContext._jsc.hadoopConfiguration().set(name, value)
    return f"viewfs://{table}/mounted"
