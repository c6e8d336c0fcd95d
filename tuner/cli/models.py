"""The command line of models, without Spark: `tuner predict | export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tuner.base.errors import ImageSourceError
from tuner.cli.screen import Screen, stop_unread

app = typer.Typer()

_LISTED = 5  # of ImageNet's classes, as Keras and sparkdl list them

Model = Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID/model.")]


@app.command()
def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID/model; none with --network."
        ),
    ],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files, or folders of them.", show_default=False)
    ] = None,
    network: Annotated[
        str,
        typer.Option(help="Name what is in the images by ImageNet's classes: EfficientNetLite0, ResNet50."),
    ] = "",
    top_k: Annotated[
        int | None, typer.Option(help="List so many of the likeliest classes, too; 5 with --network.")
    ] = None,
    output: Annotated[Literal["csv", "json"], typer.Option(help="How to write the rows.")] = "csv",
) -> None:
    """Predict the classes of image files; the rows go to standard output."""
    if not network and not images:
        raise ImageSourceError("There are no images to predict: give them after the model.")
    from tuner.serving.prediction import classify_files, predict_files

    console = Screen(stderr=True, highlight=False)
    how: dict[str, Any] = {"output": output, "out": sys.stdout, "console": console}
    try:
        if network:
            top_k = _LISTED if top_k is None else top_k
            unread = classify_files(network, [Path(model), *(images or [])], top_k=top_k, **how)
        else:
            unread = predict_files(model, images or [], top_k=top_k or 0, **how)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        stop_unread(sys.stdout)
        raise
    if unread:
        console.print(f"{unread} file(s) cannot be read as images: see the column error")


@app.command()
def export(
    model: Model,
    to: Annotated[Path, typer.Option(help="The .keras file or the folder to make.")],
    form: Annotated[
        Literal["keras", "savedmodel"], typer.Option("--format", help="What to write.")
    ] = "keras",
    images: Annotated[
        list[Path] | None, typer.Option(help="Image files or folders to compare the export on.")
    ] = None,
) -> None:
    """Write a model as one Keras file, or as a TensorFlow SavedModel that takes image bytes."""
    from tuner.models.loading import fetch_model, read_example
    from tuner.models.scorer import Scorer
    from tuner.serving.export import export_model
    from tuner.serving.prediction import sample_files

    folder = fetch_model(model)
    sample = [read_example(folder), *sample_files(images or [])]
    done = export_model(Scorer.load(folder), to, form, sample)
    Screen(highlight=False).print(
        f"{done.path}: {done.images} image(s) compared with the model, {done.disagreements} of another "
        f"class, probabilities differ by {done.difference:.2g} at most"
        + (f"; {done.unread} not compared, for they cannot be read" if done.unread else ""),
        soft_wrap=True,
    )
