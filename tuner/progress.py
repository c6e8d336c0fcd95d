"""What a person reads while a search runs: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hyperopt import STATUS_OK
from hyperopt.base import JOB_STATE_DONE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tuner.experiment import LOWER_IS_BETTER

_POLL_SECONDS = 0.5


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02d}"


@contextmanager
def extraction_progress(
    console: Console, backbone: str, total: int
) -> Iterator[Callable[[int, int], None]]:
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
        task = progress.add_task(backbone, total=total, rate=0.0)

        def report(done: int, _: int) -> None:
            nonlocal done_so_far
            done_so_far = done
            rate = done / max(time.monotonic() - started, 1e-6)
            progress.update(task, completed=done, rate=rate)

        yield report
    if not console.is_terminal and done_so_far:
        seconds = time.monotonic() - started
        console.print(
            f"{backbone}: {done_so_far} images, {done_so_far / seconds:.1f} images/s", markup=False
        )


class _TrialCounts:
    """What the documents of hyperopt's trials say at one moment."""

    def __init__(self, trials: Any, metric: str) -> None:
        documents = [doc for doc in list(trials.trials) if doc["state"] == JOB_STATE_DONE]
        scored = [doc for doc in documents if doc["result"].get("status") == STATUS_OK]
        dead = trials.count_failed_trials()  # their worker died; they are not in `.trials`
        self.ended = len(documents) + dead
        self.failed = self.ended - len(scored)
        self.best = min(scored, key=lambda doc: (doc["result"]["loss"], doc["tid"]), default=None)
        self._sign = 1 if metric in LOWER_IS_BETTER else -1
        self._metric = metric

    def best_text(self) -> str:
        if self.best is None:
            return "no score yet"
        result = self.best["result"]
        return f"best {self._metric} {self._sign * result['loss']:.4f} ({result['name']})"


@contextmanager
def search_progress(console: Console, trials: Any, max_evals: int, metric: str) -> Iterator[None]:
    """Show trials done, the best so far and the time left, while the body runs the trials."""
    started, finished = time.monotonic(), threading.Event()

    def line(counts: _TrialCounts) -> str:
        done = counts.ended
        left = (time.monotonic() - started) / done * (max_evals - done) if done else 0.0
        failed = f" · {counts.failed} failed" if counts.failed else ""
        remaining = f" · about {_clock(left)} left" if done and done < max_evals else ""
        return f"{done}/{max_evals} trials{failed} · {counts.best_text()}{remaining}"

    def watch_terminal() -> None:
        with console.status("starting the first trials") as status:
            while not finished.wait(_POLL_SECONDS):
                status.update(line(_TrialCounts(trials, metric)))

    def watch_log() -> None:
        shown = 0
        while not finished.wait(_POLL_SECONDS):
            counts = _TrialCounts(trials, metric)
            if counts.ended > shown:
                shown = counts.ended
                console.print(line(counts), soft_wrap=True, markup=False)

    watcher = threading.Thread(target=watch_terminal if console.is_terminal else watch_log, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
        console.print(line(_TrialCounts(trials, metric)), soft_wrap=True, markup=False)
