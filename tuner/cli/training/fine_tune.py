"""`tuner fine-tune`, and what it came to on the screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tuner.cli.options import MASTER, Cache, Images, complete_file, given_file, option
from tuner.cli.screen import SEARCHES, Screen
from tuner.experiment.file import read_experiment

if TYPE_CHECKING:
    from tuner.searches.tuning.fine_tune import FineTuning

app = typer.Typer()
console = Screen(highlight=False)


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
    base: Annotated[str, option("base", "The network to begin with, by name, or small-cnn")] = "",
    augment: Annotated[str, option("augment", "none or strong")] = "",
    unfreeze: Annotated[str, option("unfreeze", "15, -15, a layer's name, all or none")] = "",
    warm_up_epochs: Annotated[str, option("warm_up_epochs", "Epochs of the head alone")] = "",
    epochs: Annotated[str, option("epochs", "Epochs with the layers that are unfrozen")] = "",
    warm_up_learning_rate: Annotated[
        str, option("warm_up_learning_rate", "1e-3, a list or a range 1e-4:1e-2")
    ] = "",
    learning_rate: Annotated[str, option("learning_rate", "1e-3, a list or a range 1e-4:1e-2")] = "",
    batch_size: Annotated[str, option("batch_size", "Images a step")] = "",
    max_evals: Annotated[str, option("max_evals", "How many trials, where something is searched")] = "",
    parallelism: Annotated[str, option("parallelism", "How many trials at once")] = "",
    seed: Annotated[str, option("seed", "The seed of the split and of all that is drawn")] = "",
    cache: Cache = "",
    master: Annotated[str, MASTER] = "",
) -> None:
    """Train a network on the images, or several with successive halving; test and register the best."""
    given: dict[str, Any] = {"images": images, "parallelism": parallelism, "seed": seed, "cache": cache}
    keys: dict[str, Any] = {
        "base": base,
        "augment": augment,
        "unfreeze": unfreeze,
        "warm_up_epochs": warm_up_epochs,
        "epochs": epochs,
        "warm_up_learning_rate": warm_up_learning_rate,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "max_evals": max_evals,
    }
    if experiment or not resume:
        file = Path(experiment) if resume else given_file(experiment, console)
        read, given = read_experiment(file, given), {}
    else:
        read = None
    from tuner.api.training.fine_tuning import fine_tune as run

    result = run(
        read,
        **{key: value or None for key, value in {**given, **keys}.items()},
        resume=resume or None,
        force=force,
        master=master or None,
        console=console,
    )
    show_tuning(result, console)


def show_tuning(result: FineTuning, console: Console) -> None:
    """Print what was trained, its test, its model and how a search uses it."""
    version, best = result.version, result.best
    values = ", ".join(f"{name} {value}" for name, value in result.values.items())
    shown = ", ".join(f"{name} {value:.4f}" for name, value in result.test.metrics.items())
    lines = [
        f"network  {result.base}, trained: epoch {best.number} of {len(result.epochs)} ({values})",
        f"test     {shown}",
        f"model    {version.name} version {version.version}, {version.alias}, stage {version.stage}: "
        f"{version.uri}",
        f"run      {result.run_id}",
        f"backbone {{name: tuned, file: {result.network}}} in an experiment with the same split and seed",
        *version.notes,
    ]
    console.print()
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
