"""`tuner spot-check`, and its ranked table on the screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tuner.cli.options import FILE, MASTER, Backbones, Cache, Images, Precision, given_file, option
from tuner.cli.results import show_result
from tuner.cli.screen import SEARCHES, Screen
from tuner.drafts.examples import DEFAULT_FILE

if TYPE_CHECKING:
    from tuner.api.spot_checking import SpotCheckResult

app = typer.Typer()
console = Screen(highlight=False)

_SHOWN = 15


@app.command(rich_help_panel=SEARCHES)
def spot_check(
    experiment: Annotated[Path, FILE] = DEFAULT_FILE,
    images: Images = "",
    backbone: Backbones = "",
    classifier: Annotated[
        str,
        typer.Option(
            help="What to try, by name: sklearn.Ridge,sklearn.KNeighbors-5; empty: as in the file."
        ),
    ] = "",
    validation: Annotated[str, option("validation", "holdout or cv:5")] = "",
    metric: Annotated[str, option("metric", "What combinations are ranked by")] = "",
    parallelism: Annotated[str, option("parallelism", "How many combinations at once")] = "",
    seed: Annotated[str, option("seed", "The seed of splits and of classifiers")] = "",
    trial_timeout: Annotated[str, option("trial_timeout", "Seconds for one combination")] = "",
    precision: Precision = "",
    cache: Cache = "",
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Log the model of each combination, too.")
    ] = False,
    then_search: Annotated[
        int,
        typer.Option(
            "--then-search",
            "--then_search",
            help="Search over the networks and classifiers of the best so many; 0: do not.",
        ),
    ] = 0,
    master: Annotated[str, MASTER] = "",
) -> None:
    """Try every network with forty classifiers, in minutes; log and rank what they are worth."""
    keys: dict[str, Any] = {
        "images": images,
        "backbone": backbone,
        "validation": validation,
        "metric": metric,
        "parallelism": parallelism,
        "seed": seed,
        "trial_timeout": trial_timeout,
        "precision": precision,
        "cache": cache,
    }
    from tuner.experiment.file import read_experiment

    read = read_experiment(given_file(experiment, console), keys)
    from tuner.api.spot_checking import spot_check as run

    done = run(
        read,
        classifier=classifier or None,
        keep_models=keep_models,
        then_search=then_search,
        master=master or None,
        console=console,
    )
    show_spot_check(done, console)
    if then_search:
        console.print()
        show_result(done.search(then_search, master=master or None, console=console), console)


def show_spot_check(done: SpotCheckResult, console: Console) -> None:
    """Print the best combinations, what failed and why, and where the rest is."""
    metric = done.metric
    finished = done.table[done.table["status"] == "FINISHED"]
    failed = done.table[done.table["status"] != "FINISHED"]
    shown = Table(box=None, pad_edge=False)
    for head in ("rank", metric, "seconds", "backbone", "classifier"):
        shown.add_column(head, justify="right" if head in ("rank", metric, "seconds") else "left")
    for row in finished.head(_SHOWN).to_dict("records"):
        numbers = str(row["rank"]), f"{row[metric]:.4f}", f"{row['seconds']:.2f}"
        shown.add_row(*numbers, str(row["backbone"]), str(row["classifier"]))
    console.print()
    console.print(shown)
    if len(finished) > _SHOWN:
        console.print(f"and {len(finished) - _SHOWN} more: see spot_check.json and the heat map")
    if len(failed):
        reason = str(failed.iloc[0]["reason"])
        console.print(
            f"{len(failed)} combinations failed, such as {failed.iloc[0]['classifier']}: {reason}",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"run {done.run_id} ({done.extracted} images extracted)", soft_wrap=True)
