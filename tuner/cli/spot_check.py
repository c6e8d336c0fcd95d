"""The ranked table of a spot-check on the screen."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tuner.searches.spot_check import SpotCheckResult

_SHOWN = 15


def show_spot_check(done: SpotCheckResult, metric: str, console: Console) -> None:
    """Print the best combinations, what failed and why, and where the rest is."""
    finished = done.table[done.table["status"] == "FINISHED"]
    failed = done.table[done.table["status"] != "FINISHED"]
    shown = Table(box=None, pad_edge=False)
    for head in ("rank", metric, "seconds", "backbone", "classifier"):
        shown.add_column(head, justify="right" if head in ("rank", metric, "seconds") else "left")
    for row in finished.head(_SHOWN).to_dict("records"):
        numbers = str(row["rank"]), f"{row[metric]:.4f}", f"{row['seconds']:.2f}"
        shown.add_row(*numbers, str(row["backbone"]), str(row["classifier"]))
    console.print()
    console.print(shown)
    if len(finished) > _SHOWN:
        console.print(f"and {len(finished) - _SHOWN} more: see spot_check.json and the heat map")
    if len(failed):
        reason = str(failed.iloc[0]["reason"])
        console.print(
            f"{len(failed)} combinations failed, such as {failed.iloc[0]['classifier']}: {reason}",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"run {done.run_id} ({done.extracted} images extracted)", soft_wrap=True)
