"""What Spark is started with: what trials need, beside what the user's own `spark-defaults.conf` says."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pyspark
from pyspark import SparkContext

from tuner.base.errors import SessionError
from tuner.base.machine import machine_cores, memory_mib
from tuner.base.uris import file_uri
from tuner.spark.class_archive import archive_options
from tuner.spark.jvm import JAVA_VARIABLES, can_hold_files

_TASK_ATTEMPTS = 4  # Spark's default on clusters; its local mode gives up at the first dead worker
_JAVA_OPTIONS = "spark.driver.extraJavaOptions"
_MASTER = re.compile(r"local\b|local-cluster\[|spark://|yarn\b|k8s://", re.IGNORECASE)
# Of the user's settings, what counts on this machine alone: how data is reached, and the JVM's memory and
# options. The rest describes a cluster: its event log, authentication, GPUs.
_LOCAL_TOO = re.compile(
    r"spark\.(hadoop|jars|kerberos|databricks|sql\.(catalog|hive))\b|spark\.sql\.(extensions|catalogImplementation)$|"
    r"spark\.driver\.(memory|maxResultSize|extraJavaOptions|extraClassPath)$|spark\.local\.dir$"
)
_log = logging.getLogger(__name__)


def local_slots(master: str) -> int | None:
    """The slots of a `local[…]` master; None for a cluster's.

    Raises
    ------
    SessionError
        It is a local one that says no number.
    """
    if master == "local":
        return 1
    if not master.startswith("local["):
        return None
    count = master.removeprefix("local[").rstrip("]").split(",")[0].strip()
    if count == "*":
        return machine_cores()
    if not count.isdecimal():
        raise SessionError(f"The master {master} says no number of slots: write local[4] or local[*].")
    return int(count)


def is_local(context: SparkContext) -> bool:
    """Whether Spark runs on this machine alone, not on a cluster."""
    return local_slots(str(context.master)) is not None


def defaults_file() -> Path:
    """Where the user's settings would be: in `SPARK_CONF_DIR`, or in Spark's own folder `conf`."""
    home = os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent
    return Path(os.environ.get("SPARK_CONF_DIR") or Path(home, "conf"), "spark-defaults.conf")


def user_defaults() -> dict[str, str]:
    """What `spark-defaults.conf` says."""
    pairs = (re.split(r"\s*[=:\s]\s*", line, maxsplit=1) for line in _lines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _lines() -> Iterator[str]:
    """The settings of the file as they stand there, those of several lines put together."""
    try:
        text = defaults_file().read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        if defaults_file().exists():
            _log.warning("%s cannot be read (%s), and does not count.", defaults_file(), error.strerror)
        return
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip() and line.strip()[0] not in "#!":
            yield line.strip()


def local_defaults() -> dict[str, str]:
    """What of `spark-defaults.conf` counts on this machine alone."""
    kept = {key: value for key, value in user_defaults().items() if _LOCAL_TOO.match(key)}
    folders = kept.get("spark.local.dir")
    if folders and not any(can_hold_files(Path(folder)) for folder in folders.split(",")):
        del kept["spark.local.dir"]
    return kept


def properties(defaults: dict[str, str]) -> str:
    """Settings as the text of a file that Spark reads: what is secret stands on no command line."""
    return "".join(f"{key} {value}\n" for key, value in defaults.items())


def chosen_master(master: str | None, parallelism: int) -> str:
    """The master given or, as `spark-submit` looks for it, the user's default; else this machine.

    Local mode gets a slot for each trial beside one for each core, so that the MLlib jobs find theirs. The
    variable `MASTER` counts if it is Spark's: other programs have one, too.
    """
    variable = os.environ.get("MASTER", "")
    chosen = master or user_defaults().get("spark.master") or (variable if _MASTER.match(variable) else "")
    return chosen or f"local[{machine_cores() + parallelism},{_TASK_ATTEMPTS}]"


def settings(master: str) -> dict[str, str]:
    """What Spark is started with; on a cluster the user's defaults go first."""
    local = local_slots(master) is not None
    defaults = local_defaults() if local else user_defaults()
    ours = {
        "spark.scheduler.mode": "FAIR",  # the MLlib jobs of several trials share the slots
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "1000",  # of image contents: 10,000 may be GBs
        "spark.ui.showConsoleProgress": "false",
        # What the client of a killed trial began ends within 45 s. That a client is gone shows when it does
        # not ask for the rest of its answer; Spark's own 7 minutes keep others waiting for slots.
        "spark.connect.execute.reattachable.senderMaxStreamDuration": "10s",
        "spark.connect.execute.manager.detachedTimeout": "30s",
        "spark.connect.execute.manager.maintenanceInterval": "5s",
    }
    if not local:
        ours["spark.locality.wait"] = "100ms"  # Spark's own 3 s are many steps of a fit
        ours = {key: value for key, value in ours.items() if key not in defaults}
    ours |= {
        "spark.master": master,
        # Of Spark Connect, should it be opened: where Spark's driver itself listens, on every machine the
        # address that executors call.
        "spark.connect.grpc.binding.address": "127.0.0.1" if local else "${spark.driver.bindAddress}",
        _JAVA_OPTIONS: _java_options(defaults.get(_JAVA_OPTIONS, ""), local=local),
    }
    if local:
        # One machine: its other users and the network have no business with this application.
        ours |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": str(machine_cores()),
            "spark.python.daemon.module": "tuner.spark.worker_daemon",
            "spark.hadoop.fs.defaultFS": "file:///",  # whatever a core-site.xml says
        }
        if "SPARK_DRIVER_MEMORY" not in os.environ and "spark.driver.memory" not in defaults:
            ours["spark.driver.memory"] = f"{_driver_memory_mib()}m"
    return ours


def _java_options(given: str, *, local: bool) -> str:
    """The JVM's options: the user's, and ours where they do not contradict."""
    options = [given]
    everywhere = " ".join([given, *(os.environ.get(name, "") for name in JAVA_VARIABLES)])
    if local and not re.search(r"-XX:\+Use\w*GC\b", everywhere):
        options.append("-XX:+UseParallelGC")  # trials a minute count here, not pauses
    if local:
        options.append(archive_options())
    if "log4j" not in given:
        # A URI, for what stands in a path would have to be quoted for the shell and for log4j.
        place = file_uri(Path(str(resources.files("tuner.spark") / "log4j2.properties")))
        options.append(f"-Dlog4j2.configurationFile={place}")
    return " ".join(filter(None, options))


def _driver_memory_mib() -> int:
    """A quarter of the memory, from 1 to 8 GiB, for the driver holds the features; never more than half."""
    memory = memory_mib()
    return min(max(memory // 4, 1024), 8192, max(memory // 2, 512))
