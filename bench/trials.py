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
from PIL import Image
from report import in_turn, machine, run, run_script, spread, table, values
from ruamel.yaml import YAML

from tuner.experiment_file import read_yaml

PEERS = {  # by the name in `trial_ways`: whether it is slow, and then measured on fewer rounds
    "optuna": False,
    "MlflowSparkStudy": False,
    "textbook": True,
    "optuna, requirements inferred": True,
}
SPACE = {"regParam": [1e-4, 1.0], "elasticNetParam": [0.0, 1.0], "maxIter": [5, 30]}
SEED = 42


def points(count: int) -> list[dict[str, Any]]:
    """Draw the same points for all ways, so that they do the same work."""
    rng = np.random.default_rng(SEED)
    low, high = np.log(SPACE["regParam"])
    return [
        {
            "regParam": float(np.exp(rng.uniform(low, high))),
            "elasticNetParam": float(rng.uniform(*SPACE["elasticNetParam"])),
            "maxIter": int(rng.integers(SPACE["maxIter"][0], SPACE["maxIter"][1] + 1)),
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


def write_experiment(file: Path, images: str, network: dict[str, Any], trials: int) -> None:
    """Write the experiment file of a search over the points alone."""
    search = {name: f"{low:g}:{high:g}" for name, (low, high) in SPACE.items()}
    search["regParam"] += ":log"
    given = [{"backbone": network["name"], **point} for point in points(trials)]
    experiment = {
        "name": "bench",
        "images": images,
        "cache": str(file.parent / "cache"),
        "split": {"test": "1/5", "validation": "holdout", "validation_ratio": "1/4"},
        "search": {"backbone": [network], **search, "points": given, "max_evals": trials, "seed": SEED},
    }
    YAML().dump(experiment, file)


def tuner_way(experiment: Path, folder: Path) -> dict[str, Any]:
    """Run `tuner search` in a process and a store of its own; the seconds are those of its trials alone."""
    uri = f"sqlite:///{(folder / 'mlflow.db').absolute()}"
    command = [Path(sys.executable).parent / "tuner", "search", "--experiment", experiment]
    run(command, folder, MLFLOW_TRACKING_URI=uri)
    mlflow.set_tracking_uri(uri)
    runs = mlflow.search_runs(search_all_experiments=True, filter_string="tags.`tuner.kind` = 'trial'")
    parent = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.`tuner.kind` = 'search'"
    ).iloc[0]
    return {
        "seconds": float(parent["metrics.trials_seconds"]),
        "trials": int((runs["status"] == "FINISHED").sum()),
        "accuracy": float(runs["metrics.accuracy"].max()),
        "run_id": parent["run_id"],
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
            source = str(Path(source).absolute())
        if archive is not None:
            unpack_images(archive, base / "images", count)
            source = str(base / "images")
        side = 32 if network is None else 224
        file = network.absolute() if network else base / "projection.keras"
        if network is None:
            random_projection(file, side)
        spec = {"name": "bench", "file": str(file), "input_size": side, "preprocessing": preprocessing}
        experiment = base / "experiment.yaml"
        write_experiment(experiment, source, spec, trials)
        first = tuner_way(experiment, base / "first")  # fills the cache
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
