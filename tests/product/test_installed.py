"""The wheel in an environment of its own: what a user has who installed tuner, and has no clone of it."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.helpers.searches import aliases_of
from tests.helpers.wheels import build_wheel

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `tuner` of an environment that has the wheel, and borrows all else from this one."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = build_wheel(folder)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    (own,) = (folder / "venv" / "lib").glob("*/site-packages")
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    return python.with_name("tuner")


def run(program: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    left_out = ("MLFLOW_", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


def test_without_a_clone_the_default_search_runs(program: Path, tmp_path: Path) -> None:
    done = run(program, tmp_path, "search", "--max_evals", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(program.parents[1]) in done.stdout.splitlines()[0]
    assert "which comes with tuner" in done.stdout.splitlines()[0]
    assert aliases_of(MlflowClient(f"sqlite:///{tmp_path}/mlflow.db"), "digits") == {"champion": 1}


def test_without_a_clone_the_examples_are_there(program: Path, tmp_path: Path) -> None:
    listed = run(program, tmp_path, "new", "--example")
    assert listed.returncode == 0, listed.stderr
    assert {line.split()[0] for line in listed.stdout.splitlines()} >= {"digits", "football", "flowers17"}
    assert run(program, tmp_path, "new", "--example", "football").returncode == 0
    assert (tmp_path / "football.yaml").exists()
