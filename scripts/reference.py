"""The documentation's reference, made of the code: a page says `<!-- made: networks -->` where it stands.

MkDocs calls it (`hooks` of mkdocs.yml); `python scripts/reference.py networks` prints one.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

import tuner
from tuner.classifiers.rows.row import Classifier
from tuner.classifiers.table import CLASSIFIERS, SPOTS
from tuner.cli.main import commands
from tuner.experiment.file import LEARN_OVERRIDES, OVERRIDES
from tuner.experiment.json_schema import experiment_schema, written_meanings
from tuner.networks.table import NETWORKS, Architecture
from tuner.tracking import names

_ROOT = Path(__file__).resolve().parents[1]
_MARK = re.compile(r"<!-- made: ([\w-]+) -->")
_GIVES = {"probability": "probabilities", "decision": "decision values"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What MkDocs asks of a page: its text, with what is made in it."""
    return filled(markdown)


def filled(markdown: str) -> str:
    """A page's text with what is made of the code in place of its marks."""
    return _MARK.sub(lambda mark: MADE[mark[1]](), markdown)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), ["---"] * len(list(head)), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _plain(text: str) -> str:
    """Text in which Markdown finds no signs."""
    return re.sub(r"([*_<|])", r"\\\1", text)


# The command line


def command_line() -> str:
    """The commands, in the groups of `tuner --help`."""
    group: Any = typer.main.get_command(commands)
    panels: dict[str, list[str]] = {}
    for name, command in group.commands.items():
        panels.setdefault(command.rich_help_panel, []).append(_command(name, command))
    always = _table(("option", "meaning"), map(_option, group.params))
    parts = [f"## {panel}\n\n" + "\n\n".join(made) for panel, made in panels.items()]
    return "\n\n".join([*parts, f"## Without a command\n\n{always}"])


def _command(name: str, command: Any) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    usage = " ".join(["tuner", name, *map(_usage, arguments)])
    about = inspect.cleandoc(command.help)
    table = _table(("argument, option", "meaning"), map(_option, command.params))
    return f"### tuner {name}\n\n{_plain(about)}\n\n```\n{usage} [OPTIONS]\n```\n\n{table}"


def _usage(argument: Any) -> str:
    named = argument.name.upper() + ("…" if argument.nargs == -1 else "")
    return named if argument.required else f"[{named}]"


def _option(param: Any) -> tuple[str, str]:
    shown = [_usage(param)] if param.param_type_name == "argument" else param.opts
    told = [_plain(param.help or "")]
    if param.param_type_name == "option":
        told += ["Must be given."] if param.required else _default(param)
    return ", ".join(f"`{one}`" for one in shown), " ".join(told)


def _default(param: Any) -> list[str]:
    if isinstance(param.show_default, str):
        return [f"Default: {param.show_default}."]
    is_told = param.show_default and not param.is_flag and param.default not in (None, "")
    return [f"Default: `{param.default}`."] if is_told else []


# The experiment file


def experiment_keys() -> str:
    """The keys of an experiment file; those of a network have a table of their own."""
    starred = {".".join(place) for place in (*OVERRIDES.values(), *LEARN_OVERRIDES.values())}
    rows = [
        (f"`{key}`" + (" *" if key in starred else ""), _stated(key), _linked(meaning))
        for key, meaning in written_meanings().items()
        if not key.startswith("network.")
    ]
    return _table(("key", "default", "meaning"), rows)


def network_keys() -> str:
    """The keys of a network's description."""
    rows = [
        (f"`{key.removeprefix('network.')}`", _linked(meaning))
        for key, meaning in written_meanings().items()
        if key.startswith("network.")
    ]
    return _table(("key of a network", "meaning"), rows)


def _stated(key: str) -> str:
    """A key's default as a file would state it; nothing if it has none."""
    schema: Any = experiment_schema()
    place = schema
    for part in key.split("."):
        if "$ref" in place:
            place = schema["$defs"][place["$ref"].rpartition("/")[2]]
        place = place["properties"][part]
    default = place.get("default")
    if default is None or default == []:
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _linked(meaning: str) -> str:
    """Pages of docs/ that a meaning names, as links from a page of a folder beside theirs."""

    def link(named: re.Match[str]) -> str:
        title = (_ROOT / named[0]).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        return f"[{title}](../{named[1]})"

    return re.sub(r"docs/([\w/-]+\.md)", link, meaning.replace("|", "\\|"))


# Networks and classifiers


def networks() -> str:
    """A line for each network."""
    rows = (
        (
            f"`{row.name}`",
            "{} × {}".format(*row.input_size),
            f"{row.width:,}",
            f"`{row.preprocessing}`",
            _weights(row),
            row.licence,
        )
        for row in NETWORKS.values()
    )
    return _table(("network", "pixels", "features", "preprocessing", "weights", "their licence"), rows)


def _weights(row: Architecture) -> str:
    if row.weights == "embedded":
        return "in the package"
    return "ImageNet, " + ("of a Python package" if row.module.startswith("tuner.") else "downloaded once")


def classifiers() -> str:
    """A line for each classifier."""
    rows = (
        (
            f"`{row.name}`",
            _parameters(row),
            " or ".join(row.fits) or "–",
            "yes" if row.incremental else "",
            _GIVES[row.gives],
        )
        for row in CLASSIFIERS.values()
    )
    head = ("classifier", "parameters, as they are searched", "fits", "learns a batch at a time", "gives")
    return _table(head, rows)


def _parameters(row: Classifier) -> str:
    shown = [(one.name, str(one.default).removesuffix(":linear")) for one in row.parameters]
    return ", ".join(f"`{name}` {default}" for name, default in shown)


def spot_check() -> str:
    """A line for what a spot-check tries; those of a row with many are one line."""
    rows = []
    for row in (row for row in CLASSIFIERS.values() if row.spots):
        spots = [spot for spot in row.spots if SPOTS[spot][0] == row.name]
        given = [", ".join(f"{name} {value}" for name, value in one.items()) for one in row.spots.values()]
        several = len(spots) > 1
        tried = f"`{spots[0]}` … `{spots[-1]}`" if several else f"`{spots[0]}`"
        told = f"{given[0]} … {given[-1]}" if several else given[0] or "the library's defaults"
        rows.append((tried, f"`{row.name}`", told))
    return _table(("tried", "of", "with"), rows)


# What is in MLflow


def tracking_names() -> str:
    """Tags, artifacts and metrics by the names and comments of `tuner.tracking.names`."""
    return "\n\n".join(
        f"### {head}\n\n"
        + _table(("name", "what it is"), [(f"`{name}`", _plain(about)) for name, about in rows])
        for head, rows in _commented(inspect.getsource(names))
    )


def _commented(source: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The groups of constants, each below its comment, and what the comment of each constant says."""
    lines = source.splitlines()
    head = ""
    rows: list[tuple[str, str]] = []
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)):
            continue
        above = lines[node.lineno - 2]
        if above.startswith("# "):
            if rows:
                yield head, rows
            head, rows = above.removeprefix("# ").removesuffix("."), []
        written = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        comment = re.search(r"  # (.*)", written)
        rows.append((str(node.value.value), comment[1] if comment else ""))
    yield head, rows


# The Python API


def python_api() -> str:
    """What mkdocstrings makes pages of: the public names, functions before classes."""
    functions = [name for name in tuner.__all__ if name[0].islower()]
    classes = [name for name in tuner.__all__ if name not in functions]
    parts = [("Functions", functions), ("Classes", classes)]
    return "\n\n".join(
        "\n\n".join([f"## {head}", *(f"::: tuner.{name}" for name in listed)]) for head, listed in parts
    )


MADE: dict[str, Callable[[], str]] = {
    "command-line": command_line,
    "experiment-keys": experiment_keys,
    "network-keys": network_keys,
    "networks": networks,
    "classifiers": classifiers,
    "spot-check": spot_check,
    "tracking-names": tracking_names,
    "python-api": python_api,
}
"""What pages may ask for."""

if __name__ == "__main__":
    print(MADE[sys.argv[1]]())
