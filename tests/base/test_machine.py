import os
from pathlib import Path

from tuner.base.machine import machine_cores, memory_mib


def test_the_cores_are_those_that_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    assert machine_cores() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert machine_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_the_memory_is_what_the_system_says() -> None:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert memory_mib() == int(lines["MemTotal"].split()[0]) // 1024
