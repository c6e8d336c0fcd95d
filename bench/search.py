"""A search from end to end, from images to a registered winner: tuner beside what one would do instead."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from report import in_turn, machine, run_script, spread, table, values
from tuner_search import (
    SPACE,
    Spec,
    first_start,
    medians,
    points,
    trial_runs,
    tuner_search,
    unpack_images,
    write_experiment,
)

NETWORKS = ("GlyphNet", "GaborNet", "MobileNetV2=random")
COLD, AGAIN = "tuner", "tuner again, on its cache"
SCRIPT, SEEDS = "script: Keras, Optuna, scikit-learn", "seeds: the network in each trial"


def parse_network(text: str) -> Spec:
    """Read `GlyphNet`, `MobileNetV2=random` or `name=path:size:preprocessing`, as an experiment has it."""
    name, _, rest = text.partition("=")
    if not rest:
        return {"name": name}
    if rest == "random":
        return {"name": name, "weights": "random", "seed": 0}
    file, size, preprocessing = rest.rsplit(":", 2)
    return {
        "name": name,
        "file": str(Path(file).resolve()),
        "input_size": int(size),
        "preprocessing": preprocessing,
    }


def unpack_digits(folder: Path) -> None:
    """Write scikit-learn's digits as PNG files into class folders."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        target = folder / str(label)
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(pixels * 255 / 16).astype(np.uint8)).save(target / f"{number:04d}.png")


def main(
    images: Annotated[
        str, typer.Option(help="A folder of class folders, or an .npz of images, labels.")
    ] = "",
    count: Annotated[int, typer.Option(help="Images of the .npz to use.")] = 5000,
    network: Annotated[
        list[str] | None, typer.Option(help="GlyphNet, MobileNetV2=random or name=path:size:preprocessing.")
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials in all, over the networks.")] = 24,
    validation: Annotated[str, typer.Option(help="holdout or cv:5.")] = "holdout",
    rounds: Annotated[int, typer.Option(help="Rounds; the ways take turns.")] = 5,
    seeds_trials: Annotated[int, typer.Option(help="Trials a network of the seeds' way; 0: none.")] = 2,
    seeds_rounds: Annotated[int, typer.Option(help="Rounds of the seeds' way.")] = 5,
) -> None:
    print(*machine(), sep="\n")
    networks = [parse_network(text) for text in network or NETWORKS]
    names = [spec["name"] for spec in networks]
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        folder = base / "images"
        if not images:
            unpack_digits(folder)
        elif images.endswith(".npz"):
            unpack_images(Path(images), folder, count)
        else:
            folder = Path(images).resolve()
        source, total = str(folder), sum(file.is_file() for file in folder.rglob("*"))
        given_points = [
            {"backbone": names[number % len(names)], **point} for number, point in enumerate(points(trials))
        ]
        given = {
            "images": source,
            "networks": networks,
            "trials": trials,
            "folds": 0 if validation == "holdout" else int(validation.partition(":")[2]),
            "space": SPACE,
            "points": given_points,
        }

        def tuner_way(number: int, kind: str) -> dict[str, Any]:
            # The second search of a round goes to the store of the first, as its user's would.
            folder, cache = base / f"tuner-{number}", base / f"cache-{number}"
            experiment = write_experiment(
                folder / "experiment.yaml",
                source,
                networks,
                trials,
                cache=cache,
                validation=validation,
                given=given_points,
            )
            figures = tuner_search(experiment, folder)
            assert (figures["images"] == 0) == (kind == "again"), figures
            return figures

        def peer(name: str, number: int, own: Mapping[str, Any]) -> dict[str, Any]:
            folder, spawned, started = base / f"{name}-{number}", time.time(), time.perf_counter()
            figures = run_script("search_ways.py", {**given, "way": name, **own}, folder)
            seconds, runs = time.perf_counter() - started, trial_runs(folder)
            return {
                **figures,
                "seconds": seconds,
                "first": first_start(runs, spawned),
                "by_backbone": medians(runs),
            }

        def seeds(number: int) -> dict[str, Any]:
            few = [{"backbone": name, **point} for point in points(seeds_trials) for name in names]
            few = few[:1] + few  # the first one starts Spark's workers
            return scaled(peer("seeds", number, {"trials": len(few), "points": few}), names, trials)

        ways: dict[str, Any] = {
            COLD: lambda number: tuner_way(number, "cold"),
            AGAIN: lambda number: tuner_way(number, "again"),
            SCRIPT: lambda number: peer("script", number, {}),
        }
        if seeds_trials:
            ways[SEEDS] = seeds
        found = in_turn(ways, rounds, {SEEDS: seeds_rounds})
    print(f"\n{total} images, {', '.join(names)}, {trials} trials, {validation}, {rounds} rounds.", end=" ")
    if seeds_trials:
        print(
            f"Of the seeds' trials {seeds_trials} a network are measured, and scaled to as many.", end=" "
        )
    print(f"Seconds are those of whole processes.\n\n{report(found, len(networks))}")
    print(f"\nOne more trial, in seconds:\n\n{trials_table(found, names)}")


def report(found: Mapping[str, list[dict[str, Any]]], networks: int) -> str:
    """Give the table of whole searches; a ratio is of two figures of the same round."""
    rows = []
    for name, ones in found.items():
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(found[COLD], ones, strict=False)]
        phases = [
            spread(values(ones, phase)) if phase in ones[0] else ""
            for phase in ("prepare", "trials", "winner")
        ]
        rows.append(
            [
                name,
                len(ones),
                spread(values(ones, "seconds")),
                "" if name == COLD else spread(ratios, ".2f"),
                ones[0].get("images", "all, in each trial"),
                spread(values(ones, "first")),
                *phases,
                f"{statistics.median(values(ones, 'accuracy')):.3f}",
            ]
        )
    head = [
        "",
        "rounds",
        "seconds",
        "× tuner's",
        f"extracted, {networks} networks",
        "start to first trial, s",
    ]
    return table([*head, "prepare, s", "trials, s", "winner, s", "test accuracy"], rows)


def trials_table(found: Mapping[str, list[dict[str, Any]]], names: Sequence[str]) -> str:
    """Give the median seconds of a trial by network: tuner's run two at once, the seeds' one by one."""
    rows = [
        [name, *[spread([one["by_backbone"][network] for one in ones], ".2f") for network in names]]
        for name, ones in found.items()
    ]
    return table(["", *names], rows)


def scaled(figures: dict[str, Any], names: Sequence[str], trials: int) -> dict[str, Any]:
    """Take the measured trials out of the seconds, and as many as there would be into them.

    The very first one's time says how long the start takes, which is paid once.
    """
    seconds: dict[str, list[float]] = figures["trial_seconds"]
    first, *others = seconds[names[0]]
    later = {**seconds, names[0]: others}
    share = [trials // len(names) + (at < trials % len(names)) for at in range(len(names))]
    full = sum(count * statistics.mean(later[name]) for name, count in zip(names, share, strict=True))
    started = first - statistics.mean(others)
    measured = sum(map(sum, seconds.values()))
    return {
        **figures,
        "measured": figures["seconds"],
        "seconds": figures["seconds"] - measured + full + started,
        "by_backbone": {name: statistics.median(later[name]) for name in names},
    }


if __name__ == "__main__":
    typer.run(main)
