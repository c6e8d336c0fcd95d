"""What every benchmark needs: fresh processes measured in turn, medians, tables, the machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGES = ("pyspark", "mlflow", "hyperopt", "optuna", "scikit-learn", "tensorflow", "keras", "numpy")
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
PATIENCE = 1800  # seconds for one measured process


def machine() -> Iterator[str]:
    """Give lines on where the figures were seen."""
    cpu = "unknown CPU"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        cpu = names[0] if names else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    yield f"{cores} cores ({cpu}), {memory:.0f} GiB, load before {load:.2f}; "
    yield f"Python {platform.python_version()}, " + ", ".join(
        f"{name} {version(name)}" for name in PACKAGES
    )


def environment(**more: str) -> dict[str, str]:
    """Give this process's environment, with this Python's commands first and the libraries' chatter off."""
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **QUIET, "PATH": binaries, "PYSPARK_PYTHON": sys.executable, **more}


def run(command: Sequence[str | Path], folder: Path, **variables: str) -> float:
    """Run a command in `folder`; the seconds it took. What it says is shown if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    started = time.perf_counter()
    with log.open("ab") as out:
        code = subprocess.run(
            [str(part) for part in command],
            cwd=folder,
            env=environment(**variables),
            stdout=out,
            stderr=out,
            timeout=PATIENCE,
            check=False,
        ).returncode
    if code:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {code}:\n{log.read_text()[-3000:]}")
    return time.perf_counter() - started


def run_script(script: str, arguments: Mapping[str, Any], folder: Path, **variables: str) -> dict[str, Any]:
    """Run a script of this folder in a fresh process: it takes JSON, and prints its figures last."""
    run([sys.executable, HERE / script, json.dumps(dict(arguments), default=str)], folder, **variables)
    figures: dict[str, Any] = json.loads((folder / "log.txt").read_text().strip().splitlines()[-1])
    return figures


def in_turn(
    ways: Mapping[str, Callable[[int], dict[str, Any]]], rounds: int, fewer: Mapping[str, int] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Measure each way in each round, one after the other, so that a change of the machine touches all."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            if number < (fewer or {}).get(name, rounds):
                found[name].append(way(number))
                print(f"round {number + 1}: {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    return found


def values(figures: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(one[key]) for one in figures]


def spread(numbers: Sequence[float], form: str = ".1f") -> str:
    """Give the median and, in brackets, the least and the greatest."""
    middle = format(statistics.median(numbers), form)
    if len(numbers) == 1:
        return middle
    return f"{middle} ({format(min(numbers), form)}–{format(max(numbers), form)})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Give a Markdown table; all columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
