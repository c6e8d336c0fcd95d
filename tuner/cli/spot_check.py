"""`tuner spot-check`, and its ranked table on the screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from tuner.base.errors import ExperimentError
from tuner.cli.options import FILE, MASTER, Backbones, Cache, Images, Precision, given_file, option
from tuner.cli.results import show_result
from tuner.cli.screen import SEARCHES, Screen
from tuner.drafts.examples import DEFAULT_FILE

if TYPE_CHECKING:
    from tuner.experiment.schema import Experiment
    from tuner.searches.spot_check import SpotCheckResult

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
    overrides: dict[str, str | None] = {
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
    if then_search < 0:
        raise ExperimentError(f"--then-search is {then_search}: it must be 0 or more.")
    from tuner.experiment.file import experiment_of, read_experiment

    file = given_file(experiment, console)
    read = read_experiment(file, overrides)
    data = read.to_yaml_dict()
    data["spot_check"] |= {"classifiers": classifier} if classifier else {}
    data["spot_check"] |= {"keep_models": True} if keep_models else {}
    read = experiment_of(data, str(file))
    from tuner.searches.search import run_search  # imports take seconds
    from tuner.searches.spot_check import check_then_search, run_spot_check, search_of_best

    if then_search:
        check_then_search(read)
    done = run_spot_check(read, master=master or None, console=console)
    show_spot_check(done, read.search.metric, console)
    if then_search:
        again = search_of_best(read, done.table, then_search, done.limits)
        if read.search.points:
            console.print("search.points are left out: they are of the experiment's own classifiers")
        show_start(again, min(then_search, int((done.table["status"] == "FINISHED").sum())), console)
        show_result(run_search(again, master=master or None, console=console), console)


def show_start(search: Experiment, best: int, console: Console) -> None:
    """Print with how many of the best combinations a search begins."""
    begins, backbones = len(search.search.points), len(search.search.backbone)
    console.print()
    console.print(
        f"a search over {', '.join(choice.row.name for choice in search.search.choices)} on "
        f"{backbones} {'backbone' if backbones == 1 else 'backbones'} begins with {begins} of the "
        f"{best} best combinations"
        + ("" if begins == best else ": the others' values are the library's own, outside its spaces")
    )


def show_spot_check(done: SpotCheckResult, metric: str, console: Console) -> None:
    """Print the best combinations, what failed and why, and where the rest is."""
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
