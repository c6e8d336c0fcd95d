"""The run that a call goes on with: found, and said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from tuner.experiment.schema import Experiment

if TYPE_CHECKING:
    from tuner.searches.resume import EarlierSearch, Kind


def earlier_run(
    which: str, kind: Kind, given: Experiment | None, name: str | None, *, force: bool, console: Console
) -> EarlierSearch:
    """Find a run to go on with; of `which` and `kind`, see `find_search`, whose errors it raises.

    It is looked for under the name of the experiment that was `given`, or under `name`; None: everywhere.
    """
    from tuner.searches.resume import find_search  # imports take seconds
    from tuner.tracking.store import named_experiment

    name = given.name if given else name
    found = find_search(which, named_experiment(name), name, force=force, kind=kind)
    console.print(f"resuming {found}", markup=False, soft_wrap=True)
    return found
