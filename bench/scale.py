"""How a search grows: with images, with trials and with executors; its seconds, memory and artifacts."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
import typer
from PIL import Image
from report import in_turn, machine, spread, table, values
from tuner_search import SEED, points, random_projection, trial_runs, tuner_search, write_experiment

from tuner.experiment.networks import NetworkSpec
from tuner.extraction.cache import FeatureCache
from tuner.extraction.files import Row, write_part
from tuner.networks.resolution import resolve_network

SIDE, WIDTH = 8, 512
CHUNK = 5000  # rows of a file of features
SAMPLE_SECONDS = 0.5
WAIT_SECONDS = 60
PROCESSES = ("driver's Python", "JVM", "Python workers")


# Images, and features that no network computed ------------------------------------------------------


def make_images(file: Path, count: int, classes: int) -> list[tuple[str, int]]:
    """Write tiny PNG files, no two alike, into a Parquet; their digests and classes."""
    rng = np.random.default_rng(SEED)
    contents = []
    for pixels in rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        contents.append(buffer.getvalue())
    labels = [number % classes for number in range(count)]
    paths = [f"images/{number:06d}.png" for number in range(count)]
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"content": contents, "label": labels, "path": paths}), file)
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    return list(zip(digests, labels, strict=True))


class Samples:
    """Features by class: real ones with a little noise, or random ones around a centre for each class."""

    def __init__(self, archive: Path | None, classes: int) -> None:
        self.classes = classes
        self.rng = np.random.default_rng(SEED)
        if archive is None:
            self.kinds = [centre[None] for centre in self.rng.normal(0, 0.2, (classes, WIDTH))]
            self.noise = 1.0
        else:
            stored = np.load(archive)
            found, labels = stored["train"], stored["train_label"]
            self.kinds = [found[labels == label] for label in np.unique(labels)]
            self.noise = 0.05 * float(found.std())
        self.width = self.kinds[0].shape[1]

    def draw(self, label: int) -> np.ndarray:
        """One image's features; where the archive has fewer classes, they are shared."""
        rows = self.kinds[label % len(self.kinds)]
        row = rows[self.rng.integers(len(rows))]
        return np.maximum(row + self.rng.normal(0, self.noise, self.width), 0).astype(np.float32)


def fill_cache(
    place: Path, network: dict[str, Any], rows: Sequence[tuple[str, int]], samples: Samples
) -> None:
    """Write features as an extraction would have."""
    cache = FeatureCache(place)
    backbone = resolve_network(NetworkSpec(**network), "float32", cache.networks)
    assert backbone.width == samples.width, backbone
    folder = cache.folder(backbone)
    folder.mkdir(parents=True)
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        write_part(folder, [Row(digest, samples.draw(label), None) for digest, label in some])


# Memory ----------------------------------------------------------------------------------------------


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it ended
            for child in map(int, task.read_text().split()):
                yield child
                yield from descendants(child)


def share(pid: int) -> tuple[str, int]:
    """Which of `PROCESSES` this is, and its proportional share of memory (PSS) in bytes."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    size = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    if "java" in command.split(" ")[0]:
        return PROCESSES[1], size * 1024
    return PROCESSES[2 if "daemon" in command else 0], size * 1024


@contextmanager
def memory() -> Iterator[dict[str, float]]:
    """Sample the processes that this one starts; at the end the peaks in GiB, each by itself."""
    peaks: dict[str, float] = dict.fromkeys(PROCESSES, 0.0)
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            now: Counter[str] = Counter()
            for pid in descendants(os.getpid()):
                with suppress(OSError, StopIteration):  # it ended
                    kind, size = share(pid)
                    now[kind] += size
            for kind, size in now.items():
                peaks[kind] = max(peaks[kind], size / 2**30)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peaks
    finally:
        ended.set()
        sampler.join()


# The parts -------------------------------------------------------------------------------------------


class Bench:
    """What the parts share: a folder, a network of tiny images and the features."""

    def __init__(self, base: Path, samples: Samples) -> None:
        self.base, self.samples = base, samples
        file = base / "projection.keras"
        random_projection(file, SIDE, self.samples.width)
        self.network = {"name": "bench", "file": str(file), "input_size": SIDE, "preprocessing": "unit"}

    def source(self, count: int) -> Path:
        """A folder of images and of a cache with their features."""
        folder = self.base / f"images-{count}"
        rows = make_images(folder / "images.parquet", count, self.samples.classes)
        fill_cache(folder / "cache", {**self.network, "input_size": (SIDE, SIDE)}, rows, self.samples)
        return folder

    def search(self, source: Path, trials: int, folder: Path) -> dict[str, Any]:
        """Run a search whose features are there."""
        experiment = write_experiment(
            folder / "experiment.yaml",
            str(source / "images.parquet"),
            [self.network],
            trials,
            cache=source / "cache",
            given=[{"backbone": self.network["name"], **point} for point in points(trials)],
        )
        figures = tuner_search(experiment, folder)
        assert figures["images"] == 0, figures
        return figures


def images_part(bench: Bench, sizes: Sequence[int], trials: int, rounds: int) -> str:
    sources = {size: bench.source(size) for size in sizes}

    def way(size: int, number: int) -> dict[str, Any]:
        with memory() as peaks:
            figures = bench.search(sources[size], trials, bench.base / f"search-{size}-{number}")
        return {**figures, **peaks}

    found = in_turn({str(size): partial(way, size) for size in sizes}, rounds)
    rows = [
        [
            f"{int(name):,} images",
            *[spread(values(ones, phase)) for phase in ("prepare", "trials")],
            spread([one["trials"] / trials for one in ones], ".2f"),
            *[spread(values(ones, phase)) for phase in ("winner", "seconds")],
            *[spread(values(ones, kind), ".2f") for kind in PROCESSES],
        ]
        for name, ones in found.items()
    ]
    head = ["", "prepare, s", "trials, s", "s a trial", "winner, s", "whole process, s"]
    shown = table([*head, *[f"{kind}, GiB" for kind in PROCESSES]], rows)
    of = bench.samples
    return f"{of.width} features an image, all cached; {of.classes} classes, {trials} trials.\n\n{shown}"


def artifact_bytes(folder: Path) -> dict[str, float]:
    """What a search left on the disk, in MiB: its networks, all other artifacts, MLflow's database."""
    sizes: Counter[str] = Counter()
    for file in (folder / "mlruns").rglob("*"):
        if file.is_file():
            sizes["networks" if "networks" in file.parts else "rest"] += file.stat().st_size
    sizes["database"] = (folder / "mlflow.db").stat().st_size
    return {name: sizes[name] / 2**20 for name in ("networks", "rest", "database")}


def pace(folder: Path) -> dict[str, float]:
    """Seconds a trial of the first group and of the last by the clock, and the median length of theirs."""
    runs = trial_runs(folder)
    some = max(1, min(50, len(runs) // 2))
    figures: dict[str, float] = {}
    for name, group in (("first", runs.head(some)), ("last", runs.tail(some))):
        took = group["end_time"].max() - group["start_time"].min()
        figures |= {name: took.total_seconds() / some, f"{name}_trial": float(group["seconds"].median())}
    return {**figures, "group": some}


def trials_part(bench: Bench, counts: Sequence[int], images: int, rounds: int) -> str:
    source = bench.source(images)

    def way(count: int, number: int) -> dict[str, Any]:
        folder = bench.base / f"trials-{count}-{number}"
        figures = bench.search(source, count, folder)
        return {**figures, "first_start": figures["first"], **pace(folder), **artifact_bytes(folder)}

    found = in_turn({str(count): partial(way, count) for count in counts}, rounds)
    rows = [
        [
            f"{name} trials",
            spread(values(ones, "trials")),
            f"{ones[0]['group']:.0f}",
            *[spread(values(ones, key), ".2f") for key in ("first", "last")],
            spread([one["last"] / one["first"] for one in ones], ".2f"),
            *[spread(values(ones, key), ".2f") for key in ("first_trial", "last_trial")],
            *[spread(values(ones, key), ".2f") for key in ("networks", "rest")],
            spread([one["rest"] / int(name) for one in ones], ".3f"),
            spread(values(ones, "database"), ".2f"),
        ]
        for name, ones in found.items()
    ]
    head = ["", "trials, s", "group", "first group, s a trial", "last group, s a trial", "last ÷ first"]
    lengths = ["median length in the first, s", "in the last, s"]
    disk = ["networks, MiB", "other artifacts, MiB", "the same a trial", "database, MiB"]
    return f"{images:,} images, two trials at once.\n\n{table([*head, *lengths, *disk], rows)}"


# Spark's standalone cluster --------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[dict[str, str]]:
    """Start a master and workers of one core and two slots each; its URL and a driver's settings."""
    folder.mkdir(parents=True)
    home, port = Path(pyspark.__file__).parent, free_port()
    url = f"spark://127.0.0.1:{port}"
    (folder / "spark-defaults.conf").write_text("spark.executor.memory 2g\nspark.driver.memory 4g\n")
    environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
    cores = sorted(os.sched_getaffinity(0))
    started: list[subprocess.Popen[bytes]] = []
    log = folder / "cluster.log"

    def start(kind: str, core: int | None, *arguments: object) -> None:
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        command = [*pinned, home / "bin" / "spark-class", f"org.apache.spark.deploy.{kind}"]
        with log.open("ab") as out:
            started.append(
                subprocess.Popen(
                    [str(part) for part in (*command, "--host", "127.0.0.1", *arguments)],
                    cwd=folder,
                    env=environment,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )

    def wait_for(text: str, times: int) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while log.read_text(errors="replace").count(text) < times:
            if time.monotonic() > deadline:
                raise SystemExit(f"The cluster did not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)

    try:
        start("master.Master", None, "--port", port, "--webui-port", free_port())
        wait_for("ALIVE", 1)
        for number in range(workers):
            own = ("--cores", 2, "--memory", "3g", "--work-dir", folder / f"work-{number}")
            start("worker.Worker", cores[number % len(cores)], *own, "--webui-port", free_port(), url)
        wait_for("Successfully registered with master", workers)
        yield {"url": url, "SPARK_CONF_DIR": str(folder), "SPARK_LOCAL_IP": "127.0.0.1"}
    finally:
        for process in reversed(started):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def executors_part(
    bench: Bench, counts: Sequence[int], images: int, trials: int, network: str, rounds: int
) -> str:
    file = bench.base / "executors.parquet"
    make_images(file, images, bench.samples.classes)
    spec = {"name": network, "weights": "random", "seed": 0}

    def way(count: int, number: int) -> dict[str, Any]:
        folder = bench.base / f"executors-{count}-{number}"
        experiment = write_experiment(
            folder / "experiment.yaml",
            str(file),
            [spec],
            trials,
            cache=folder / "cache",
            given=[{"backbone": network, **point} for point in points(trials)],
            parallelism=count,
        )
        with cluster(folder / "cluster", count) as settings:
            url = settings.pop("url")
            figures = tuner_search(experiment, folder / "search", "--master", url, **settings)
        assert figures["images"] == images, figures
        return figures

    found = in_turn({str(count): partial(way, count) for count in counts}, rounds)
    first = found[str(counts[0])]
    rows = []
    for name, ones in found.items():
        row = [f"{name} executor(s)"]
        for phase in ("extraction", "prepare", "trials", "winner"):
            ratios = [a[phase] / b[phase] for a, b in zip(first, ones, strict=True)]
            row += [spread(values(ones, phase)), "" if ones is first else spread(ratios, ".2f")]
        rows.append(row)
    head = [""]
    for phase in ("extraction", "prepare", "trials", "winner"):
        head += [f"{phase}, s", "× as fast"]
    return (
        f"{images:,} images through {network}, {trials} trials, as many at once as executors; an executor "
        f"is held to one core and has two slots, and the driver shares the cores.\n\n{table(head, rows)}"
    )


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(
    part: Annotated[str, typer.Option(help="images, trials or executors.")],
    sizes: Annotated[str, typer.Option(help="Images of the part images.")] = "500,5000,50000",
    max_evals: Annotated[int, typer.Option(help="Trials of the parts images and executors.")] = 8,
    counts: Annotated[str, typer.Option(help="Trials of the part trials.")] = "10,100,300",
    executors: Annotated[str, typer.Option(help="Executors of the part executors.")] = "1,2",
    images: Annotated[int, typer.Option(help="Images of the parts trials and executors.")] = 2000,
    network: Annotated[str, typer.Option(help="Of the part executors.")] = "MobileNetV2",
    features: Annotated[
        Path | None, typer.Option(help="An .npz of train and train_label to draw from.")
    ] = None,
    classes: Annotated[int, typer.Option(help="Classes, of the same number of images each.")] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds; the sizes take turns.")] = 5,
) -> None:
    if part not in ("images", "trials", "executors"):
        raise typer.BadParameter("--part is images, trials or executors")
    print(*machine(), "", sep="\n")
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(Path(place), Samples(features, classes))
        if part == "images":
            shown = images_part(bench, numbers(sizes), max_evals, rounds)
        elif part == "trials":
            shown = trials_part(bench, numbers(counts), images, rounds)
        else:
            shown = executors_part(bench, numbers(executors), images, max_evals, network, rounds)
    print(shown)


if __name__ == "__main__":
    typer.run(main)
