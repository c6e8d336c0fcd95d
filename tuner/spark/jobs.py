"""Spark jobs that are not waited for any longer than they may take."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark import SparkContext


@contextmanager
def cancelled_after(context: SparkContext, seconds: float, name: str) -> Iterator[threading.Event]:
    """Cancel the jobs that this thread starts meanwhile, once they have taken too long.

    Spark's pages and event log show them with a tag of `tuner-` and the name. A cancelled job raises py4j's
    own error, as one that failed does: the event tells which it was.
    """
    tag, late = f"tuner-{name}-{uuid.uuid4().hex}", threading.Event()

    def cancel() -> None:
        late.set()
        context.cancelJobsWithTag(tag)

    timer = threading.Timer(seconds, cancel)
    timer.daemon = True
    context.addJobTag(tag)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        context.removeJobTag(tag)
