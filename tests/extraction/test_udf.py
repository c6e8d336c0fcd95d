import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.extraction.udf import see_assigned_gpus

_TASKS = """
import os, sys
from pyspark import SparkConf, SparkContext
from tuner.extraction.udf import see_assigned_gpus

def seen(_):
    see_assigned_gpus()
    return os.environ.get("CUDA_VISIBLE_DEVICES")

given = {"resource.gpu.amount": "1", "resource.gpu.discoveryScript": sys.argv[1]}
conf = SparkConf().setMaster("local-cluster[2,1,1024]").set("spark.task.resource.gpu.amount", "1")
conf.set("spark.executor.memory", "512m").set("spark.ui.enabled", "false")
for part in ("worker", "executor"):
    conf.setAll([(f"spark.{part}.{key}", value) for key, value in given.items()])
context = SparkContext(conf=conf)
found = context.parallelize(range(4), 4).map(seen).collect()
print("saw", sorted(set(found)), flush=True)
context.stop()
"""


@pytest.mark.long
def test_a_task_s_tensorflow_sees_the_gpu_that_spark_gave_it(tmp_path: Path) -> None:
    script = tmp_path / "gpus.sh"
    script.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["5"]}\'\n')
    script.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", _TASKS, script],
        env={**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "saw ['5']" in done.stdout, done.stderr


def test_without_a_task_all_that_is_there_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    see_assigned_gpus()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
