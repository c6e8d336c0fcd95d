"""What the command line sets right before it imports anything: its output, and another Spark's packages."""

from __future__ import annotations

import io
import logging
import os
import sys
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tuner.base.machine import reach_this_machine_directly

_SPARK = ("pyspark", "py4j")
_log = logging.getLogger(__name__)


def prepare_process() -> None:
    """Let any text be written, this machine be reached, and the installed pyspark be what is imported."""
    write_any_text()
    reach_this_machine_directly()  # an MLflow server here, by whatever command
    leave_out_other_sparks()


def write_any_text() -> None:
    r"""Write what the encoding of the output lacks as an escape (`\xb7`); Python would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def leave_out_other_sparks() -> None:
    """Take the Python folders of another Spark out of the path, for this process and those that it starts.

    Profiles put them into `PYTHONPATH`, where they go before what is installed.
    """
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [entry for entry in entries if entry and any(_holds_another(entry, name) for name in _SPARK)]
    if not others:
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(entry for entry in entries if entry not in others)
    places = {_place(other) for other in others}
    sys.path[:] = [entry for entry in sys.path if not entry or _place(entry) not in places]
    _log.warning("PYTHONPATH leads to another Spark, which is left out: %s.", ", ".join(others))


def _holds_another(entry: str, name: str) -> bool:
    try:
        installed = distribution(name).locate_file("")
    except PackageNotFoundError:
        return False
    return _place(entry) != _place(str(installed)) and PathFinder.find_spec(name, [entry]) is not None


def _place(entry: str) -> Path:
    return Path(entry).resolve()
