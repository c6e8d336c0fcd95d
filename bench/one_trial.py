"""Where one trial's time goes, step by step, and what it asks of MLflow's store and of the disk."""

from __future__ import annotations

import cProfile
import os
import pstats
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import mlflow
import numpy as np
import pandas as pd
import typer
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from report import machine, table

from tuner.experiment.networks import NetworkSpec
from tuner.models.flavor import write_model_files
from tuner.networks.resolution import resolve_network
from tuner.networks.store import NetworkStore
from tuner.preparation.matrices import FeatureMatrices
from tuner.tracking.store import Tracking
from tuner.trials.trial import Trial

POINT = {"backbone": "GlyphNet", "regParam": 0.01, "elasticNetParam": 0.5, "maxIter": 20}
STEPS = {  # by the function that does it: file and name
    "features opened, standardised, fitted, scored": ("worker_fit.py", "fit_and_score"),
    "... of it the fit": ("logistic_regression.py", "fit"),
    "metrics": ("metrics.py", "evaluate"),
    "the model written and logged": ("flavor.py", "log_model"),
    "figures, tables, metrics written and logged": ("evaluation.py", "log_evaluation"),
}


def made_up(folder: Path, rows: int, width: int, classes: int) -> FeatureMatrices:
    """Features of images that can be told apart, a quarter of them to score."""
    rng = np.random.default_rng(0)
    label = np.arange(rows) % classes
    values = rng.normal(size=(rows, width)) + rng.normal(size=(classes, width))[label] / 4
    part = np.where(np.arange(rows) < rows * 3 // 4, "train", "validation")
    folder.mkdir()
    named = pd.DataFrame({"path": [f"{row:06d}.png" for row in range(rows)], "label_index": label})
    named.assign(part=part).to_parquet(folder / "rows.parquet")
    np.save(folder / "0-GlyphNet.npy", values.astype(np.float32))
    return FeatureMatrices(folder, {"GlyphNet": "0-GlyphNet.npy"}, values.nbytes // 2)


def open_trial(folder: Path, rows: int, width: int, classes: int) -> Trial:
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("one", artifact_location=str(folder / "artifacts"))
    network = resolve_network(NetworkSpec(name="GlyphNet"), "float32", NetworkStore(folder))
    write_model_files(folder / "model", b"the bytes of an image")
    return Trial(
        tracking=Tracking(uri, experiment),
        parent_id=client.create_run(experiment).info.run_id,
        networks={"GlyphNet": replace(network, width=width)},
        labels=tuple(map(str, range(classes))),
        folds=0,
        metric="accuracy",
        model_files=folder / "model",
        saved=folder / "saved",
        unsent=folder / "unsent",
        matrices=made_up(folder / "features", rows, width, classes),
    )


def counted(calls: Counter[str]) -> None:
    """Count the calls of the store's public methods."""

    def wrapped(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return method(*args, **kwargs)

        return call

    for name, method in vars(SqlAlchemyStore).items():
        if callable(method) and not name.startswith(("_", "sanitize")):
            setattr(SqlAlchemyStore, name, wrapped(name, method))


def files_below(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def main(
    rows: Annotated[int, typer.Option(help="Images, a quarter of them to score.")] = 400,
    width: Annotated[int, typer.Option(help="Features of each.")] = 1024,
    classes: Annotated[int, typer.Option(help="Classes.")] = 10,
    rounds: Annotated[int, typer.Option(help="Trials, after two that are not counted.")] = 7,
) -> None:
    print(*machine(), sep="\n")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        trial = open_trial(folder, rows, width, classes)
        for number in (1, 2):
            assert trial({**POINT, "trial": number})["status"] == "ok"
        wall, cpu = [], []
        for number in range(3, 3 + rounds):
            started, used = time.perf_counter(), time.process_time()
            trial({**POINT, "trial": number, "regParam": 0.01 + number / 1000})
            wall.append(time.perf_counter() - started)
            cpu.append(time.process_time() - used)
        calls, before = Counter[str](), files_below(folder / "artifacts")
        counted(calls)
        profile = cProfile.Profile(time.process_time)
        profile.enable()
        trial({**POINT, "trial": 3 + rounds, "regParam": 0.1})
        profile.disable()
        files = files_below(folder / "artifacts") - before
    seconds, used = statistics.median(wall), statistics.median(cpu)
    print(f"A trial: {seconds:.3f} s by the clock, {used:.3f} s of CPU time;")
    print(f"{sum(calls.values())} calls of the store ({dict(calls.most_common())}), {files} files.")
    print(table(["step", "CPU seconds, profiled"], _steps(profile)))


def _steps(profile: cProfile.Profile) -> list[list[object]]:
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    found = {
        (Path(file).name, name): cumulative for (file, _, name), (_, _, _, cumulative, _) in stats.items()
    }
    rows: list[list[object]] = [
        [step, f"{found[where]:.3f}"] for step, where in STEPS.items() if where in found
    ]
    return [*rows, ["all", f"{found['trial.py', '__call__']:.3f}"]]


if __name__ == "__main__":
    typer.run(main)
