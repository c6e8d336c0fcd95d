"""What the first trials would wait for, done beside the search's other work: imports, and a first fit.

A new JVM interprets and compiles while it runs: its first fit takes five times as long as its tenth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from pyspark.ml.functions import array_to_vector
from pyspark.sql import functions as F

from tuner.base.columns import FEATURES, LABEL_INDEX, PART, PATH
from tuner.classifiers.parameters import TrialParams
from tuner.evaluation.metrics import evaluate
from tuner.images.splits import TRAIN, VALIDATION
from tuner.spark.jobs import cancelled_after
from tuner.spark.sessions import DriverSession, Endpoint, connect_from_worker
from tuner.spark.settings import is_local
from tuner.spark.worker_daemon import FOR_TRIALS, hand_over, nobody
from tuner.tracking.store import Tracking
from tuner.trials.trial import fit_and_score

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession as ConnectSession

_ROWS, _WIDTH, _CLASSES = 200, 256, 3
_ITERATIONS = 10
_LONGEST_SECONDS = 60


def start_warm_up(
    session: DriverSession, store: Tracking, parallelism: int, *, rehearse: bool, workers: Future[None]
) -> Future[None]:
    """Begin, in as many workers as trials will have; the future ends when they are free again.

    They import, connect and, if they shall `rehearse`, fit: that costs the cores as much as it saves the
    trials, and is worth it beside an extraction, in which the JVM has nothing to do.

    Trials must wait for it: both hold a slot while their MLlib jobs need another. It waits for `workers`
    that were started ahead, and takes those. On a cluster there is nothing to begin: its slots are for the
    extraction.
    """
    context = session.spark.sparkContext
    if not is_local(context):
        return nobody()
    slots = context.parallelize(range(parallelism), parallelism)
    warm = partial(_warm_worker, session.endpoint, store, rehearse)
    work = hand_over(slots.mapPartitions(warm), FOR_TRIALS)

    def run() -> None:
        # What is wrong, a trial would tell.
        with suppress(Exception), cancelled_after(context, _LONGEST_SECONDS, "warm-up"):
            workers.result(_LONGEST_SECONDS)
            work.collect()

    pool = ThreadPoolExecutor(1, thread_name_prefix="warm-up")
    running = pool.submit(run)
    pool.shutdown(wait=False)
    return running


def _warm_worker(endpoint: Endpoint, store: Tracking, rehearse: bool, rows: Iterable[int]) -> Iterator[int]:
    list(rows)
    store.make_current()
    store.client().get_experiment(store.experiment_id)
    session = connect_from_worker(endpoint)
    if rehearse:
        _rehearse(session)
    yield 1


def _rehearse(spark: ConnectSession) -> None:
    """Do on a worker what a trial does, with made-up features; nothing is logged."""
    row = F.col("id")
    values = F.transform(F.sequence(F.lit(1), F.lit(_WIDTH)), lambda place: F.sin(place * row))
    table = spark.range(0, _ROWS, 1, 1).select(
        row.cast("string").alias(PATH),
        (row % _CLASSES).cast("int").alias(LABEL_INDEX),
        F.when(row < _ROWS // 2, TRAIN).otherwise(VALIDATION).alias(PART),
        array_to_vector(values).alias(FEATURES),
    )
    params = TrialParams(backbone="", regParam=1e-3, elasticNetParam=0.5, maxIter=_ITERATIONS)
    scored = fit_and_score(table, VALIDATION, params).scored
    evaluate(scored.label_index, scored.probability, [str(k) for k in range(_CLASSES)])
