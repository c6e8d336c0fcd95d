"""The command line of images: `tuner import-images`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from tuner.base.errors import ImageSourceError
from tuner.base.interrupts import advising
from tuner.base.wording import visible
from tuner.cli.screen import Screen

app = typer.Typer()

_SHOWN = 5  # of what is left out


@app.command()
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

    console = Screen(highlight=False)
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
        console.print(visible(line), markup=False, soft_wrap=True)
