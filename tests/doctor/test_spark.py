"""Java and Spark as the doctor sees them; the whole examination starts Spark itself."""

import os
from pathlib import Path

import pytest

from tests.spark.test_jvm import fake_java
from tuner.base.errors import SessionError
from tuner.doctor.findings import Finding
from tuner.doctor.spark import SparkTrial, check_java, weighed
from tuner.experiment.schema import Experiment
from tuner.spark.launch import launch_spark
from tuner.spark.sessions import DriverSession


def experiment(fit: str, **search: str) -> Experiment:
    data = {"name": "e", "images": "a", "search": {"backbone": "GlyphNet", "fit": fit, **search}}
    return Experiment.model_validate(data)


def test_the_java_that_spark_starts_with_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = fake_java(tmp_path / "new", 'JAVA_VERSION="21.0.1"\n')
    monkeypatch.setenv("JAVA_HOME", str(home))
    (found,) = check_java()
    assert found == Finding("Java", "ok", f"21.0.1, {home}/bin/java")
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", 'JAVA_VERSION="11.0.2"\n')))
    with pytest.raises(SessionError, match="17 or newer"):
        list(check_java())


def test_a_java_that_says_no_version_is_left_to_spark_s_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "new", None)))
    (found,) = check_java()
    assert "of a version" in found.said


def test_a_session_that_runs_with_another_master_is_refused_as_by_a_search(driver: DriverSession) -> None:
    before = dict(os.environ)
    with pytest.raises(SessionError, match="already running"):
        list(SparkTrial(experiment("auto"), launch_spark("doctor", 2, master="local[9]")).findings())
    assert dict(os.environ) == before


@pytest.mark.parametrize(("fit", "state"), [("auto", "note"), ("worker", "note"), ("spark", "wrong")])
def test_what_is_wrong_with_connect_stands_in_the_way_of_fits_on_spark_alone(fit: str, state: str) -> None:
    good = Finding("Spark Connect", "ok", "127.0.0.1:1 answers")
    wrong = Finding("Spark Connect", "wrong", "Port 1 is in use.", "leave it")
    assert weighed(good, experiment(fit)) == good
    assert weighed(wrong, experiment(fit)).state == state
    assert weighed(wrong, experiment(fit)).said.startswith("Port 1 is in use.")
    assert weighed(wrong, experiment("auto", classifier="RandomForest")).state == "wrong"
