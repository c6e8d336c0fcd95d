import pytest
from pyspark.sql import SparkSession

from tuner.spark.jobs import cancelled_after

LONG = 10**15  # rows: days


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
    assert context.getJobTags() == set()


def test_a_job_that_fails_is_not_late(spark: SparkSession) -> None:
    with cancelled_after(spark.sparkContext, 60, "test") as late:
        with pytest.raises(Exception, match="no good"):
            spark.sql("select raise_error('no good')").collect()
        assert not late.is_set()
    assert spark.sparkContext.getJobTags() == set()
