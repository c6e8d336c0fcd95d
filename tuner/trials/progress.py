"""What a person reads while trials run: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from tuner.trials.spark_trials import results_of

_POLL_SECONDS = 0.5


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02d}"


class _TrialCounts:
    """What hyperopt's trials say at one moment."""

    def __init__(self, trials: Any, metric: str) -> None:
        results = results_of(trials)
        finished = [result for result in results if result.finished]
        dead = trials.count_failed_trials()  # their worker died; they have no result
        self.ended = len(results) + dead
        self.failed = self.ended - len(finished)
        self._best = min(finished, key=lambda result: (result.loss(metric), result.trial), default=None)
        self._metric = metric

    def best_text(self) -> str:
        if self._best is None:
            return "no score yet"
        return f"best {self._metric} {self._best.metrics[self._metric]:.4f} ({self._best.name})"


@contextmanager
def search_progress(console: Console, trials: Any, max_evals: int, metric: str) -> Iterator[None]:
    """Show trials done, the best so far and the time left, while the body runs the trials."""
    started, finished = time.monotonic(), threading.Event()

    def line(counts: _TrialCounts) -> str:
        done = counts.ended
        left = (time.monotonic() - started) / done * (max_evals - done) if done else 0.0
        failed = f" · {counts.failed} failed" if counts.failed else ""
        remaining = f" · about {_clock(left)} left" if done and done < max_evals else ""
        if trials.reason:
            remaining = f" · no more begin: {trials.reason}"
        return f"{done}/{max_evals} trials{failed} · {counts.best_text()}{remaining}"

    def watch_terminal() -> None:
        with console.status("starting the first trials") as status:
            while not finished.wait(_POLL_SECONDS):
                status.update(line(_TrialCounts(trials, metric)))

    def watch_log() -> None:
        shown = 0, False
        while not finished.wait(_POLL_SECONDS):
            counts = _TrialCounts(trials, metric)
            if (now := (counts.ended, bool(trials.reason))) > shown:
                shown = now
                console.print(line(counts), soft_wrap=True, markup=False)

    watcher = threading.Thread(target=watch_terminal if console.is_terminal else watch_log, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
        console.print(line(_TrialCounts(trials, metric)), soft_wrap=True, markup=False)
