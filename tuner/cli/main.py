"""The command line: `tuner search | features | evaluate`, with the words of the experiment file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tuner.base import distribution
from tuner.base.errors import InvalidInput, TunerError
from tuner.base.interrupts import Interrupted, advising, stop_counts, stop_requests
from tuner.base.machine import UI_PORT
from tuner.base.wording import VERBOSE
from tuner.cli import begin as cli_begin
from tuner.cli import machine as cli_machine
from tuner.cli import models as cli_models
from tuner.cli import spot_check as cli_spot_check
from tuner.cli.options import FILE as _FILE
from tuner.cli.options import MASTER as _MASTER
from tuner.cli.options import (
    AsJson,
    Backbones,
    Cache,
    Images,
    Precision,
    Quiet,
    Verbose,
    complete_file,
    given_file,
    given_or_resumed,
)
from tuner.cli.options import option as _option
from tuner.cli.results import result_json, show_result
from tuner.cli.screen import MODELS, SEARCHES, Screen, end_at_once, say_stopped
from tuner.cli.startup import prepare_process
from tuner.cli.training import fine_tune as cli_fine_tune
from tuner.cli.training import learn as cli_learn
from tuner.drafts.examples import DEFAULT_FILE

# TensorFlow greets every process with lines about its CPU; workers inherit this.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_EPILOG = (
    "Begin with: tuner new FOLDER, then tuner search --experiment NAME.yaml. tuner doctor says what keeps "
    "a search from running. Exit codes: 0, done; 1, it failed on the way; 2, what was given cannot "
    "work; 3, the gate kept a model from moving; 128 + N, stopped by the signal N."
)
app = typer.Typer()
console = Screen(highlight=False)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tuner {distribution.version()}")
        raise typer.Exit


def _be_verbose() -> None:
    """Let libraries, in workers, too, write what they write as they start."""
    os.environ[VERBOSE] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"


@app.command(rich_help_panel=SEARCHES)
def search(
    experiment: Annotated[
        str,
        typer.Option(
            help="The experiment file (YAML); empty: digits, or the search's own with --resume.",
            autocompletion=complete_file,
        ),
    ] = "",
    resume: Annotated[str, typer.Option(help="Go on with a search: its run's id, or last.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Go on with it even if a process seems to be at work on it.")
    ] = False,
    images: Images = "",
    backbone: Backbones = "",
    classifier: Annotated[
        str, _option("classifier", "Classifiers, by name: RandomForest,sklearn.LinearSVC")
    ] = "",
    regParam: Annotated[str, _option("regParam", "0.1, a list 0.1,0.3 or a range 1e-4:1:log")] = "",
    elasticNetParam: Annotated[str, _option("elasticNetParam", "0.5, a list or a range 0:1")] = "",
    maxIter: Annotated[str, _option("maxIter", "15, a list or a range 5:30")] = "",
    max_evals: Annotated[str, _option("max_evals", "How many trials")] = "",
    parallelism: Annotated[str, _option("parallelism", "How many trials at once")] = "",
    seed: Annotated[str, _option("seed", "The seed of splits and proposals")] = "",
    validation: Annotated[str, _option("validation", "holdout or cv:5")] = "",
    algorithm: Annotated[str, _option("algorithm", "tpe, random or anneal")] = "",
    metric: Annotated[str, _option("metric", "What trials are ranked by")] = "",
    select: Annotated[str, _option("select", "best or one-standard-error")] = "",
    deterministic: Annotated[str, _option("deterministic", "true: the same trials at any timing")] = "",
    class_weight: Annotated[
        str, _option("class_weight", "none, balanced (rare classes weigh more), or both: none,balanced")
    ] = "",
    fit: Annotated[str, _option("fit", "Where trials fit: auto, worker or spark")] = "",
    timeout: Annotated[str, _option("timeout", "Seconds after which no new trial starts")] = "",
    trial_timeout: Annotated[str, _option("trial_timeout", "Seconds for one trial")] = "",
    early_stop: Annotated[str, _option("early_stop", "Start no trial after so many without gain")] = "",
    precision: Precision = "",
    cache: Cache = "",
    master: Annotated[str, _MASTER] = "",
    connect_port: Annotated[int, typer.Option(help="The Spark Connect port; 0: a free one.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Search for the best model, log every trial to MLflow and register the winner."""
    from tuner.experiment.file import OVERRIDES

    keys = {key: value for key, value in locals().items() if key in OVERRIDES}
    if verbose:
        _be_verbose()
    screen = Screen(highlight=False, stderr=as_json, quiet=quiet)
    read, given = given_or_resumed(experiment, resume, keys, OVERRIDES, screen)
    from tuner.api.searching import search as run

    result = run(
        read,
        **given,
        resume=resume or None,
        force=force,
        master=master or None,
        connect_port=connect_port,
        console=screen,
    )
    show_result(result, screen)
    if as_json:
        typer.echo(result_json(result))


@app.command(rich_help_panel=SEARCHES)
def push(folder: Annotated[Path, typer.Argument(help="The folder that the search named.")]) -> None:
    """Send trials to MLflow that a search could not log, for its server was gone."""
    from tuner.tracking.unsent_trials import push as push_unsent

    with advising(f"What was not sent waits in {folder}: the same command sends the rest."):
        sent, searches = push_unsent(folder)
    console.print(f"{sent} trials sent")
    for run_id in searches:
        console.print(f"Resume the search with: tuner search --resume {run_id}", soft_wrap=True)


@app.command(rich_help_panel=SEARCHES)
def ui(port: Annotated[int, typer.Option(help="Where this machine serves it.")] = UI_PORT) -> None:
    """Show searches in MLflow's UI: say where the last one's trials are, and serve it until Ctrl-C.

    Where MLFLOW_TRACKING_URI is a server's, that one shows them, and nothing is served.
    """
    from tuner.tracking.store import open_registry
    from tuner.tracking.views import last_search, runs_link

    store = open_registry()
    console.say(f"The runs, best first: {runs_link(*last_search(store), port=port)}")
    if not store.uri.startswith("http"):
        serve = ["-m", "mlflow", "ui", "--backend-store-uri", store.uri, "--port", str(port)]
        serve += ["--workers", "1"]  # one person looks, and each process takes seconds to start
        os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # eight more, for GenAI
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *serve])


@app.command(rich_help_panel=SEARCHES)
def features(
    experiment: Annotated[Path, _FILE] = DEFAULT_FILE,
    images: Images = "",
    backbone: Backbones = "",
    precision: Precision = "",
    cache: Cache = "",
    export: Annotated[
        str, typer.Option(help="Write the features to a file, too: *.h5, *.npz or *.parquet.")
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    master: Annotated[str, _MASTER] = "",
) -> None:
    """Fill the feature cache, so that a search starts at once; write features for other tools."""
    overrides = {"images": images, "backbone": backbone, "precision": precision, "cache": cache}
    from tuner.experiment.file import read_experiment

    read = read_experiment(given_file(experiment, console), overrides)
    from tuner.api.feature_arrays import features as run

    done = run(read, master=master or None, export=export or None, overwrite=overwrite, console=console)
    console.print(f"{done.extracted} images extracted")


@app.command(rich_help_panel=MODELS)
def evaluate(
    model: Annotated[str, typer.Option(help="models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID/model.")],
    images: Annotated[str, typer.Option(help="Labelled images: a folder of class folders, a Parquet, …")],
    master: Annotated[str, _MASTER] = "",
) -> None:
    """Evaluate a logged or registered model on labelled images."""
    from tuner.serving.batch_evaluation import evaluate_model

    with advising("The same command starts again."):
        done = evaluate_model(model, images, master=master or None, console=console)
    for name, value in done.evaluation.metrics.items():
        console.print(f"{name:>18}  {value:.4f}")
    if len(done.quarantine):
        console.print(f"{len(done.quarantine)} images left out: see quarantine.csv")
    console.print(f"MLflow run {done.run_id}", soft_wrap=True)


commands = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["--help", "-h"]},
)
# As `tuner --help` lists them.
for _group in (
    cli_begin.app,
    app,
    cli_spot_check.app,
    cli_fine_tune.app,
    cli_learn.app,
    cli_models.app,
    cli_machine.app,
):
    commands.add_typer(_group)


@commands.callback()
def tuner(
    _: Annotated[
        bool,
        typer.Option("--version", help="Show the version, and end.", is_eager=True, callback=_say_version),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Find a good image classifier by transfer learning.

    tuner reads folders of images, takes each image through pre-trained networks once, and searches over
    networks and the parameters of a classifier, in parallel on Spark. Every trial is a run in MLflow; the
    best model is tested once, on images that no trial has seen, and registered.
    """
    if verbose:
        _be_verbose()


def main() -> None:
    """Run the command line.

    What cannot work is one sentence and exit code 2, a search that failed 1; a stop is 128 and the signal's
    number, as in shells.
    """
    prepare_process()
    with stop_requests(forced=say_stopped):
        try:
            with stop_counts():
                commands()
        except TunerError as error:
            _say(f"tuner: {error}", error)
            sys.exit(2 if isinstance(error, InvalidInput) else 1)
        except Interrupted as stopped:
            say_stopped(stopped.signum)
            end_at_once(stopped.exit_code)


def _say(text: str, error: BaseException) -> None:
    """Write a message and the notes of an error, or of what caused it, to standard error."""
    screen = Screen(stderr=True, highlight=False)
    notes = [*getattr(error, "__notes__", []), *getattr(error.__cause__, "__notes__", [])]
    for line in [text, *notes]:
        screen.say(line)
