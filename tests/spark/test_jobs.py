"""Jobs of a real session, cut off by time and by signals."""

import os
import signal
import sys
import threading
import time

import pytest
from pyspark import SparkContext, cloudpickle
from pyspark.sql import SparkSession

from tests.helpers.searches import wait_until
from tuner.base.interrupts import Interrupted, stop_requests
from tuner.spark.jobs import cancelled_after, freed_main_thread, tagged
from tuner.spark.sessions import DriverSession

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

LONG = 10**15  # rows: days


def never_ends(context: SparkContext) -> None:
    context.parallelize([0], 1).map(lambda _: time.sleep(3600)).collect()


def is_running(context: SparkContext) -> bool:
    return bool(context.statusTracker().getActiveJobsIds())


def interrupt_when_it_runs(context: SparkContext) -> None:
    def interrupt() -> None:
        wait_until(lambda: is_running(context))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()


def test_a_signal_frees_the_main_thread_from_a_job_and_cancels_it(driver: DriverSession):
    """Fails when pyspark or py4j keep a thread's connection elsewhere: then it waits for the job's end."""
    context = driver.spark.sparkContext

    def work() -> None:
        with stop_requests(), freed_main_thread(context), tagged(context, "test"):
            interrupt_when_it_runs(context)
            never_ends(context)

    with pytest.raises(Interrupted):
        work()
    assert context.parallelize([1, 2], 2).sum() == 3  # an answer of its own, not the job's
    wait_until(lambda: not is_running(context))


def test_a_signal_frees_the_main_thread_from_a_frame_it_waits_for(driver: DriverSession):
    context = driver.spark.sparkContext

    def work() -> None:
        with stop_requests(), freed_main_thread(context):
            interrupt_when_it_runs(context)
            slow = driver.spark.range(0, 1, 1, 1).mapInPandas(sleeping, "id long")
            slow.toPandas()

    with pytest.raises(Interrupted):
        work()
    assert driver.spark.range(3).count() == 3
    wait_until(lambda: not is_running(context))


def sleeping(frames):
    time.sleep(3600)
    yield from frames


def test_a_job_that_takes_too_long_is_cancelled(spark: SparkSession) -> None:
    with cancelled_after(spark.sparkContext, 0.5, "test") as late:
        with pytest.raises(Exception, match="cancelled"):
            spark.range(0, LONG, 1, 1).selectExpr("sum(hash(id))").collect()
        assert late.is_set()
    assert spark.range(3).count() == 3


def test_a_job_in_time_is_left_alone_and_its_tag_with_it(spark: SparkSession) -> None:
    context = spark.sparkContext
    with cancelled_after(context, 60, "test") as late:
        (tag,) = context.getJobTags()
        assert tag.startswith("tuner-test-")
        assert spark.range(3).count() == 3
    assert not late.is_set()
    assert not list(context.getJobTags())  # one of Java's


def test_a_job_that_fails_is_not_late(spark: SparkSession) -> None:
    with cancelled_after(spark.sparkContext, 60, "test") as late:
        with pytest.raises(Exception, match="no good"):
            spark.sql("select raise_error('no good')").collect()
        assert not late.is_set()
    assert not list(spark.sparkContext.getJobTags())
