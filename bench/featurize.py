"""Images a second from JPEG files to cached features: tuner on Spark beside plain Keras in one process."""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from report import in_turn, machine, run_script, spread, table, values

from tuner.base.machine import machine_cores
from tuner.images.decoding import load_input
from tuner.networks.table import NETWORKS

BATCHES = (16, 32, 64)
SIZE = (400, 300)  # of the images, width and height
SIDE = 2048  # of the matrices whose product gives the machine's rate
SEED = 0

Given = Mapping[str, Any]


def make_images(folder: Path, count: int, source: Path | None) -> None:
    """Write JPEG files, no two alike, in two class folders: smooth random ones, or others with noise."""
    rng = np.random.default_rng(SEED)
    files = sorted(file for file in source.rglob("*.jp*g") if file.is_file()) if source else []
    if source and not files:
        raise SystemExit(f"There are no JPEG files in {source}.")
    for number in range(count):
        if files:
            small = Image.open(files[number % len(files)]).convert("RGB")
        else:
            small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC), dtype=np.float32)
        noisy = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
        target = folder / f"class-{number % 2}"
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(target / f"{number:05d}.jpg", quality=90)


# What runs in a process of its own -----------------------------------------------------------------


def tuner_way(given: Given) -> dict[str, Any]:
    """The seconds to list and hash the files, and those of the extraction, as the cache counts them.

    The workers have started and the network is built before, at once, as in a search.
    """
    from tuner.experiment.networks import NetworkSpec
    from tuner.extraction.cache import FeatureCache
    from tuner.images.index import index_images
    from tuner.images.sources import read_images
    from tuner.networks.resolution import resolve_network
    from tuner.networks.store import NetworkStore
    from tuner.spark.sessions import driver_session
    from tuner.spark.worker_daemon import FOR_EXTRACTION, start_workers

    spec = NetworkSpec(name=given["network"], weights="random", seed=SEED)
    cache = FeatureCache(Path("cache"))
    with driver_session("bench", 1) as session:
        start_workers(session.spark.sparkContext, session.cores, FOR_EXTRACTION)
        backbone = resolve_network(spec, given["precision"], NetworkStore(Path("networks")))
        started = time.perf_counter()
        images = read_images(session.spark, given["images"])
        index = index_images(images)
        listing = time.perf_counter() - started
        done = cache.extract(session.spark, backbone, images, index, tasks=session.cores)
    assert (done.extracted, done.failed) == (len(index), 0), done
    return {"images": done.extracted, "seconds": done.seconds, "listing": listing}


def keras_way(given: Given) -> dict[str, Any]:
    """The seconds from listing the files to features in memory; `building` the network comes before."""
    import keras
    import tensorflow as tf

    row = NETWORKS[given["network"]]
    keras.config.set_dtype_policy("mixed_bfloat16" if given["precision"] == "bfloat16" else "float32")
    keras.utils.set_random_seed(SEED)
    build = getattr(keras.applications, row.name)
    building = time.perf_counter()
    model = build(include_top=False, pooling="avg", weights=None, input_shape=(*row.input_size, 3))
    preprocess = import_module(row.module).preprocess_input
    started = time.perf_counter()
    building = started - building
    files = keras.utils.image_dataset_from_directory(
        given["images"],
        labels=None,
        image_size=row.input_size,
        batch_size=given["batch"],
        shuffle=False,
        verbose=False,
    )
    dataset = files.map(preprocess, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    features = model.predict(dataset, verbose=0).astype(np.float32)
    seconds = time.perf_counter() - started
    return {"images": len(features), "seconds": seconds, "building": building, "macs": multiply_adds(model)}


def multiply_adds(model: Any) -> int:
    """Count the multiply-adds of one image: each kernel's size times the places that it is applied at."""
    total = 0
    for layer in model.layers:
        sizes = [math.prod(one.shape) for one in layer.weights if one.name.endswith("kernel")]
        if sizes:
            total += sum(sizes) * math.prod(layer.output.shape[1:-1])
    return total


def rate_way(given: Given) -> dict[str, Any]:
    """Multiply-adds a second of matrix products on all cores; the best of ten."""
    import tensorflow as tf

    rates = {}
    for precision in given["precisions"]:
        matrix = tf.cast(tf.random.normal((SIDE, SIDE)), precision)
        seconds = []
        for _ in range(10):
            started = time.perf_counter()
            tf.matmul(matrix, matrix).numpy()
            seconds.append(time.perf_counter() - started)
        rates[precision] = SIDE**3 / min(seconds)
    return rates


def decode_way(given: Given) -> dict[str, Any]:
    """The seconds to decode, resize and preprocess alone, in a process a core."""
    row = NETWORKS[given["network"]]
    files = sorted(Path(given["images"]).rglob("*.jpg"))
    with ProcessPoolExecutor(machine_cores()) as pool:
        load = partial(_load, size=row.input_size, mode=row.preprocessing)
        list(pool.map(load, files[: machine_cores() * 4]))  # the processes are there
        started = time.perf_counter()
        total = sum(pool.map(load, files, chunksize=8))
        return {"images": total, "seconds": time.perf_counter() - started}


def _load(file: Path, size: tuple[int, int], mode: Any) -> int:
    load_input(file.read_bytes(), size, mode)
    return 1


WAYS: dict[str, Callable[[Given], dict[str, Any]]] = {
    "tuner": tuner_way,
    "keras": keras_way,
    "rate": rate_way,
    "decode": decode_way,
}


# The table ------------------------------------------------------------------------------------------


def measured(given: Given, base: Path, _: int) -> dict[str, Any]:
    """Run one of the ways in a fresh process; `whole` is how long that lived."""
    with tempfile.TemporaryDirectory(dir=base) as folder:
        started = time.perf_counter()
        figures = run_script("featurize.py", given, Path(folder))
        return {**figures, "whole": time.perf_counter() - started}


def main(
    networks: Annotated[str, typer.Option(help="Of keras.applications.")] = (
        "InceptionV3,ResNet50,MobileNetV2,VGG16"
    ),
    count: Annotated[int, typer.Option(help="How many images.")] = 512,
    rounds: Annotated[int, typer.Option(help="Rounds; the ways take turns.")] = 5,
    precisions: Annotated[str, typer.Option(help="float32, bfloat16 or both.")] = "float32,bfloat16",
    batches: Annotated[str, typer.Option(help="Batch sizes of Keras; the best one counts.")] = ",".join(
        map(str, BATCHES)
    ),
    images: Annotated[Path | None, typer.Option(help="JPEGs to take the pixels of.")] = None,
) -> None:
    print(*machine(), sep="\n")
    chosen, exact, sizes = (
        networks.split(","),
        precisions.split(","),
        [int(one) for one in batches.split(",")],
    )
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        folder = base / "images"
        make_images(folder, count, images)
        given = {"images": folder, "precisions": exact}
        ways = {"rate": partial(measured, {**given, "way": "rate"}, base)}
        for network in chosen:
            one = {**given, "network": network}
            ways[f"{network} decode"] = partial(measured, {**one, "way": "decode"}, base)
            for precision in exact:
                two, name = {**one, "precision": precision}, f"{network} {precision}"
                ways[f"{name} tuner"] = partial(measured, {**two, "way": "tuner"}, base)
                for size in sizes:
                    keras = {**two, "way": "keras", "batch": size}
                    ways[f"{name} keras {size}"] = partial(measured, keras, base)
        found = in_turn(ways, rounds)
    files = "others, with noise" if images else "generated"
    tops = ", ".join(
        f"{max(values(found['rate'], one)) / 1e9:.0f} billion a second in {one}" for one in exact
    )
    print(
        f"\n{count} JPEG files of {SIZE[0]} × {SIZE[1]} pixels ({files}), random weights, {rounds} rounds. "
        "Extraction is from files that are listed and hashed to features in the cache. Both have imported "
        "TensorFlow and built the network before the clock starts; tuner's workers load it within. Floor: "
        f"the network's multiply-adds at the rate of a product of {SIDE} × {SIDE} matrices: {tops}.\n"
    )
    print(report(found, chosen, exact, sizes))


def report(
    found: Mapping[str, list[dict[str, Any]]], networks: list[str], precisions: list[str], sizes: list[int]
) -> str:
    """Give a row for each network and precision; a ratio is of two figures of the same round."""
    rows = []
    for network in networks:
        for precision in precisions:
            name = f"{network} {precision}"
            ours = found[f"{name} tuner"]
            middles = {size: statistics.median(rates(found[f"{name} keras {size}"])) for size in sizes}
            batch = max(middles, key=middles.__getitem__)
            theirs = found[f"{name} keras {batch}"]
            floor = max(values(found["rate"], precision)) / theirs[0]["macs"]
            listed = [one["images"] / (one["seconds"] + one["listing"]) for one in ours]
            built = [one["images"] / (one["seconds"] + one["building"]) for one in theirs]
            rows.append(
                [
                    f"{network}, {precision}",
                    spread(rates(ours)),
                    f"{spread(rates(theirs))}, {batch}",
                    spread([a / b for a, b in zip(rates(ours), rates(theirs), strict=True)], ".2f"),
                    spread([a / b for a, b in zip(listed, rates(theirs), strict=True)], ".2f"),
                    spread([a / b for a, b in zip(rates(ours), built, strict=True)], ".2f"),
                    f"{theirs[0]['macs'] / 1e9:.2f}",
                    f"{floor:.1f}",
                    f"{statistics.median(rates(ours)) / floor:.0%}",
                    f"{statistics.median(rates(theirs)) / floor:.0%}",
                    spread(rates(found[f"{network} decode"]), ".0f"),
                    spread(values(ours, "listing")),
                    spread(values(ours, "whole")),
                ]
            )
    head = [
        "",
        "tuner's extraction, images/s",
        "Keras, images/s, its batch",
        "tuner is × as fast",
        "with listing and hashing",
        "with Keras's building of the network",
        "billion multiply-adds an image",
        "floor, images/s",
        "tuner's share of it",
        "Keras's",
        "decoding alone, images/s",
        "tuner's listing and hashing, s",
        "tuner's whole process, s",
    ]
    return table(head, rows)


def rates(figures: list[dict[str, Any]]) -> list[float]:
    return [one["images"] / one["seconds"] for one in figures]


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("{"):  # as `run_script` calls it
        chosen_way = json.loads(sys.argv[1])
        shown = WAYS[chosen_way["way"]](chosen_way)
        print()
        print(json.dumps(shown))
    else:
        typer.run(main)
