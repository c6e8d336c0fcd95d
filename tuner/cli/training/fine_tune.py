"""`tuner fine-tune`, and what it came to on the screen."""

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
    Quiet,
    complete_file,
    given_or_resumed,
    option,
)
from tuner.cli.results import model_line, numbers, version_document
from tuner.cli.screen import SEARCHES, Screen

if TYPE_CHECKING:
    from tuner.searches.tuning.fine_tune import FineTuning

app = typer.Typer()
key = partial(option, others="What is trained, and how")


@app.command(rich_help_panel=SEARCHES)
def fine_tune(
    experiment: Annotated[
        str,
        typer.Option(
            help="The experiment file (YAML); empty: digits, or its own with --resume.",
            autocompletion=complete_file,
        ),
    ] = "",
    resume: Annotated[str, typer.Option(help="Go on with a fine-tuning: its run's id, or last.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Go on with it even if a process seems to be at work on it.")
    ] = False,
    images: Images = "",
    base: Annotated[str, key("base", "The network to begin with, by name, or small-cnn")] = "",
    augment: Annotated[str, key("augment", "none or strong")] = "",
    unfreeze: Annotated[str, key("unfreeze", "15, -15, a layer's name, all or none")] = "",
    warm_up_epochs: Annotated[str, key("warm_up_epochs", "Epochs of the head alone")] = "",
    epochs: Annotated[str, key("epochs", "Epochs with the layers that are unfrozen")] = "",
    warm_up_learning_rate: Annotated[
        str, key("warm_up_learning_rate", "1e-3, a list or a range 1e-4:1e-2")
    ] = "",
    learning_rate: Annotated[str, key("learning_rate", "1e-3, a list or a range 1e-4:1e-2")] = "",
    batch_size: Annotated[str, key("batch_size", "Images a step")] = "",
    early_stop: Annotated[str, key("early_stop", "End a phase after so many epochs without a gain")] = "",
    max_evals: Annotated[str, key("max_evals", "How many trials, where something is searched")] = "",
    parallelism: Annotated[str, key("parallelism", "How many trials at once")] = "",
    seed: Annotated[str, key("seed", "The seed of the split and of all that is drawn")] = "",
    metric: Annotated[str, key("metric", "What epochs and trials are ranked by in validation")] = "",
    validation: Annotated[str, key("validation", "holdout or cv:5, whose first fold validates")] = "",
    precision: Annotated[str, key("precision", "float32, bfloat16 or, on a GPU, float16")] = "",
    cache: Cache = "",
    master: Annotated[str, MASTER] = "",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a network on the images, or several with successive halving; test and register the best."""
    from tuner.experiment.file import FINE_TUNE_OVERRIDES

    keys = {key: value for key, value in locals().items() if key in FINE_TUNE_OVERRIDES}
    screen = Screen(highlight=False, stderr=as_json, quiet=quiet)
    read, given = given_or_resumed(experiment, resume, keys, FINE_TUNE_OVERRIDES, screen)
    from tuner.api.training.fine_tuning import fine_tune as run

    done = run(read, **given, resume=resume or None, force=force, master=master or None, console=screen)
    show_tuning(done, screen)
    if as_json:
        typer.echo(tuning_json(done))


def show_tuning(result: FineTuning, console: Console) -> None:
    """Print what was trained, its test, its model and how a search uses it."""
    version, best = result.version, result.best
    values = ", ".join(f"{name} {value}" for name, value in result.values.items())
    shown = ", ".join(f"{name} {value:.4f}" for name, value in result.test.metrics.items())
    lines = [
        f"network  {result.base}, trained: epoch {best.number} of {len(result.epochs)} ({values})",
        f"         {result.metric} {best.validation[result.metric]:.4f} in validation",
        f"test     {shown}",
        model_line(version),
        f"run      {result.run_id}",
        f"backbone {{name: tuned, file: {result.network}}} in an experiment with the same split and seed",
        *version.notes,
    ]
    console.print()
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def tuning_json(result: FineTuning) -> str:
    """The same for scripts: one JSON object, on one line."""
    version = result.version
    trials = result.trials
    document: dict[str, Any] = {
        "run_id": result.run_id,
        "experiment_id": result.experiment_id,
        "base": result.base,
        "network": result.network,
        "values": dict(result.values),
        "epochs": json.loads(result.epochs.to_json(orient="records")),
        "best_epoch": result.best.number,
        "validation": numbers(result.best.validation),
        "test": numbers(result.test.metrics),
        "trials": None if trials is None else json.loads(trials.to_json(orient="records")),
        "model": version_document(version),
    }
    return json.dumps(document, ensure_ascii=False)
