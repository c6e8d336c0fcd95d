"""Predict the classes of image files, by a model or by ImageNet's network: what `tuner predict` does."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

import pandas as pd
from rich.console import Console
from rich.progress import Progress

from tuner.base.columns import ERROR, PATH, PREDICTION, TOP_K
from tuner.base.errors import ImageSourceError, ModelError
from tuner.base.uris import expanded
from tuner.images.files import files_below, path_text, read_file
from tuner.models.loading import load_model
from tuner.serving.imagenet import ImageNetScorer

_BATCH = 64
Output = Literal["csv", "json"]


class Answers(Protocol):
    """What gives answers: a model's `Scorer`, or an `ImageNetScorer`."""

    labels: tuple[str, ...]

    @property
    def score_column(self) -> str:
        """The column that holds the scores: `probability` or `decision`."""

    @property
    def listed(self) -> Sequence[str]:
        """What is known of each of the likeliest classes."""

    def answer(self, contents: Sequence[bytes | None], top_k: int = 0) -> pd.DataFrame:
        """A row for each image: `prediction`, scores, `error` and, if asked for, `top_k`."""


def predict_files(
    model_uri: str, places: Sequence[Path], *, top_k: int, output: Output, out: TextIO, console: Console
) -> int:
    """Write a row for each image file, by a model that a search logged; as it is known.

    Parameters
    ----------
    model_uri
        A model that a search logged.
    places
        Files, and folders with files below them.
    top_k
        How many of the likeliest classes to list; 0: none.
    output
        `csv`: path, prediction, its probability, error and, with `top_k`, label_1, probability_1, …;
        `json`: a list of what the model answers over HTTP, each with its path. Of a classifier without
        probabilities, `decision` stands in their place.
    out, console
        Where the rows go, and the progress bar.

    Returns
    -------
    The number of files that cannot be read; each has its reason in its row.

    Raises
    ------
    InvalidInput
        The model cannot be loaded, a path does not exist, there are no files or, once their rows are
        written, none of them can be read.
    """
    return _predict(lambda: load_model(model_uri), places, top_k, output, out, console)


def classify_files(
    network: str, places: Sequence[Path], *, top_k: int, output: Output, out: TextIO, console: Console
) -> int:
    """Write a row for each image file, by a network with its own head for ImageNet's classes.

    Parameters
    ----------
    network
        A name of the table of networks.
    places, top_k, output, out, console
        As of `predict_files`; with `top_k` there is class_1, … beside label_1, …: the classes' ids.

    Returns
    -------
    The number of files that cannot be read; each has its reason in its row.

    Raises
    ------
    InvalidInput
        The network or its weights cannot be had, or as of `predict_files`.
    """
    return _predict(lambda: ImageNetScorer.of(network), places, top_k, output, out, console)


def _predict(
    open_scorer: Callable[[], Answers],
    places: Sequence[Path],
    top_k: int,
    output: Output,
    out: TextIO,
    console: Console,
) -> int:
    if top_k < 0:
        raise ModelError(f"--top-k is {top_k}: it must be 0 or more.")
    files = _files(places)
    scorer = open_scorer()
    top_k = min(top_k, len(scorer.labels))
    unread = 0
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("images", total=len(files))

        def tables() -> Iterator[pd.DataFrame]:
            nonlocal unread
            for start in range(0, len(files), _BATCH):
                batch = files[start : start + _BATCH]
                table = _answer(scorer, batch, top_k)
                unread += int(table[ERROR].notna().sum())
                yield table
                progress.advance(task, len(batch))

        if output == "csv":
            extra = [f"{name}_{place + 1}" for place in range(top_k) for name in scorer.listed]
            _write_csv(tables(), scorer.score_column, extra, out)
        else:
            _write_json(tables(), out)
    if unread == len(files):
        raise ImageSourceError(
            f"None of the {unread} file(s) can be read as an image: see the reasons in the column {ERROR}."
        )
    return unread


def _files(places: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for place in map(_expanded, places):
        if not place.exists():
            raise ImageSourceError(f"There is no file or folder {place}: check the path.")
        files += files_below(place, set()) if place.is_dir() else [place]
    if not files:
        raise ImageSourceError(f"There are no files in {', '.join(map(str, places))}.")
    return files


def _expanded(place: Path) -> Path:
    try:
        return expanded(place)
    except ValueError as error:
        raise ImageSourceError(f"There is no file or folder {place}: {error}.") from None


def sample_files(places: Sequence[Path]) -> list[bytes]:
    """Read the files of some places; those that cannot be read are left out.

    Raises
    ------
    ImageSourceError
        A path does not exist, or there are no files.
    """
    contents = (read_file(str(file))[0] for file in (_files(places) if places else []))
    return [content for content in contents if content is not None]


def _answer(scorer: Answers, files: Sequence[Path], top_k: int) -> pd.DataFrame:
    read = [read_file(str(file)) for file in files]
    table = scorer.answer([content for content, _ in read], top_k)
    table[ERROR] = [problem or error for (_, problem), error in zip(read, table[ERROR], strict=True)]
    table.insert(0, PATH, [path_text(file) for file in files])
    return table


def _write_json(tables: Iterator[pd.DataFrame], out: TextIO) -> None:
    separator = "[\n"
    escaped = (out.encoding or "utf-8").lower() not in (
        "utf-8",
        "utf8",
    )  # else an output lacks some letters
    for table in tables:
        for row in table.to_dict("records"):
            out.write(separator + json.dumps(row, ensure_ascii=escaped))
            separator = ",\n"
    out.write("\n]\n")


def _write_csv(tables: Iterator[pd.DataFrame], score: str, extra: Sequence[str], out: TextIO) -> None:
    writer = csv.DictWriter(out, [PATH, PREDICTION, score, ERROR, *extra])
    writer.writeheader()
    for table in tables:
        writer.writerows(_flat(row, score) for row in table.to_dict("records"))


def _flat(row: dict[str, Any], score: str) -> dict[str, Any]:
    """One row of the CSV: the prediction's own score, and columns for each likely class."""
    flat = row | {score: max(row[score]) if row[score] else None}
    for place, likely in enumerate(flat.pop(TOP_K, None) or [], start=1):
        flat |= {f"{name}_{place}": value for name, value in likely.items()}
    return flat
