"""The whole examination, as a search's user starts it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.searches import free_port
from tuner.doctor.examination import examine
from tuner.experiment.schema import Experiment

EXPERIMENT = Experiment.model_validate({"name": "e", "images": "a", "search": {"backbone": "GlyphNet"}})


def doctor(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.run(
        [sys.executable, "-m", "tuner", "doctor", *arguments],
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def wrong(output: str) -> list[str]:
    return [line.split(" WRONG ")[0].strip() for line in output.splitlines() if " WRONG " in line]


def test_three_things_that_are_broken_are_all_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    broken = EXPERIMENT.model_copy(update={"cache": Path("/proc/nowhere")})
    found = list(examine(broken, quick=True))
    wrongs = {finding.about: finding for finding in found if finding.state == "wrong"}
    assert set(wrongs) == {"Java", "MLflow store", "MLflow registry", "cache", "images"}
    assert all(finding.type for finding in wrongs.values() if finding.about != "images")
    assert {finding.about for finding in found if finding.state == "left out"} == {"TensorFlow"}
    assert list(tmp_path.iterdir()) == []


def test_what_is_passed_over_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    found = list(examine(EXPERIMENT, quick=True))
    notes = [finding.said for finding in found if finding.about == "variables"]
    assert any("there is no bin/java: the Java in PATH is taken" in note for note in notes)
    assert capsys.readouterr().err == ""


@pytest.mark.long
def test_where_a_search_would_run_the_doctor_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert wrong(done.stdout) == []
    for about in ("Java", "Spark", "workers", "Spark Connect", "TensorFlow", "MLflow store", "cache"):
        assert f"{about:<15}  ok" in done.stdout
    assert "The search digits would run here." in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_where_it_would_not_the_doctor_says_what_is_wrong(tmp_path: Path) -> None:
    environment = {"JAVA_TOOL_OPTIONS": "-Xmx1z", "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"}
    (tmp_path / "e.yaml").write_text(
        "name: e\nimages: a\ncache: /proc/nowhere\nsearch: {backbone: GlyphNet}\n"
    )
    done = doctor(tmp_path, "--experiment", "e.yaml", **environment)
    assert done.returncode == 1
    assert wrong(done.stdout) == ["MLflow store", "MLflow registry", "cache", "images", "Spark"]
    assert "Xmx1z" in done.stdout
    assert "Traceback" not in done.stderr
    assert done.stdout.count("type: ") >= 3
