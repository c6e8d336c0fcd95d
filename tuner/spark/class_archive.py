"""The JVM's classes, kept from one start to the next in an archive (AppCDS): seconds of each start."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import pyspark

_FOLDER = Path("var", "tuner")  # in the virtual environment, with which it goes
_CLASS_PATH_VARIABLES = ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "SPARK_DIST_CLASSPATH", "SPARK_HOME")


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
    return f"-XX:{use}={file} -Xlog:cds*=off"


def _archive_file() -> Path | None:
    """Where the archive for this Java and this Spark is or shall be; None: nowhere."""
    release, spark = _java_release(), Path(pyspark.__file__).parent
    conf = Path(os.environ.get("SPARK_CONF_DIR") or spark / "conf")
    if (
        sys.prefix == sys.base_prefix
        or release is None
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
    return file if " " not in str(file) and (file.exists() or writable) else None


def _java_release() -> str | None:
    """What the JVM that Spark will start says of itself; None where it may know no such archives."""
    java = shutil.which("java", path=f"{home}/bin" if (home := os.environ.get("JAVA_HOME")) else None)
    file = Path(java).resolve().parent.parent / "release" if java else None
    if file is None or not file.is_file():
        return None
    text = file.read_text(encoding="utf-8", errors="replace")
    return None if "openj9" in text.lower() else text
