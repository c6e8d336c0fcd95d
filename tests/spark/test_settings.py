from pathlib import Path

import pytest

from tuner.base.machine import machine_cores
from tuner.spark.settings import chosen_master, local_slots, settings, user_defaults


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
