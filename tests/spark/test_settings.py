import shlex
from pathlib import Path

import pytest

from tuner.base.errors import SessionError
from tuner.base.machine import machine_cores
from tuner.base.uris import local_path
from tuner.spark.settings import (
    chosen_master,
    local_defaults,
    local_slots,
    properties,
    settings,
    user_defaults,
)


@pytest.fixture
def defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    monkeypatch.delenv("MASTER", raising=False)
    return tmp_path / "spark-defaults.conf"


def test_users_defaults_are_read_as_spark_reads_them(defaults: Path):
    assert user_defaults() == {}
    defaults.write_text(
        "# a comment\n\nspark.master spark://host:7077\nspark.a=b\n  spark.c : d e\nspark.alone\n"
    )
    assert user_defaults() == {"spark.master": "spark://host:7077", "spark.a": "b", "spark.c": "d e"}


def test_the_master_is_the_option_then_the_defaults_then_this_machine(
    defaults: Path, monkeypatch: pytest.MonkeyPatch
):
    assert chosen_master(None, 2) == f"local[{machine_cores() + 2},4]"
    monkeypatch.setenv("MASTER", "node01")  # of another program
    assert chosen_master(None, 2) == f"local[{machine_cores() + 2},4]"
    monkeypatch.setenv("MASTER", "spark://c:1")
    assert chosen_master(None, 2) == "spark://c:1"
    defaults.write_text("spark.master spark://b:1\n")
    assert chosen_master(None, 2) == "spark://b:1"
    assert chosen_master("spark://a:1", 2) == "spark://a:1"


def test_only_local_masters_have_slots_of_their_own():
    assert [local_slots(master) for master in ("local", "local[3]", "local[3,4]")] == [1, 3, 3]
    assert local_slots("local[*]") == machine_cores()
    assert [local_slots(master) for master in ("local-cluster[2,1,1024]", "yarn", "spark://h:1")] == [
        None
    ] * 3


@pytest.mark.parametrize("master", ["local[a]", "local[]", "local[-1]", "local[1.5]"])
def test_a_local_master_without_a_number_is_one_sentence(master: str):
    with pytest.raises(
        SessionError, match=r"^The master local\[.*\] says no number of slots: write local\[4\]"
    ):
        local_slots(master)


OF_A_CLUSTER = """
spark.eventLog.enabled true
spark.eventLog.dir hdfs://nowhere/logs
spark.authenticate true
spark.task.cpus 4
spark.task.resource.gpu.amount 1
spark.default.parallelism 1000
spark.serializer com.example.Nope
spark.remote sc://nowhere
spark.connect.authenticate.token abc
spark.sql.warehouse.dir hdfs://nowhere/warehouse
spark.local.dir /proc/nowhere
spark.python.daemon.module nowhere
"""
OF_DATA = """
spark.hadoop.fs.s3a.secret.key s3cr3t
spark.hadoop.fs.defaultFS hdfs://nowhere:8020
spark.jars.packages a:b:1, \\
  c:d:2
spark.sql.extensions io.delta.sql.DeltaSparkSessionExtension
spark.sql.catalog.spark_catalog org.apache.spark.sql.delta.catalog.DeltaCatalog
spark.sql.catalogImplementation hive
spark.driver.memory 3g
spark.driver.extraJavaOptions -Dx="a b"
"""


def test_local_mode_takes_of_the_defaults_how_data_is_reached_and_the_jvm(defaults: Path):
    defaults.write_text(OF_A_CLUSTER + OF_DATA)
    kept = local_defaults()
    assert kept["spark.jars.packages"] == "a:b:1, c:d:2"
    assert len(kept) == 8
    found = settings("local[2]")
    assert found["spark.hadoop.fs.defaultFS"] == "file:///"
    assert found["spark.driver.extraJavaOptions"].startswith('-Dx="a b" ')
    assert "s3cr3t" not in str(found)  # which stand on the JVM's command line
    assert "spark.hadoop.fs.s3a.secret.key s3cr3t\n" in properties(kept)


def test_defaults_that_cannot_be_read_do_not_count_and_that_is_said(
    defaults: Path, caplog: pytest.LogCaptureFixture
):
    defaults.mkdir()
    assert user_defaults() == {}
    assert caplog.messages == [f"{defaults} cannot be read (Is a directory), and does not count."]


@pytest.mark.parametrize(
    ("given", "variable", "parallel"),
    [
        ("", "", True),
        ("-XX:+UseStringDeduplication", "", True),
        ("-XX:+UseG1GC", "", False),
        ("", "-XX:+UseZGC", False),
    ],
)
def test_our_garbage_collector_contradicts_none_that_is_chosen(
    defaults: Path, monkeypatch: pytest.MonkeyPatch, given: str, variable: str, parallel: bool
):
    defaults.write_text(f"spark.driver.extraJavaOptions {given}\n")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", variable)
    assert ("-XX:+UseParallelGC" in settings("local[2]")["spark.driver.extraJavaOptions"]) == parallel


@pytest.mark.parametrize("place", ["/plain", '/my projects #1 é/50%20/it\'s "$x"'])
def test_the_place_of_the_log_s_settings_needs_no_quotes(
    defaults: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    monkeypatch.setattr("tuner.spark.settings.resources.files", lambda _: Path(place))
    options = settings("spark://host:7077")["spark.driver.extraJavaOptions"]
    assert options.isascii()
    (option,) = shlex.split(options)
    name, _, uri = option.partition("=")
    assert (name, local_path(uri)) == ("-Dlog4j2.configurationFile", Path(place, "log4j2.properties"))


@pytest.mark.parametrize(("memory", "heap"), [(64_000, 8192), (16_000, 4000), (4_000, 1024), (1_024, 512)])
def test_the_heap_is_a_part_of_the_memory(
    defaults: Path, monkeypatch: pytest.MonkeyPatch, memory: int, heap: int
):
    monkeypatch.delenv("SPARK_DRIVER_MEMORY", raising=False)
    monkeypatch.setattr("tuner.spark.settings.memory_mib", lambda: memory)
    assert settings("local[2]")["spark.driver.memory"] == f"{heap}m"


def test_local_mode_keeps_to_loopback_whatever_the_defaults_say(defaults: Path):
    defaults.write_text("spark.driver.host 10.0.0.1\nspark.ui.enabled true\nspark.driver.memory 3g\n")
    found = settings("local[2]")
    addresses = ("spark.driver.host", "spark.driver.bindAddress", "spark.connect.grpc.binding.address")
    assert {found[name] for name in addresses} == {"127.0.0.1"}
    assert found["spark.ui.enabled"] == "false"
    assert "spark.driver.memory" not in found


def test_on_a_cluster_the_users_settings_stand(defaults: Path):
    theirs = {
        "spark.driver.host": "driver.jobs.svc",
        "spark.scheduler.mode": "FIFO",
        "spark.locality.wait": "1s",
        "spark.plugins": "com.example.Plugin",
        "spark.driver.extraJavaOptions": "-Dkrb5=1",
    }
    defaults.write_text("".join(f"{key} {value}\n" for key, value in theirs.items()))
    found = settings("spark://host:7077")
    assert not {
        "spark.driver.host",
        "spark.scheduler.mode",
        "spark.locality.wait",
        "spark.driver.memory",
        "spark.ui.enabled",
    } & set(found)
    assert "spark.plugins" not in found
    assert found["spark.driver.extraJavaOptions"].startswith("-Dkrb5=1 -Dlog4j2.configurationFile=")
    defaults.write_text("")
    assert settings("spark://host:7077")["spark.locality.wait"] == "100ms"
    assert "token" not in " ".join([*found, *found.values()]).lower()
