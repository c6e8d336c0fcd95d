"""The JVM's classes, kept from one start to the next in an archive (AppCDS): seconds of each start."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from pathlib import Path

import pyspark

from tuner.spark.jvm import java_program, java_release

_FOLDER = Path("var", "tuner")  # in the virtual environment, with which it goes
_CLASS_PATH_VARIABLES = ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "SPARK_DIST_CLASSPATH")


def archive_options() -> str:
    """Options by which a JVM reads the archive or, if there is none, writes it when it ends.

    The JVM itself goes on without an archive that does not fit it. Nothing is kept outside a virtual
    environment, nor with a class path of the user's own: a JVM that shall write does not start with folders
    there.

    References
    ----------
    JEP 350, https://openjdk.org/jeps/350.
    """
    file = _archive_file()
    if file is None:
        return ""
    use = "SharedArchiveFile" if file.exists() else "ArchiveClassesAtExit"
    return f"{shlex.quote(f'-XX:{use}={file}')} -Xlog:cds*=off"


def _archive_file() -> Path | None:
    """Where the archive for this Java and this Spark is or shall be; None: nowhere."""
    release, spark = _java_release(), Path(pyspark.__file__).parent
    home = os.environ.get("SPARK_HOME")
    conf = Path(os.environ.get("SPARK_CONF_DIR") or spark / "conf")
    if (
        sys.prefix == sys.base_prefix
        or release is None
        or (home and Path(home) != spark)
        or any(os.environ.get(name) for name in _CLASS_PATH_VARIABLES)
        or (conf.is_dir() and any(conf.iterdir()))
    ):
        return None
    jars = spark / "jars"
    key = f"{release}\n{jars}\n{jars.stat().st_mtime_ns}"
    file = Path(sys.prefix, _FOLDER, f"spark-{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsa")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    writable = os.access(file.parent, os.W_OK)
    return file if ":" not in str(file) and (file.exists() or writable) else None


def _java_release() -> str | None:
    """What the JVM that Spark will start says of itself; None where it may know no such archives."""
    java = java_program()
    text = java_release(java) if java else ""
    return None if not text or "openj9" in text.lower() else text
