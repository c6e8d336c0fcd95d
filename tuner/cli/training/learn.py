"""`tuner learn`, and what it came to on the screen: for people in a few lines, for scripts as JSON."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tuner.cli.options import (
    MASTER,
    AsJson,
    Cache,
    Images,
    Precision,
    Quiet,
    complete_file,
    given_or_resumed,
    option,
)
from tuner.cli.results import model_line, numbers, version_document
from tuner.cli.screen import SEARCHES, Screen

if TYPE_CHECKING:
    from tuner.api.training.learning import LearnResult

app = typer.Typer()
key = partial(option, others="What is learned, and how")


@app.command(rich_help_panel=SEARCHES)
def learn(
    experiment: Annotated[
        str,
        typer.Option(
            help="The experiment file (YAML); empty: digits, or the run's own with --resume.",
            autocompletion=complete_file,
        ),
    ] = "",
    resume: Annotated[
        str, typer.Option(help="Learn what a run has not learned yet: its id, or last.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Go on with it even if a process seems to be at work on it.")
    ] = False,
    images: Images = "",
    backbone: Annotated[str, key("backbone", "The one network, by name: InceptionV3")] = "",
    classifier: Annotated[
        str, key("classifier", "What learns: river.LogisticRegression, sklearn.SGD")
    ] = "",
    batch: Annotated[str, key("batch", "How many images at once")] = "",
    epochs: Annotated[str, key("epochs", "How many passes over the images")] = "",
    step: Annotated[str, key("step", "River's: batch or row")] = "",
    seed: Annotated[str, key("seed", "The seed of the split and of the order of images")] = "",
    metric: Annotated[str, key("metric", "What it is judged by in validation")] = "",
    validation: Annotated[str, key("validation", "holdout or cv:5, whose first fold validates")] = "",
    precision: Precision = "",
    cache: Cache = "",
    master: Annotated[str, MASTER] = "",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Learn images a batch at a time, in little memory; later, with --resume, those that are new."""
    from tuner.experiment.file import LEARN_OVERRIDES

    keys = {key: value for key, value in locals().items() if key in LEARN_OVERRIDES}
    screen = Screen(highlight=False, stderr=as_json, quiet=quiet)
    read, given = given_or_resumed(experiment, resume, keys, LEARN_OVERRIDES, screen)
    from tuner.api.training.learning import learn as run

    done = run(read, **given, resume=resume or None, force=force, master=master or None, console=screen)
    if done is not None:
        show_learned(done, screen)
    if as_json:
        typer.echo(learned_json(done))


def show_learned(done: LearnResult, console: Console) -> None:
    """Print what was learned, what it is worth, its model and its run."""
    from tuner.classifiers.parameters import described

    version, metric = done.version, done.metric
    values = done.params.to_dict()
    lines = [
        f"learned  {done.new} images ({done.learned} in all): {values['backbone']}, {described(values)}"
    ]
    if done.progressive is not None:
        lines.append(f"         accuracy {done.progressive:.4f} on images before they were learned")
    lines.append(f"         {metric} {done.validation[metric]:.4f} in validation")
    lines.append(
        "test     " + ", ".join(f"{name} {value:.4f}" for name, value in done.test.metrics.items())
    )
    if done.comparison is not None:
        before, after = (
            found.metrics[metric] for found in (done.comparison.champion, done.comparison.challenger)
        )
        noise = ", which is within noise" if done.comparison.within_noise else ""
        lines.append(
            f"before   {metric} {before:.4f}, after {after:.4f}, on the same {done.comparison.images} test "
            f"images{noise}"
        )
    lines.append(model_line(version))
    lines.append(f"run      {done.run_id} ({done.extracted} images extracted)")
    console.print()
    for line in (*lines, *version.notes):
        console.print(line, markup=False, soft_wrap=True)


def learned_json(done: LearnResult | None) -> str:
    """The same for scripts: one JSON object, on one line; null if nothing was new."""
    if done is None:
        return "null"
    version = done.version
    document: dict[str, Any] = {
        "run_id": done.run_id,
        "experiment_id": done.tracking.experiment_id,
        "images_extracted": done.extracted,
        "images_new": done.new,
        "images_learned": done.learned,
        "params": done.params.to_dict(),
        "progressive_accuracy": done.progressive,
        "validation": numbers(done.validation),
        "test": numbers(done.test.metrics),
        "before": None if done.comparison is None else numbers(done.comparison.champion.metrics),
        "model": version_document(version),
    }
    return json.dumps(document, ensure_ascii=False)
