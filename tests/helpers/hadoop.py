"""A Hadoop filesystem of another scheme than `file:`, for there is no HDFS here."""

from pathlib import Path

from pyspark.sql import SparkSession


def mount(spark: SparkSession, folder: Path, name: str) -> str:
    """Let Hadoop's own `viewfs:` show a local folder, and give its URI, which no local path leads to."""
    settings = spark.sparkContext._jsc.hadoopConfiguration()  # there is no public way from Python
    settings.set(f"fs.viewfs.mounttable.{name}.link./data", f"file://{folder}")
    return f"viewfs://{name}/data"
