"""Trials a minute: tuner beside the ways to search that a user would pick instead, on the same features."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import mlflow
import numpy as np
import pyarrow.dataset as ds
import typer
from report import in_turn, machine, run_script, spread, table, values
from tuner_search import (
    SPACE,
    points,
    random_projection,
    trial_runs,
    tuner_search,
    unpack_images,
    write_experiment,
)

from tuner.experiment.file import read_yaml

ATTEMPTS = 3  # MLflow's study sometimes ends with an error of its own: the other figures still count
PEERS = {  # by the name in `trial_ways`: whether it is slow, and then measured on fewer rounds
    "optuna": False,
    "MlflowSparkStudy": False,
    "textbook": True,
    "optuna, requirements inferred": True,
}


def tuner_way(experiment: Path, folder: Path) -> dict[str, Any]:
    """Give the seconds of the trials alone, as the others' are."""
    figures, runs = tuner_search(experiment, folder), trial_runs(folder)
    return {
        "seconds": figures["trials"],
        "trials": len(runs),
        "accuracy": float(runs["metrics.accuracy"].max()),
    }


def store_features(experiment: Path, search: dict[str, Any], file: Path) -> str:
    """Write what tuner's trials saw, from its cache and its split, for the others; say what it is."""
    cache = Path(read_yaml(experiment)["cache"])
    found = (
        ds.dataset(sorted(cache.glob("features/*/*.parquet"))).to_table().to_pandas().set_index("digest")
    )
    split = mlflow.artifacts.download_artifacts(f"runs:/{search['run_id']}/split.parquet")
    rows = ds.dataset(split).to_table().to_pandas()
    labels = sorted(set(rows["label"]))
    arrays: dict[str, Any] = {"labels": labels}
    for part in ("train", "validation"):
        chosen = rows[rows["part"] == part]
        arrays[part] = np.stack(list(found.loc[chosen["digest"], "features"]))
        arrays[f"{part}_label"] = np.array([labels.index(label) for label in chosen["label"]])
    np.savez(file, **arrays)
    zeros = float((arrays["train"] == 0).mean())
    return (
        f"{len(arrays['train'])} + {len(arrays['validation'])} images (to fit and to score) × "
        f"{arrays['train'].shape[1]} features, {zeros:.0%} of them zero, {len(labels)} classes"
    )


def main(
    archive: Annotated[
        Path | None, typer.Option(help="An .npz of images and labels; none: scikit-learn's digits.")
    ] = None,
    count: Annotated[int, typer.Option(help="Images of the archive to use.")] = 5000,
    images: Annotated[
        str, typer.Option(help="Instead: a folder of class folders, or builtin:digits.")
    ] = "",
    network: Annotated[
        Path | None, typer.Option(help="A .keras network of 224 × 224 pixels; none: a random projection.")
    ] = None,
    preprocessing: Annotated[str, typer.Option(help="The network's preprocessing.")] = "tf",
    trials: Annotated[int, typer.Option(help="Trials of each way and round.")] = 24,
    rounds: Annotated[int, typer.Option(help="Rounds; the ways take turns.")] = 5,
    slow_rounds: Annotated[int, typer.Option(help="Rounds of the slow ways.")] = 5,
    only: Annotated[str, typer.Option(help="Some of the ways, separated by semicolons.")] = "",
) -> None:
    print(*machine(), sep="\n")
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        source = images or "builtin:digits"
        if Path(source).is_dir():
            source = str(Path(source).resolve())
        if archive is not None:
            unpack_images(archive, base / "images", count)
            source = str(base / "images")
        side = 32 if network is None else 224
        file = network.absolute() if network else base / "projection.keras"
        if network is None:
            random_projection(file, side)
        spec = {"name": "bench", "file": str(file), "input_size": side, "preprocessing": preprocessing}
        experiment = base / "experiment.yaml"
        named = [{"backbone": spec["name"], **point} for point in points(trials)]
        write_experiment(experiment, source, [spec], trials, cache=base / "cache", given=named)
        one = write_experiment(base / "one.yaml", source, [spec], 1, cache=base / "cache", given=named[:1])
        first = tuner_search(one, base / "first")  # fills the cache
        data = base / "features.npz"
        print(store_features(experiment, first, data))
        given = {"data": data, "trials": trials, "points": points(trials), "space": SPACE}
        chosen = [name for name in PEERS if not only or name in only.split(";")]
        ways: dict[str, Any] = {"tuner": lambda number: tuner_way(experiment, base / f"tuner-{number}")}
        for name in chosen:
            ways[name] = partial(_peer, name, given, base)
        found = in_turn(ways, rounds, {name: slow_rounds for name in chosen if PEERS[name]})
        print(report(found))


def _peer(name: str, given: dict[str, Any], base: Path, number: int) -> dict[str, Any]:
    """Measure a peer; one that fails is started again, and that is said above the table."""
    for attempt in range(1, ATTEMPTS):
        try:
            return run_script("trial_ways.py", {**given, "way": name}, base / f"{name}-{number}-{attempt}")
        except SystemExit as failure:
            print(failure, file=sys.stderr)
            print(f"{name} failed in round {number + 1} and was started again.", flush=True)
    return run_script("trial_ways.py", {**given, "way": name}, base / f"{name}-{number}")


def report(found: dict[str, list[dict[str, Any]]]) -> str:
    """Give the table: rates, the ratio of tuner's to each within the same round, the best accuracy."""
    rates = {name: [60 * one["trials"] / one["seconds"] for one in ones] for name, ones in found.items()}
    rows = []
    for name, ones in found.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["tuner"], rates[name], strict=False)]
        rows.append(
            [
                name,
                len(ones),
                spread([one["seconds"] / one["trials"] for one in ones], ".2f"),
                spread(rates[name]),
                "" if name == "tuner" else spread(ratios, ".2f"),
                f"{max(values(ones, 'accuracy')):.3f}",
            ]
        )
    return table(
        ["", "rounds", "seconds a trial", "trials a minute", "tuner is × as fast", "best accuracy"], rows
    )


if __name__ == "__main__":
    typer.run(main)
