"""What Spark is started with: what trials need, beside what the user's own `spark-defaults.conf` says."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

import pyspark
from pyspark import SparkContext

from tuner.base.machine import machine_cores, memory_mib
from tuner.spark.class_archive import archive_options

_TASK_ATTEMPTS = 4  # Spark's default on clusters; its local mode gives up at the first dead worker
_JAVA_OPTIONS = "spark.driver.extraJavaOptions"


def local_slots(master: str) -> int | None:
    """The slots of a `local[…]` master; None for a cluster's."""
    if master == "local":
        return 1
    if not master.startswith("local["):
        return None
    count = master.removeprefix("local[").rstrip("]").split(",")[0]
    return machine_cores() if count == "*" else int(count)


def is_local(context: SparkContext) -> bool:
    """Whether Spark runs on this machine alone, not on a cluster."""
    return local_slots(str(context.master)) is not None


def user_defaults() -> dict[str, str]:
    """What `spark-defaults.conf` says: in `SPARK_CONF_DIR`, or in Spark's own folder `conf`."""
    home = os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent
    file = Path(os.environ.get("SPARK_CONF_DIR") or Path(home, "conf"), "spark-defaults.conf")
    if not file.is_file():
        return {}
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    pairs = [re.split(r"\s*[=:\s]\s*", line, maxsplit=1) for line in lines if line and line[0] not in "#!"]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def chosen_master(master: str | None, parallelism: int) -> str:
    """The master given or, as `spark-submit` looks for it, the user's default; else this machine.

    Local mode gets a slot for each trial beside one for each core, so that the MLlib jobs find theirs.
    """
    chosen = master or user_defaults().get("spark.master") or os.environ.get("MASTER")
    return chosen or f"local[{machine_cores() + parallelism},{_TASK_ATTEMPTS}]"


def settings(master: str) -> dict[str, str]:
    """What Spark is started with; on a cluster the user's defaults go first."""
    defaults = user_defaults()
    local = local_slots(master) is not None
    log4j = resources.files("tuner.spark") / "log4j2.properties"
    java_options = defaults.get(_JAVA_OPTIONS, "")
    if local and "-XX:+Use" not in java_options:
        java_options = f"{java_options} -XX:+UseParallelGC"  # trials a minute count here, not pauses
    if local:
        java_options = f"{java_options} {archive_options()}"
    if "log4j" not in java_options:
        java_options = f"{java_options} -Dlog4j2.configurationFile={log4j}".strip()
    ours = {
        "spark.scheduler.mode": "FAIR",  # the MLlib jobs of several trials share the slots
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "1000",  # of image contents: 10,000 may be GBs
        "spark.ui.showConsoleProgress": "false",
    }
    if not local:
        ours["spark.locality.wait"] = "100ms"  # Spark's own 3 s are many steps of a fit
        ours = {key: value for key, value in ours.items() if key not in defaults}
    ours |= {
        "spark.master": master,
        # Of Spark Connect, should it be opened: where Spark's driver itself listens, on every machine the
        # address that executors call.
        "spark.connect.grpc.binding.address": "127.0.0.1" if local else "${spark.driver.bindAddress}",
        _JAVA_OPTIONS: java_options,
    }
    if local:
        # One machine: its other users and the network have no business with this application.
        ours |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": str(machine_cores()),
            "spark.python.daemon.module": "tuner.spark.worker_daemon",
        }
        if "SPARK_DRIVER_MEMORY" not in os.environ and "spark.driver.memory" not in defaults:
            ours["spark.driver.memory"] = f"{_driver_memory_mib()}m"
    return ours


def _driver_memory_mib() -> int:
    """A quarter of the machine's memory, from 1 to 8 GiB: in local mode the driver holds the features."""
    return min(max(memory_mib() // 4, 1024), 8192)
