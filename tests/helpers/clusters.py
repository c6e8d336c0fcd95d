"""Spark's own standalone cluster on loopback, and a Python for its workers that lacks packages."""

import json
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyspark

from tests.helpers.searches import command_line, descendants, free_port, kill_tree, wait_until

SPARK_HOME = Path(pyspark.__file__).parent


def make_python(folder: Path, without: Sequence[str] = ("tuner", "transfer_tuner")) -> Path:
    """A Python that has the packages of this one but for some; gives its path."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        names = entry.name.lower().removeprefix("__editable__").lstrip("._")
        if not names.startswith(tuple(without)):
            (site / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


class Cluster:
    """A master and two workers of two slots, each with a working folder and a home of its own."""

    def __init__(self, folder: Path, workers: int = 2) -> None:
        self.folder = folder
        self.port, self.page = free_port(), free_port()
        self.url = f"spark://127.0.0.1:{self.port}"
        self.events = folder / "events"
        self.events.mkdir(parents=True)
        self.settings = folder / "conf"
        self.settings.mkdir()
        self.application_page = free_port()
        self.configure()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._start("master.Master", "--port", self.port, "--webui-port", self.page)
        wait_until(lambda: "Started daemon" in self.log(0) and "ALIVE" in self.log(0), 60)
        for number in range(1, workers + 1):
            work = ("--work-dir", folder / f"work-{number}", "--webui-port", free_port())
            self._start("worker.Worker", "--cores", 2, "--memory", "1g", *work, self.url)
        wait_until(lambda: self.log(0).count("Registering worker") == workers, 60)

    def configure(self, **settings: str) -> None:
        """Write the user's `spark-defaults.conf`; an underscore stands for a dot."""
        lines = {
            "spark.executor.memory": "512m",
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": self.events.as_uri(),
            "spark.eventLog.compress": "false",
            "spark.eventLog.rolling.enabled": "false",
            "spark.ui.port": str(self.application_page),
        } | {name.replace("_", "."): value for name, value in settings.items()}
        text = "".join(f"{key} {value}\n" for key, value in lines.items())
        (self.settings / "spark-defaults.conf").write_text(text)

    def environment(self) -> dict[str, str]:
        """For a driver on this machine."""
        return {"SPARK_CONF_DIR": str(self.settings), "SPARK_LOCAL_IP": "127.0.0.1"}

    def _start(self, kind: str, *arguments: object) -> None:
        number = len(self.processes)
        home = self.folder / f"home-{number}"
        home.mkdir()
        kept = {name: os.environ[name] for name in ("PATH", "JAVA_HOME", "LANG") if name in os.environ}
        environment = kept | {
            "SPARK_HOME": str(SPARK_HOME),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "HOME": str(home),
        }
        command = [str(SPARK_HOME / "bin" / "spark-class"), f"org.apache.spark.deploy.{kind}"]
        with (self.folder / f"{number}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", *map(str, arguments)],
                cwd=home,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)

    def log(self, number: int) -> str:
        return (self.folder / f"{number}.log").read_text(errors="replace")

    def executors(self) -> list[int]:
        """The processes of the executors."""
        found = {pid for worker in self.processes[1:] for pid in descendants(worker.pid)}
        found = {pid for pid in found if "CoarseGrainedExecutorBackend" in command_line(pid)}
        return sorted(found)

    def python_workers(self, executor: int) -> list[int]:
        """The Python processes of an executor that run tasks: forks of its daemon."""
        python = [pid for pid in descendants(executor) if "pyspark.daemon" in command_line(pid)]
        return [pid for pid in python if any(pid in descendants(daemon) for daemon in python)]

    def kill_workers(self) -> None:
        """End the workers and their executors, and leave the master."""
        for process in self.processes[1:]:
            kill_tree(process)
        del self.processes[1:]

    def close(self) -> None:
        self.kill_workers()
        for process in self.processes:
            kill_tree(process)

    # What ran where ---------------------------------------------------------------------------------

    def history(self) -> list[dict[str, Any]]:
        """The events of the latest application, as Spark's own listener wrote them."""
        log = max(self.events.iterdir(), key=lambda file: file.stat().st_mtime)
        return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]

    def tasks(self, kind: str) -> list[dict[str, Any]]:
        """The ended tasks of the jobs whose tag or group begins like this, of the latest application."""
        stages: set[int] = set()
        ended = []
        for event in self.history():
            if event["Event"] == "SparkListenerJobStart":
                properties = event.get("Properties") or {}
                names = properties.get("spark.job.tags", "").split(",")
                names.append(properties.get("spark.jobGroup.id") or "")
                if any(name.startswith(kind) for name in names):
                    stages |= set(event["Stage IDs"])
            if event["Event"] == "SparkListenerTaskEnd" and event["Stage ID"] in stages:
                ended.append(event)
        return ended

    def ran(self, kind: str) -> Counter[str]:
        """How many of these tasks ended well on each executor."""
        good = [task for task in self.tasks(kind) if task["Task End Reason"]["Reason"] == "Success"]
        return Counter(task["Task Info"]["Executor ID"] for task in good)

    def lost(self, kind: str) -> list[dict[str, Any]]:
        """The tasks that died with their executor."""
        tasks = self.tasks(kind)
        return [task for task in tasks if task["Task End Reason"]["Reason"] == "ExecutorLostFailure"]
