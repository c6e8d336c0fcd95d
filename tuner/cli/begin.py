"""The command line of what comes before a search: `tuner new | schema | import-images`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from tuner.base.errors import ExperimentError, ImageSourceError
from tuner.base.interrupts import advising
from tuner.cli.screen import BEFORE, Screen
from tuner.drafts.examples import examples, find_example, write_new

app = typer.Typer()
console = Screen(highlight=False)

_SHOWN = 5  # of what is left out


@app.command(rich_help_panel=BEFORE)
def new(
    folder: Annotated[
        str, typer.Argument(help="A folder of class folders; with --example, an example's name.")
    ] = "",
    to: Annotated[
        Path | None,
        typer.Option(
            help="The file to write; default: NAME.yaml in the working folder.", show_default=False
        ),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Write an experiment that comes with tuner; none: list them.")
    ] = False,
) -> None:
    """Write an experiment file for a folder of images, as its classes, their number and this machine want.

    A file that is there already stays.
    """
    if example:
        _write_example(folder, to)
        return
    if not folder:
        raise ExperimentError("There is no folder of images to write an experiment for: tuner new FOLDER.")
    from tuner.drafts.drafting import draft_experiment  # imports take a second

    draft = draft_experiment(folder)
    target = to or Path(f"{draft.file_name}.yaml")
    write_new(target, draft.text)
    for note in draft.notes:
        console.say(note)
    console.say(f"{target}: {draft.summary}")
    console.say(f"search with: tuner search --experiment {shlex.quote(str(target))}")


def _write_example(name: str, to: Path | None) -> None:
    if name:
        found = find_example(name)
        target = to or Path(f"{name}.yaml")
        write_new(target, found.file.read_text(encoding="utf-8"))
        console.say(f"{target}: {found.about}")
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in examples():
        table.add_row(*map(Text, (one.name, one.about)))
    console.print(table)
    console.say("tuner new --example NAME writes one into the working folder")


@app.command(rich_help_panel=BEFORE)
def schema(
    to: Annotated[
        Path | None,
        typer.Option(help="The file to write; default: standard output.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of experiment files, by which editors complete and check them."""
    from tuner.experiment.json_schema import schema_text

    if to is None:
        typer.echo(schema_text(), nl=False)
        return
    try:
        to.write_text(schema_text(), encoding="utf-8")
    except OSError as error:
        raise ExperimentError(f"The file {to} cannot be written: {error.strerror}.") from error


@app.command(rich_help_panel=BEFORE)
def import_images(
    images: Annotated[
        list[str], typer.Option(help="A folder of class folders, a zip or a tar file; may be repeated.")
    ],
    to: Annotated[str, typer.Option(help="The folder to make: a path, hdfs://…, s3a://…")],
    given: Annotated[
        Literal["", "folders"], typer.Option(help="folders: they are split already, into train, test, …")
    ] = "",
    shard_mib: Annotated[int, typer.Option(min=1, help="MiB of images in a Parquet file.")] = 128,
) -> None:
    """Make Parquet files of folders or archives of images, on any Hadoop filesystem."""
    from tuner.imports.importing import import_images

    if not to:
        raise ImageSourceError("There is no place to import images to: give --to.")
    with advising("The files that were written are kept: the same command goes on from there."):
        done = import_images(
            images, to, given="folders" if given else None, shard_mib=shard_mib, console=console
        )
    said = list(done.notes)
    if done.left_out:
        shown = [f"{path} ({reason})" for path, reason in done.left_out[:_SHOWN]]
        more = ", …" if len(done.left_out) > _SHOWN else ""
        said.append(f"{len(done.left_out)} file(s) are left out: {', '.join(shown)}{more}")
    if done.damaged:
        said.append(
            f"{len(done.damaged)} file(s) are damaged and stand there without content, such as "
            f"{done.damaged[0]}: a search leaves them out, and lists them"
        )
    said.append(
        f"{done.images} images of {len(done.labels)} classes in {done.files} file(s), {done.written} "
        f"written now; in an experiment, images: {done.place}" + (", split.given: folders" if given else "")
    )
    for line in said:
        console.say(line)
