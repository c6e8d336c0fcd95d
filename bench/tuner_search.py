"""tuner's searches as the benchmarks run them: in a fresh process, with a store of their own."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from PIL import Image
from report import run
from ruamel.yaml import YAML

SPACE: dict[str, tuple[float, float]] = {
    "regParam": (1e-4, 1.0),
    "elasticNetParam": (0.0, 1.0),
    "maxIter": (5, 30),
}
SEED = 42
Spec = dict[str, Any]


def points(count: int) -> list[dict[str, Any]]:
    """Draw the same points for all ways, so that they do the same work."""
    rng = np.random.default_rng(SEED)
    low, high = np.log(SPACE["regParam"])
    return [
        {
            "regParam": float(np.exp(rng.uniform(low, high))),
            "elasticNetParam": float(rng.uniform(*SPACE["elasticNetParam"])),
            "maxIter": int(rng.integers(int(SPACE["maxIter"][0]), int(SPACE["maxIter"][1]) + 1)),
        }
        for _ in range(count)
    ]


def random_projection(file: Path, side: int, width: int = 2048) -> None:
    """Store a network that projects pixels onto random directions, and keeps what is positive."""
    import keras

    keras.utils.set_random_seed(SEED)
    layers = [
        keras.Input((side, side, 3)),
        keras.layers.Flatten(),
        keras.layers.Dense(width, activation="relu"),
    ]
    keras.Sequential(layers).save(file)


def unpack_images(archive: Path, folder: Path, count: int) -> None:
    """Write the first images of an archive (`images`, `labels`) into class folders."""
    stored = np.load(archive)
    for number, (pixels, label) in enumerate(
        zip(stored["images"][:count], stored["labels"][:count], strict=True)
    ):
        target = folder / str(label)
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target / f"{number:05d}.png")


def write_experiment(
    file: Path,
    images: str,
    networks: Sequence[Spec],
    trials: int,
    *,
    cache: Path,
    validation: str = "holdout",
    given: Sequence[Mapping[str, Any]] = (),
    parallelism: int = 2,
) -> Path:
    """Write an experiment file; it gives the points first."""
    space = {name: f"{low:g}:{high:g}" for name, (low, high) in SPACE.items()}
    space["regParam"] += ":log"
    search = {"backbone": list(networks), **space, "points": list(given), "max_evals": trials, "seed": SEED}
    experiment = {
        "name": "bench",
        "images": images,
        "cache": str(cache),
        "split": {"test": "1/5", "validation": validation, "validation_ratio": "1/4"},
        "search": {**search, "parallelism": parallelism},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    YAML().dump(experiment, file)
    return file


def open_store(folder: Path) -> str:
    uri = f"sqlite:///{(folder / 'mlflow.db').absolute()}"
    mlflow.set_tracking_uri(uri)
    return uri


def trial_runs(folder: Path, search: str | None = None) -> pd.DataFrame:
    """The trials in a folder's store, or of one search there, by their starts, with their `seconds`."""
    open_store(folder)
    runs = mlflow.search_runs(
        search_all_experiments=True,
        filter_string="tags.`tuner.kind` = 'trial'"
        + (f" and tags.`mlflow.parentRunId` = '{search}'" if search else ""),
        order_by=["start_time ASC"],
        max_results=5000,
    )
    assert set(runs["status"]) == {"FINISHED"}, runs["status"]
    return runs.assign(seconds=(runs["end_time"] - runs["start_time"]).dt.total_seconds())


def medians(runs: pd.DataFrame) -> dict[str, float]:
    return {
        str(name): float(value)
        for name, value in runs.groupby("params.backbone")["seconds"].median().items()
    }


def first_start(runs: pd.DataFrame, spawned: float) -> float:
    return float(runs["start_time"].min().timestamp() - spawned)


def tuner_search(experiment: Path, folder: Path, *more: str, **variables: str) -> dict[str, Any]:
    """Run `tuner search` in a process of its own; what it says and logs as figures.

    The store is the folder's, with what an earlier search there has left.
    """
    uri, log = open_store(folder), folder / "log.txt"
    before = len(log.read_text()) if log.exists() else 0
    spawned = time.time()
    tuner = Path(sys.executable).parent / "tuner"
    command = [str(tuner), "search", "--experiment", str(experiment), *more]
    seconds = run(command, folder, MLFLOW_TRACKING_URI=uri, **variables)
    said = log.read_text()[before:]
    parent = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.`tuner.kind` = 'search'"
    ).iloc[0]  # the latest
    runs = trial_runs(folder, parent["run_id"])
    extracted = re.search(r"\((\d+) images extracted\)", said)
    rates = re.findall(r": (\d+) images, ([\d.]+) images/s", said)
    accuracy = re.search(r"^test\s+accuracy ([\d.]+)", said, re.MULTILINE)
    if not extracted or not accuracy:
        raise SystemExit(said)
    return {
        "run_id": parent["run_id"],
        "seconds": seconds,
        "images": int(extracted[1]),
        "extraction": sum(int(done) / float(rate) for done, rate in rates),
        "accuracy": float(accuracy[1]),
        "first": first_start(runs, spawned),
        "by_backbone": medians(runs),
        **{name: float(parent[f"metrics.{name}_seconds"]) for name in ("prepare", "trials", "winner")},
    }
