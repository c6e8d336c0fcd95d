"""Compare a served model without a JVM with what `mlflow.spark.log_model` serves, or with TensorFlow."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import mlflow
import numpy as np
import typer
from ruamel.yaml import YAML

OURS = "without a JVM"
LOAD = """
import sys
import mlflow

model = mlflow.pyfunc.load_model(sys.argv[1])
model.predict(model.input_example)
print("answered", flush=True)
"""
BATCH = 64
PATIENCE = 180  # seconds for a server's first answer


def copy_for(peer: str, folder: Path, target: Path) -> Path:
    """Copy a model folder so that its `python_function` flavor is the peer's."""
    shutil.copytree(folder, target)
    if peer == "mlflow.spark":
        file = target / "MLmodel"
        described = YAML().load(file)
        described["flavors"]["python_function"].update(loader_module="mlflow.spark", data="sparkml")
        # The pipeline takes bytes: said to be binary, the column is decoded by MLflow.
        taken = described["signature"]["inputs"].replace('"type": "string"', '"type": "binary"')
        described["signature"]["inputs"] = taken
        YAML().dump(described, file)
    elif peer == "TensorFlow":
        file = target / "scorer" / "scorer.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"onnx": None}))
        next(target.rglob("*.onnx")).unlink()
    return target


def environment(python: Path) -> dict[str, str]:
    """MLflow's command and Spark's workers are those of a Python."""
    binaries = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    kept = os.environ if python == Path(sys.executable) else own
    return {**kept, "PATH": binaries, "PYSPARK_PYTHON": str(python)}


def seconds_to_load_and_predict(model: Path, python: Path) -> float:
    """Time from the start of a fresh process to the first answer."""
    started = time.perf_counter()
    with subprocess.Popen(
        [python, "-c", LOAD, model],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(python),
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        if not any("answered" in line for line in process.stdout):
            raise SystemExit(f"{model} did not answer")
        seconds = time.perf_counter() - started
        os.killpg(process.pid, signal.SIGKILL)
    return seconds


class Client:
    """One connection to a scoring server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self, body: bytes) -> float:
        """Post a request; the seconds until its answer is read."""
        started = time.perf_counter()
        self._connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != http.client.OK:
            raise SystemExit(f"HTTP status {response.status}: {answer[:500].decode()}")
        return time.perf_counter() - started


@contextmanager
def served(model: Path, python: Path, port: int, log: Path) -> Iterator[int]:
    """Serve a model folder as a user would; give the process id."""
    command = [str(python.parent / "mlflow"), "models", "serve", "-m", str(model), "--env-manager", "local"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "-p", str(port)],
            stdout=out,
            stderr=out,
            env=environment(python),
            start_new_session=True,
        )
        try:
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def first_answer(port: int, body: bytes, log: Path) -> Client:
    """Ask until the server answers."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        client = Client(port)
        try:
            client.ask(body)
            return client
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise SystemExit(f"no answer: {log.read_text(errors='replace')[-2000:]}")


def resident_mib(root: int) -> float:
    """Memory of a process and all below it; what several of them share is counted once."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    family, size = {root}, 0
    while len(family) != size:
        size = len(family)
        family |= {process for process, parent in parents.items() if parent in family}
    shares = []
    for process in family:
        with suppress(OSError):  # it has just ended
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            shares += [int(line.split()[1]) for line in lines if line.startswith("Pss:")]
    return sum(shares) / 1024


def measure(model: Path, python: Path, image: str, requests: int, log: Path) -> dict[str, float]:
    """Serve a model alone on this machine, and measure."""

    def body(images: int) -> bytes:
        data = {"columns": ["content"], "data": [[image]] * images}
        return json.dumps({"dataframe_split": data}).encode()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.perf_counter()
    with served(model, python, port, log) as process:
        client = first_answer(port, body(1), log)
        figures = {"start-up, s": time.perf_counter() - started}
        for _ in range(20):
            client.ask(body(1))
        times = [1000 * client.ask(body(1)) for _ in range(requests)]
        figures["one image, p50, ms"] = statistics.median(times)
        figures["one image, p99, ms"] = float(np.percentile(times, 99))
        client.ask(body(BATCH))
        seconds = statistics.median(client.ask(body(BATCH)) for _ in range(max(5, requests // 20)))
        figures[f"batch of {BATCH}, images/s"] = BATCH / seconds
        figures["memory, MiB"] = resident_mib(process)
    return figures


def table(figures: dict[str, dict[str, float]]) -> Iterator[str]:
    """Give the lines of a Markdown table with the ratio of the two faces."""
    fast, slow = figures
    yield f"| | {fast} | {slow} | ratio |"
    yield "| --- | ---: | ---: | ---: |"
    for name, value in figures[fast].items():
        other = figures[slow][name]
        ratio = value / other if name.endswith("/s") else other / value
        yield f"| {name} | {value:.1f} | {other:.1f} | {ratio:.1f} × |"


def main(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or a model folder.")],
    requests: Annotated[int, typer.Option(help="Requests of one image, in each round.")] = 100,
    rounds: Annotated[int, typer.Option(help="Rounds; a figure is the median of theirs.")] = 3,
    peer: Annotated[str, typer.Option(help="What it is compared with: mlflow.spark or TensorFlow.")] = (
        "mlflow.spark"
    ),
    python: Annotated[
        Path, typer.Option(help="Serve without a JVM by this one: of an environment of the requirements.")
    ] = Path(sys.executable),
) -> None:
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load before {load:.2f}, {rounds} rounds of {requests} requests\n")
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    pythons = {OURS: python.absolute(), peer: Path(sys.executable)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(mlflow.artifacts.download_artifacts(model, dst_path=f"{folder}/source"))
        image = json.loads((source / "input_example.json").read_text())["data"][0][0]
        copies = {
            name: copy_for(name, source, Path(folder, str(number))) for number, name in enumerate(pythons)
        }
        for _ in range(rounds):  # in turn, so that a change of the machine touches both
            for name, own in pythons.items():
                loaded = {"load and predict in Python, s": seconds_to_load_and_predict(copies[name], own)}
                log = Path(folder, "server.log")
                found[name].append(loaded | measure(copies[name], own, image, requests, log))
                told = ", ".join(f"{key} {value:.1f}" for key, value in found[name][-1].items())
                print(f"{name}: {told}", file=sys.stderr, flush=True)
    figures = {
        name: {key: statistics.median(one[key] for one in ones) for key in ones[0]}
        for name, ones in found.items()
    }
    print(*table(figures), sep="\n")


if __name__ == "__main__":
    typer.run(main)
