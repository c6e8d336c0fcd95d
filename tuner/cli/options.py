"""Options that several commands have: their groups in the help, and what a shell offers for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from typer.models import OptionInfo

from tuner.drafts.examples import DEFAULT_FILE, experiment_file

if TYPE_CHECKING:
    from tuner.experiment.schema import Experiment

# The groups of options in `tuner search --help`, by the options that are in them.
_GROUPS = {
    "The images, and their features": ("images", "backbone", "precision", "cache"),
    "How long": ("max_evals", "timeout", "trial_timeout", "early_stop", "parallelism"),
}
_OTHERS = "What is searched, and how"
OUTPUT = "What is written"


def complete_file(incomplete: str) -> list[str]:
    """Experiment files, and the folders that may hold some."""
    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") or not incomplete else typed.parent
    begin = "" if folder == typed else typed.name
    found = sorted(folder.glob(f"{begin}*")) if folder.is_dir() else []
    return [
        f"{path}/" if path.is_dir() else str(path)
        for path in found
        if path.suffix in (".yaml", ".yml") or (path.is_dir() and not path.name.startswith("."))
    ]


def completing(name: str) -> Callable[[str], list[str]]:
    """What completes an option that stands for a key: networks or classifiers in a list, or its values."""

    def complete(incomplete: str) -> list[str]:
        if name not in ("backbone", "classifier"):
            return [value for value in _values(name) if value.startswith(incomplete)]
        from tuner.classifiers.table import CLASSIFIERS
        from tuner.networks.table import NETWORKS

        before, comma, begin = incomplete.rpartition(",")
        named = NETWORKS if name == "backbone" else CLASSIFIERS
        return [f"{before}{comma}{one}" for one in named if one.lower().startswith(begin.lower())]

    return complete


def _values(name: str) -> Iterator[str]:
    """What the schema says that a key is one of."""
    from tuner.experiment.file import FINE_TUNE_OVERRIDES, LEARN_OVERRIDES, OVERRIDES
    from tuner.experiment.json_schema import experiment_schema, fields_of

    *groups, key = {**FINE_TUNE_OVERRIDES, **LEARN_OVERRIDES, **OVERRIDES}[name]
    field = fields_of(experiment_schema(), groups)[key]
    for option in field.get("anyOf", [field]):
        yield from map(str, option.get("enum", ()))
        if option.get("type") == "boolean":
            yield from ("false", "true")


def option(name: str, text: str, others: str = _OTHERS) -> OptionInfo:
    """An option that stands for a key of the experiment file: one of the overrides of a command.

    `others` is the panel of options that are not on images and the like.
    """
    group = next((group for group, names in _GROUPS.items() if name in names), others)
    return typer.Option(
        f"--{name}",
        help=f"{text}; empty: as in the file.",
        show_default=False,
        rich_help_panel=group,
        autocompletion=completing(name),
    )


def given_file(given: Path | str, screen: Console) -> Path:
    """The experiment file that was given, or the default one; where that is the package's, it is said."""
    file = experiment_file(given)
    if file not in (Path(given), DEFAULT_FILE):
        screen.print(f"experiment {file}, which comes with tuner", markup=False, soft_wrap=True)
    return file


def given_or_resumed(
    experiment: str,
    resume: str,
    keys: Mapping[str, str],
    places: Mapping[str, tuple[str, ...]],
    screen: Console,
) -> tuple[Experiment | None, dict[str, str | None]]:
    """The experiment of a file and of options; or None, where a run goes on by its own, and the options."""
    from tuner.experiment.file import read_experiment

    if resume and not experiment:
        return None, {key: value or None for key, value in keys.items()}
    file = Path(experiment) if resume else given_file(experiment, screen)
    return read_experiment(file, keys, places), {}


FILE = typer.Option(
    "--experiment", help="The experiment file (YAML).", show_default="digits", autocompletion=complete_file
)
MASTER = typer.Option("--master", help="A Spark master URL; empty: this machine.")
Images = Annotated[
    str, option("images", "A folder of class folders, a Parquet, table:NAME or builtin:digits")
]
Backbones = Annotated[str, option("backbone", "Networks, by name: InceptionV3,ResNet50")]
Precision = Annotated[str, option("precision", "float32 or bfloat16")]
Cache = Annotated[str, option("cache", "The folder of the feature cache")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Write nothing but what is wrong.", rich_help_panel=OUTPUT)
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Write the result as JSON to standard output, and all else to standard error.",
        rich_help_panel=OUTPUT,
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Show what libraries write as they start.", rich_help_panel=OUTPUT
    ),
]
