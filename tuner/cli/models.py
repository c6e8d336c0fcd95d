"""The command line of models: `tuner predict | export | promote | rollback | registry`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from tuner.base.errors import ImageSourceError
from tuner.cli.screen import MODELS, Screen, stop_unread

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from tuner.registry.champion_challenger import VersionComparison
    from tuner.registry.history import LoggedMove

app = typer.Typer()
console = Screen(highlight=False)

_LISTED = 5  # of ImageNet's classes, as Keras and sparkdl list them
_GATE_SAYS_NO = 3  # exit code: not a failure, and nothing that was given is wrong
_METRICS = ("accuracy", "f1", "logLoss")

Model = Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID/model.")]
Name = Annotated[str, typer.Argument(help="The registered model's name.", show_default=False)]
Why = Annotated[str, typer.Option("--why", help="A reason to keep with the version.", show_default=False)]


@app.command(rich_help_panel=MODELS)
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


@app.command(rich_help_panel=MODELS)
def export(
    model: Model,
    to: Annotated[Path, typer.Option(help="The .keras or .onnx file or the folder to make.")],
    form: Annotated[
        Literal["keras", "savedmodel", "onnx", "docker"], typer.Option("--format", help="What to write.")
    ] = "keras",
    images: Annotated[
        list[Path] | None, typer.Option(help="Image files or folders to compare the export on.")
    ] = None,
) -> None:
    """Write a model as a Keras or ONNX file, a TensorFlow SavedModel, or what Docker makes an image of."""
    from tuner.models.loading import fetch_model, read_example
    from tuner.models.scorer import Scorer
    from tuner.serving.container import TAG, write_container
    from tuner.serving.export import export_model
    from tuner.serving.onnx_export import export_onnx
    from tuner.serving.prediction import sample_files

    folder = fetch_model(model)
    if form == "docker":  # the model itself is inside: there is nothing to compare
        context = write_container(folder, to)
        Screen(highlight=False).print(f"docker build --tag {TAG} {context}", soft_wrap=True)
        return
    sample = [read_example(folder), *sample_files(images or [])]
    if form == "onnx":
        done = export_onnx(Scorer.load(folder), to, sample)
    else:  # what is written computes by TensorFlow, and is compared with that
        done = export_model(Scorer.load(folder, keras=True), to, form, sample)
    differ = {
        "probability": f"probabilities differ by {done.difference:.2g} at most",
        "decision": f"decision values differ by {done.difference:.2g} of the greatest at most",
    }
    Screen(highlight=False).print(
        f"{done.path}: {done.images} image(s) compared with the model, {done.disagreements} of another "
        f"class, {differ[done.gives]}"
        + (f"; {done.unread} not compared, for they cannot be read" if done.unread else ""),
        soft_wrap=True,
    )


@app.command(rich_help_panel=MODELS)
def promote(
    name: Name,
    version: Annotated[
        str, typer.Option(help="The challenger: a version's number or alias.")
    ] = "challenger",
    images: Annotated[
        str,
        typer.Option(help="Where the champion's test images are now; empty: where its search found them."),
    ] = "",
    experiment: Annotated[
        Path | None,
        typer.Option(help="A file with the gate to use; default: that of the challenger's search."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Move even if the gate says no.")] = False,
    why: Why = "",
    master: Annotated[str, typer.Option(help="A Spark master URL; empty: this machine.")] = "",
) -> None:
    """Compare a challenger with the champion on the champion's test images; move the alias if it passes.

    The exit code is 0 if it moved, 3 if the gate kept it from moving, 2 if what was given cannot work and
    1 if something failed; then nothing has moved either.
    """
    from tuner.api.promotion import promote as run

    done = run(
        name,
        version=version,
        images=images or None,
        experiment=experiment,
        force=force,
        why=why or None,
        master=master or None,
    )
    if done.compared is not None:
        _show_comparison(done.compared)
    for note in done.version.notes:
        _say(note)
    number, stage = done.version.version, done.version.stage
    if done.decision is not None:
        _say(f"gate       {'passed' if done.decision.passed else 'not passed'}: {done.decision}")
    _say(
        f"{name} version {number} is now {done.version.alias}, stage {stage}: {done.version.uri}"
        if done.promoted
        else f"{name} version {number} was not promoted (--force overrides the gate)"
    )
    if done.run_id is not None:
        _say(f"report     MLflow run {done.run_id}")
    if not done.promoted:
        raise typer.Exit(_GATE_SAYS_NO)


@app.command(rich_help_panel=MODELS)
def rollback(
    name: Name,
    alias: Annotated[str, typer.Option(help="The alias to give back.")] = "champion",
    why: Why = "",
) -> None:
    """Give the alias and the stage back to the champion before."""
    from tuner.registry.moves import roll_back
    from tuner.tracking.store import open_registry

    done = roll_back(open_registry(), name, alias=alias, why=why or "rolled back by hand")
    for note in done.notes:
        _say(note)
    _say(f"{name} version {done.version} is {done.alias} again, stage {done.stage}: {done.uri}")


@app.command(rich_help_panel=MODELS)
def registry(
    name: Annotated[str, typer.Argument(help="A registered model; empty: all.", show_default=False)] = "",
) -> None:
    """List registered versions with stage, alias, test metrics and the digest of their data.

    Of one model, also every move of its aliases.
    """
    from tuner.registry.versions import list_moves, list_versions
    from tuner.tracking.store import open_registry

    store = open_registry()
    versions = list_versions(store, name or None)
    if not versions:
        _say("There are no registered models yet: tuner search registers one.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "version", "stage", "alias", "backbone"):
        table.add_column(column)
    for column in _METRICS:
        table.add_column(column, justify="right")
    table.add_column("data")
    for version in versions:
        table.add_row(*map(Text, _row(version)))
    console.show(table)
    for move in list_moves(store, name).moves if name else ():
        _say(_told(move))


def _told(move: LoggedMove) -> str:
    """A move in a line: when, what, from where to where, and why."""
    way = f"{move.alias or 'an alias'}: {move.source or 'none'} to {move.target}"
    by = f" by {move.by}" if move.by else ""
    return f"{move.at}  {way}, {move.kind}{by}: {move.why}"


def _row(version: ModelVersion) -> list[str]:
    from tuner.tracking.names import DATA_DIGEST

    tags = version.tags
    return [
        version.name,
        str(version.version),
        version.current_stage or "None",
        ", ".join(version.aliases),
        tags.get("backbone", ""),
        *[tags.get(f"test_{metric}", "") for metric in _METRICS],
        tags.get(DATA_DIGEST, ""),
    ]


def _show_comparison(compared: VersionComparison) -> None:
    comparison = compared.comparison
    before, after = comparison.champion.metrics, comparison.challenger.metrics
    low, high = comparison.interval
    _say(f"images     {comparison.images} test images of version {compared.champion}, the champion")
    for note in compared.notes:
        _say(f"           {note}")
    for metric in dict.fromkeys(("accuracy", comparison.metric)):
        _say(
            f"{metric:<10} version {compared.champion} {before[metric]:.4f}, "
            f"version {compared.challenger} {after[metric]:.4f}"
        )
    _say(f"gain       {comparison.gain:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}")
    _say(
        f"differ     on {len(comparison.disagreements)} images; right alone: champion "
        f"{comparison.champion_only}, challenger {comparison.challenger_only}; "
        f"McNemar's exact test p = {comparison.p_value:.3g}"
    )


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
