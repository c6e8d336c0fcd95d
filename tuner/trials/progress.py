"""What a person reads while trials run: the best so far in a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hyperopt.base import JOB_STATE_RUNNING
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tuner.base.wording import clock, visible
from tuner.classifiers.parameters import described
from tuner.tracking.results import TrialResult
from tuner.trials.spark_trials import EndingTrials, results_of

_POLL_SECONDS = 0.5
_SHOWN = 5  # of the best trials


class _Moment:
    """What hyperopt's trials say at one moment."""

    def __init__(self, trials: EndingTrials, metric: str) -> None:
        results = results_of(trials)
        finished = [result for result in results if result.finished]
        dead = trials.count_failed_trials()  # their worker died; they have no result
        self.ended = len(results) + dead
        self.failed = self.ended - len(finished)
        self.running = sum(doc["state"] == JOB_STATE_RUNNING for doc in trials.documents())
        self.best = sorted(finished, key=lambda result: (result.loss(metric), result.trial))[:_SHOWN]
        self.reason = trials.reason

    def best_text(self, metric: str) -> str:
        if not self.best:
            return "no score yet"
        return f"best {metric} {self.best[0].metrics[metric]:.4f} ({self.best[0].name})"


class SearchProgress:
    """Tells how far a search is.

    Parameters
    ----------
    trials
        hyperopt's; those that have ended already, of a search that is resumed, say nothing of the time that
        the others take.
    max_evals
        How many there will be.
    metric
        What they are ranked by.
    """

    def __init__(self, trials: EndingTrials, max_evals: int, metric: str) -> None:
        self._trials, self._max_evals, self._metric = trials, max_evals, metric
        self._started, self._before = time.monotonic(), _Moment(trials, metric).ended

    def now(self) -> _Moment:
        """Look at the trials."""
        return _Moment(self._trials, self._metric)

    def line(self, now: _Moment, *, live: bool = False) -> str:
        """Trials done and failed, while it is `live` those that run, the best, and the time left."""
        failed = f" · {now.failed} failed" if now.failed else ""
        running = f" · {now.running} running" if live else ""
        best = now.best_text(self._metric)
        return f"{now.ended}/{self._max_evals} trials{failed}{running} · {best}{self._left(now)}"

    def _left(self, now: _Moment) -> str:
        if now.reason:
            return f" · no more begin: {now.reason}"
        done, to_do = now.ended - self._before, self._max_evals - now.ended
        if done <= 0 or to_do <= 0:
            return ""
        return f" · about {clock((time.monotonic() - self._started) / done * to_do)} left"

    def table(self, now: _Moment) -> RenderableType:
        """The best trials so far, best first; nothing before there is one."""
        shown = Table(box=None, pad_edge=False)
        for head in (self._metric, "trial", "backbone", "parameters"):
            shown.add_column(head, no_wrap=True)
        shown.add_column("seconds", justify="right", no_wrap=True)
        for result in now.best:
            shown.add_row(*map(Text, self._cells(result)))
        return shown if now.best else Group()

    def _cells(self, result: TrialResult) -> tuple[str, ...]:
        seconds = "" if result.seconds is None else f"{result.seconds:.1f}"
        score, params = f"{result.metrics[self._metric]:.4f}", result.params
        return score, result.name, visible(params.backbone), described(params.to_dict()), seconds


@contextmanager
def search_progress(console: Console, trials: EndingTrials, max_evals: int, metric: str) -> Iterator[None]:
    """Show how far the trials are while the body runs them, and at the end what they came to."""
    progress, finished = SearchProgress(trials, max_evals, metric), threading.Event()

    def watch_terminal() -> None:
        with Live("starting the first trials", console=console, transient=True) as live:
            while not finished.wait(_POLL_SECONDS):
                now = progress.now()
                live.update(Group(progress.table(now), Text(progress.line(now, live=True))))

    def watch_log() -> None:
        shown = progress.now().ended, False
        while not finished.wait(_POLL_SECONDS):
            now = progress.now()
            if (seen := (now.ended, bool(now.reason))) > shown:
                shown = seen
                console.print(progress.line(now), soft_wrap=True, markup=False)

    watcher = threading.Thread(target=watch_terminal if console.is_terminal else watch_log, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
        now = progress.now()
        if console.is_terminal:
            console.print(progress.table(now))
        console.print(progress.line(now), soft_wrap=True, markup=False)
