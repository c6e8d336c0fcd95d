"""Memory and images a second of learning a batch at a time, beside a fit on all rows at once."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from report import in_turn, machine, run_script, spread, table, values

SEED, CLASSES, CHUNK = 0, 10, 10_000
FITTED_AT_ONCE = "sklearn.LogisticRegression, all at once"
CLASSIFIERS = ("sklearn.SGD", "river.LogisticRegression", FITTED_AT_ONCE)


# Features that no network computed, as the cache keeps them -------------------------------------------


def digest_of(place: int) -> str:
    return hashlib.sha256(str(place).encode()).hexdigest()


def rows_of(start: int, count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of classes that can be told apart, and their classes; the same whatever is made beside them."""
    centres = np.random.default_rng(SEED).normal(size=(CLASSES, width)) / 4
    label = np.arange(start, start + count) % CLASSES
    noise = np.random.default_rng([SEED, start]).normal(size=(count, width))
    return (centres[label] + noise).astype(np.float32), label


def fill(folder: Path, rows: int, width: int) -> None:
    """Write a cache's files for so many images."""
    from tuner.extraction.files import Row, write_part

    folder.mkdir(parents=True)
    for start in range(0, rows, CHUNK):
        features, _ = rows_of(start, min(CHUNK, rows - start), width)
        write_part(folder, [Row(digest_of(start + n), one, None) for n, one in enumerate(features)])


# What is measured, each in a fresh process ------------------------------------------------------------


def peak_mib() -> float:
    """The most memory that this process had resident."""
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) / 1024


def stream(cache: list[str], rows: int, given: dict[str, Any]) -> Any:
    """Learn all rows, a batch at a time; gives the head, and the seconds that learning took."""
    from tuner.classifiers.table import CLASSIFIERS as TABLE
    from tuner.extraction.files import read_features
    from tuner.learning.learner import LearnerSetting
    from tuner.learning.rows import RowFile
    from tuner.learning.state import Course, make_learner
    from tuner.learning.stream import learn_stream

    label = np.arange(rows) % CLASSES
    learner = make_learner(
        LearnerSetting(TABLE[given["classifier"]], {}, given["width"], CLASSES, seed=SEED)
    )
    with RowFile(Path("rows"), (rows, given["width"])) as file:
        read_features(cache, [digest_of(n) for n in range(rows)], file, (None, "today"), ahead=False)
        started = time.perf_counter()
        for _ in learn_stream(
            learner, file, np.arange(rows), label, course=Course(SEED, given["batch"], 1)
        ):
            pass
    return learner.head(), time.perf_counter() - started


def at_once(cache: list[str], rows: int, given: dict[str, Any]) -> Any:
    """Fit scikit-learn's logistic regression on all of them."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from tuner.classifiers.scikit import SklearnHead
    from tuner.extraction.files import read_features

    matrix = np.empty((rows, given["width"]), np.float32)
    read_features(cache, [digest_of(n) for n in range(rows)], matrix, (None, "today"))
    started = time.perf_counter()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(matrix, np.arange(rows) % CLASSES)
    return SklearnHead(model, CLASSES), time.perf_counter() - started


def measured(given: dict[str, Any]) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression  # noqa: F401  # for both, before memory is read

    cache, rows = sorted(map(str, Path(given["cache"]).glob("part-*"))), given["rows"]
    before = peak_mib()
    started = time.perf_counter()
    way = at_once if given["classifier"] == FITTED_AT_ONCE else stream
    head, seconds = way(cache, rows, given)
    whole, peak = time.perf_counter() - started, peak_mib()
    features, label = rows_of(10**9, 2000, given["width"])  # nobody has seen them
    return {
        "before": before,
        "peak": peak,
        "seconds": seconds,
        "whole": whole,
        "accuracy": float((head.score(features).argmax(axis=1) == label).mean()),
    }


def main(
    rows: Annotated[str, typer.Option(help="How many images, separated by commas.")] = "10000,100000",
    width: Annotated[int, typer.Option(help="Features of an image.")] = 1024,
    batch: Annotated[int, typer.Option(help="Images that are learned at once.")] = 256,
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 1,
    classifiers: Annotated[str, typer.Option(help="What learns, separated by semicolons.")] = ";".join(
        CLASSIFIERS
    ),
) -> None:
    """Print memory, seconds and accuracy for each size and classifier."""
    print("\n".join(machine()), end="\n\n")
    lines = []
    for count in map(int, rows.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder) / "cache"
            fill(cache, count, width)

            def way(
                name: str, number: int, count: int = count, base: Path = Path(folder)
            ) -> dict[str, Any]:
                given = {"cache": base / "cache", "rows": count, "width": width, "batch": batch}
                place = base / f"{number}"
                try:
                    return run_script("learn.py", given | {"classifier": name}, place)
                finally:
                    shutil.rmtree(place, ignore_errors=True)

            ways = {name: lambda number, name=name: way(name, number) for name in classifiers.split(";")}
            for name, figures in in_turn(ways, rounds).items():
                per_second = [count / seconds for seconds in values(figures, "seconds")]
                lines.append(
                    [
                        name,
                        f"{count:,}",
                        f"{count * width * 4 / 2**20:,.0f}",
                        spread(values(figures, "before"), ",.0f"),
                        spread(values(figures, "peak"), ",.0f"),
                        spread(per_second, ",.0f"),
                        spread(values(figures, "accuracy"), ".4f"),
                    ]
                )
    head = (
        "classifier",
        "images",
        "features, MiB",
        "MiB before",
        "peak MiB",
        "images a second",
        "accuracy",
    )
    print(table(head, lines))


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print(json.dumps(measured(json.loads(sys.argv[1]))))
    else:
        typer.run(main)
