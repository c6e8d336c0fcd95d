"""The experiments that come with the package: listed, found, written out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import tuner
from tuner.base.errors import ExperimentError
from tuner.base.files import write_aside

# In a clone it is a link to the project's `experiments`, whose files a wheel holds here.
_FOLDER = Path(tuner.__file__).parent / "examples"
DEFAULT_EXAMPLE = "digits"
DEFAULT_FILE = Path("experiments", f"{DEFAULT_EXAMPLE}.yaml")
"""What is searched where no experiment is named: this file of the working folder, else the package's."""


@dataclass(frozen=True)
class Example:
    """An experiment that comes with the package.

    Attributes
    ----------
    name
        The experiment's and, without its ending, the file's.
    file
        Where it is.
    about
        The first sentence that it says of itself.
    """

    name: str
    file: Path
    about: str


def examples() -> list[Example]:
    """The experiments that come with the package, by name."""
    return [_read(file) for file in sorted(_FOLDER.glob("*.yaml"))]


def _read(file: Path) -> Example:
    comment = re.match(r"(?:# ?.*\n)+", file.read_text(encoding="utf-8"))
    lines = re.sub(r"^# ?", "", comment[0] if comment else "", flags=re.MULTILINE)
    first = " ".join(lines.split("\n\n")[0].split())
    return Example(file.stem, file, first)


def find_example(name: str) -> Example:
    """Return the example of a name.

    Raises
    ------
    ExperimentError
        There is none; the message gives the names that there are.
    """
    known = {example.name: example for example in examples()}
    if name not in known:
        raise ExperimentError(f"There is no example {name}: there are {', '.join(known)}.")
    return known[name]


def write_new(target: Path, text: str) -> None:
    """Write an experiment file that is not there yet.

    Raises
    ------
    ExperimentError
        It is there, or cannot be written.
    """
    if target.exists():
        raise ExperimentError(f"The file {target} is there already, and stays: name another with --to.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_aside(target, lambda aside: aside.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise ExperimentError(f"The file {target} cannot be written: {error.strerror}.") from error


def experiment_file(given: Path | str) -> Path:
    """Where the experiment is that a command was given.

    Nothing at all, and `DEFAULT_FILE` where the working folder has no such file, are the package's default.
    """
    if str(given) in ("", str(DEFAULT_FILE)) and not DEFAULT_FILE.exists():
        return find_example(DEFAULT_EXAMPLE).file
    return Path(given) if str(given) else DEFAULT_FILE
