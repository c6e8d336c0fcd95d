"""Spark jobs that are not waited for any longer: they took too long, or the work was stopped."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

from pyspark import SparkContext
from pyspark.sql import SparkSession

from tuner.base.interrupts import freed_by, is_stopping


@contextmanager
def tagged(context: SparkContext, name: str) -> Iterator[str]:
    """Give the jobs that this thread starts meanwhile a tag, by which what is cut off is cancelled.

    Spark's pages and event log show it: `tuner-`, the name and a number.
    """
    tag = f"tuner-{name}-{uuid.uuid4().hex}"
    context.addJobTag(tag)
    try:
        yield tag
    except Exception:
        raise
    except BaseException:
        context.cancelJobsWithTag(tag)
        raise
    finally:
        context.removeJobTag(tag)


@contextmanager
def freed_main_thread(context: SparkContext, *, borrowed: bool = False) -> Iterator[None]:
    """Let a signal end a call of Spark's JVM in the main thread, which waits for hours if need be.

    An exception in the midst leaves the answer to be read by the thread's next call, which would wait as
    long. So the thread gives up its connection first: its next call makes a new one, as in a new thread.
    Another thread cancels all jobs of this application, for pyspark waits for them on the way out, too;
    of a session that is `borrowed`, those of this thread.
    """
    client = context._gateway._gateway_client  # type: ignore[union-attr]  # pyspark has no public way

    def cancel() -> None:
        with suppress(Exception):
            if borrowed:
                context.cancelJobsWithTag(tag)
                return
            context.setLogLevel("OFF")  # a cancelled job is not an error here
            context.cancelAllJobs()

    def free() -> None:
        logging.getLogger("py4j").setLevel(logging.CRITICAL)  # the JVM may have got the signal, too
        connection = client.get_thread_connection()
        if connection is not None:
            connection.close()
        threading.Thread(target=cancel, daemon=True).start()

    with tagged(context, "borrowed") if borrowed else nullcontext("") as tag, freed_by(free):
        yield


@contextmanager
def stopped_at_end(spark: SparkSession) -> Iterator[None]:
    """Stop Spark at the end; if this process was asked to stop, at once and without Spark's errors."""
    try:
        with freed_main_thread(spark.sparkContext):
            yield
    finally:
        with suppress(Exception) if is_stopping() else nullcontext():
            spark.stop()


@contextmanager
def cancelled_after(context: SparkContext, seconds: float, name: str) -> Iterator[threading.Event]:
    """Cancel the jobs that this thread starts meanwhile, once they have taken too long.

    A cancelled job raises py4j's own error, as one that failed does: the event tells which it was.
    """
    late = threading.Event()
    with tagged(context, name) as tag:

        def cancel() -> None:
            late.set()
            context.cancelJobsWithTag(tag)

        timer = threading.Timer(seconds, cancel)
        timer.daemon = True
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()
