"""What a person reads while images are extracted: a bar on a terminal, a line at the end elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def extraction_progress(console: Console, network: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Show how many images went through a network, and how many a second; yields the callback."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images · {task.fields[rate]:.1f} images/s ·"),
        TimeElapsedColumn(),
    )
    started = time.monotonic()
    done_so_far = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(network, total=total, rate=0.0)

        def report(done: int, _: int) -> None:
            nonlocal done_so_far
            done_so_far = done
            rate = done / max(time.monotonic() - started, 1e-6)
            progress.update(task, completed=done, rate=rate)

        yield report
    if not console.is_terminal and done_so_far:
        seconds = time.monotonic() - started
        console.print(
            f"{network}: {done_so_far} images, {done_so_far / seconds:.1f} images/s", markup=False
        )
