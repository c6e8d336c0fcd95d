"""A whole search where the folder, the environment and the output are as hard as people have them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.conftest import glyph
from tests.helpers.searches import aliases_of, free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

NAME = "é n°1 + ok"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images, cache and home in folders whose names have to be quoted or encoded somewhere."""
    folder = tmp_path / "my projects #1 é"
    for letter in "XO":
        (folder / "photos #2 %20" / letter).mkdir(parents=True)
        for number in range(12):
            glyph(letter, number).save(folder / "photos #2 %20" / letter / f"{number} ä.png")
    (folder / "home").mkdir()
    (folder / "letters.yaml").write_text(
        f"name: {NAME}\nimages: 'photos #2 %20'\ncache: '~/x #1 %20é'\n"
        "search: {backbone: [GaborNet], max_evals: 2, parallelism: 2}\n",
        encoding="utf-8",
    )
    return folder


def left_in_a_profile(folder: Path) -> dict[str, str]:
    """Variables of another Spark, another cluster, a proxy and a terminal that knows ASCII alone."""
    hadoop, spark = folder / "hadoop", folder / "spark"
    hadoop.mkdir()
    (hadoop / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://nowhere:8020</value></property>"
        "</configuration>"
    )
    spark.mkdir()
    (spark / "spark-defaults.conf").write_text(
        "spark.eventLog.enabled true\nspark.eventLog.dir hdfs://nowhere/log\nspark.authenticate true\n"
        "spark.default.parallelism 400\nspark.task.cpus 4\n"
    )
    proxy = f"http://127.0.0.1:{free_port()}"
    return {
        **dict.fromkeys(("http_proxy", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "grpc_proxy"), proxy),
        "SPARK_HOME": "/opt/spark-2.4",
        "SPARK_REMOTE": "sc://nowhere:15002",
        "SPARK_LOCAL_IP": "10.1.2.3",
        "SPARK_LOCAL_DIRS": "/proc/x",
        "SPARK_CONF_DIR": str(spark),
        "HADOOP_CONF_DIR": str(hadoop),
        "PYSPARK_PYTHON": "/usr/bin/python2",
        "PYSPARK_DRIVER_PYTHON": "jupyter",
        "PYSPARK_SUBMIT_ARGS": "--master yarn --packages a:b:c pyspark-shell",
        "JAVA_HOME": "/usr/bin/java",
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
        "HOME": str(folder / "home"),
    }


def run(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "SPARK_"))}
    return subprocess.run(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
    )


@pytest.mark.parametrize("fit", ["worker", "spark"])
def test_a_search_comes_to_its_end_and_its_model_is_found_again(folder: Path, fit: str) -> None:
    environment = left_in_a_profile(folder)
    done = run(folder, environment, "search", "--experiment", "letters.yaml", "--fit", fit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.isascii()
    assert "Spark is started without" in done.stderr
    assert aliases_of(MlflowClient(f"sqlite:///{folder}/mlflow.db"), NAME) == {"champion": 1}
    assert {place.name for place in (folder / "home").iterdir()} >= {"x #1 %20é"}
    told = run(folder, environment, "predict", f"models:/{NAME}@champion", "photos #2 %20")
    assert told.returncode == 0, told.stderr
    assert len(told.stdout.splitlines()) == 25
