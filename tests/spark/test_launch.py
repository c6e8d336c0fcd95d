import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.helpers.searches import command_line, descendants, kill_tree, wait_until
from tuner.base.errors import SessionError
from tuner.spark.launch import launch_spark
from tuner.spark.sessions import DriverSession


def jvms(name: str) -> list[int]:
    """The JVMs of an application, by its name on their command lines."""
    processes = [int(place.name) for place in Path("/proc").iterdir() if place.name.isdigit()]
    return [pid for pid in processes if f"spark.app.name={name}" in command_line(pid)]


def test_what_is_wrong_is_told_to_whoever_waits(driver: DriverSession) -> None:
    launch = launch_spark("second", 1, master="local[9]")
    with pytest.raises(SessionError, match="already running"):
        launch.wait()


def test_the_jvm_s_blas_leaves_the_cores_to_the_trials(driver: DriverSession) -> None:
    wanted = os.environ["OPENBLAS_NUM_THREADS"]
    assert driver.spark.sparkContext._jvm.System.getenv("OPENBLAS_NUM_THREADS") == wanted


def _is_daemon(pid: int) -> bool:
    return "tuner.spark.worker_daemon" in command_line(pid)


@pytest.mark.long
def test_workers_import_ahead_as_soon_as_spark_has_started() -> None:
    script = (
        "import time\n"
        "from tuner.spark.launch import launch_spark\n"
        "launch_spark('ahead', 1, preload=['json']).wait()\n"
        "print('started', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as begun:
        try:
            assert begun.stdout is not None
            assert begun.stdout.readline() == "started\n"
            wait_until(lambda: any(map(_is_daemon, descendants(begun.pid))), 50)
        finally:
            kill_tree(begun)


@pytest.mark.long
@pytest.mark.parametrize("seconds", [0.3, 1.0, 10.0], ids=["at once", "booting", "started"])
def test_a_launch_that_nobody_waits_for_ends_with_its_process(seconds: float, tmp_path: Path) -> None:
    name = f"alone-{uuid.uuid4().hex}"
    script = (
        "import sys, time\n"
        "from tuner.spark.launch import launch_spark\n"
        f"launch_spark({name!r}, 1)\n"
        f"time.sleep({seconds})\n"
        "sys.exit(2)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        if seconds > 0.5:
            wait_until(lambda: jvms(name), 30)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert b"Traceback" not in said
    wait_until(lambda: not jvms(name), 30)
