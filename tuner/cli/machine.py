"""The command line of this machine and what searches keep on it: `tuner doctor | cache`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from tuner.base.errors import CacheError
from tuner.base.files import DEFAULT_CACHE
from tuner.base.wording import visible
from tuner.cli.screen import MACHINE, Screen
from tuner.drafts.examples import experiment_file

if TYPE_CHECKING:
    from tuner.doctor.findings import Finding
    from tuner.extraction.contents import CacheContents, HeldFeatures

app = typer.Typer()
console = Screen(highlight=False)

_NOT_READY = 1  # exit code: nothing that was given is wrong, and a search would not run
_MARKS = {"ok": "ok", "note": "note", "wrong": "WRONG", "left out": "-"}
_STYLES = {"ok": "green", "note": "yellow", "wrong": "bold red", "left out": "dim"}
_SHOWN_KEY = 12


@app.command(rich_help_panel=MACHINE)
def doctor(
    experiment: Annotated[
        str, typer.Option(help="The experiment file (YAML) of the search that is to run; empty: digits.")
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Start neither Spark nor TensorFlow.")] = False,
    master: Annotated[str, typer.Option(help="A Spark master URL; empty: this machine.")] = "",
    connect_port: Annotated[int, typer.Option(help="The Spark Connect port; 0: a free one.")] = 0,
) -> None:
    """Look at all that a search needs on this machine, and say what is wrong and what to type.

    The exit code is 0 if the search would run, 1 if it would not.
    """
    from tuner.experiment.file import read_experiment

    read = read_experiment(experiment_file(experiment))
    from tuner.doctor.examination import examine

    wrong = []
    for finding in examine(read, master=master or None, connect_port=connect_port, quick=quick):
        _show(finding)
        if finding.state == "wrong" and finding.about not in wrong:
            wrong.append(finding.about)
    console.print()
    if wrong:
        console.say(f"The search {read.name} would not run here: look at {', '.join(wrong)}, above.")
        raise typer.Exit(_NOT_READY)
    console.say(
        f"What was looked at is in order for the search {read.name}."
        if quick
        else f"The search {read.name} would run here."
    )


def _show(finding: Finding) -> None:
    console.print(
        Text(f"{finding.about:<15} "),
        Text(f"{_MARKS[finding.state]:<5} ", _STYLES[finding.state]),
        Text(visible(finding.said)),
        sep=" ",
        soft_wrap=True,
    )
    if finding.type:
        console.say(f"{'':<23} type: {finding.type}")


@app.command(rich_help_panel=MACHINE)
def cache(
    cache: Annotated[
        str, typer.Option(help="The cache: a folder, or hdfs://…; as in the experiment.")
    ] = str(DEFAULT_CACHE),
    network: Annotated[
        list[str] | None,
        typer.Option(help="Only of this network, by name or by its key's beginning; may be repeated."),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(min=0, help="Only what was not used for so many days.", show_default=False),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what is listed, with --network or --older-than.")
    ] = False,
) -> None:
    """List what the feature cache holds: network, images, bytes, last use; prune it.

    What is removed is extracted again when a search needs it. --older-than 0 is all of it.
    """
    from tuner.base.uris import local_path
    from tuner.extraction.contents import CacheContents
    from tuner.extraction.place import CachePlace

    if prune and network is None and older_than is None:
        raise CacheError(
            "What is to be pruned is not said: give --older-than DAYS (0: all) or --network NAME; without "
            "--prune they list what it would be."
        )
    names = network or []
    if local_path(cache) is not None:
        _list_or_prune(CacheContents(CachePlace(cache)), cache, names, older_than, prune)
        return
    from tuner.spark.sessions import driver_session

    with driver_session("tuner cache", 1) as session:
        contents = CacheContents(CachePlace(cache), session.spark)
        _list_or_prune(contents, cache, names, older_than, prune)


def _list_or_prune(
    contents: CacheContents, cache: str, networks: list[str], older_than: float | None, prune: bool
) -> None:
    from tuner.extraction.contents import chosen_of

    chosen = chosen_of(contents.features(), networks, older_than)
    if not chosen:
        few = " that was not used for so long" if older_than else ""
        console.say(f"There are no features in the cache {cache}{few}.")
        return
    console.show(_table(chosen))
    total = f"{len(chosen)} networks, {sum(held.images for held in chosen):,} images, "
    total += _size(sum(held.bytes for held in chosen))
    if prune:
        contents.prune(chosen)
        console.say(f"{total}: removed from {cache}")
        return
    files, size = contents.network_files()
    console.say(
        f"{total} in {cache}; beside them {files} network files, {_size(size)}, which models may need"
    )


def _table(chosen: list[HeldFeatures]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("network", "input", "precision"):
        table.add_column(column)
    for column in ("images", "size"):
        table.add_column(column, justify="right")
    table.add_column("last use")
    table.add_column("key")
    for held in chosen:
        network = held.network
        size = "x".join(map(str, network.input_size)) if network else ""
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(held.last_use))
        row = (held.name, size, network.precision if network else "", f"{held.images:,}", _size(held.bytes))
        table.add_row(*map(Text, (*row, used, held.key[:_SHOWN_KEY])))
    return table


def _size(count: int) -> str:
    """Bytes for a person."""
    value, units = float(count), iter(("bytes", "KiB", "MiB", "GiB"))
    unit = next(units)
    while value >= 1024 and unit != "GiB":
        value, unit = value / 1024, next(units)
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
