import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import tuner
from tuner.cli import startup

ROOT = Path(startup.__file__).parents[2]


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)} | environment,
        timeout=120,
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
        {"LC_ALL": "C"},
        {"PYTHONIOENCODING": "utf-8"},
    ],
)
def test_any_text_can_be_written_whatever_the_output_s_encoding(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    script = (
        "from tuner.cli.startup import prepare_process; prepare_process()\n"
        "from rich.console import Console\n"
        "text = 'digits · → ñ ফুল 😀 caf\\udce9'\n"
        "Console().print(text); Console(stderr=True).print(text)\n"
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    done = run("script.py", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    for written in (done.stdout, done.stderr):
        assert written.startswith(b"digits ")
        assert written.rstrip().endswith(rb"caf\udce9")


def test_a_sentence_with_any_name_is_one_line(tmp_path: Path) -> None:
    done = run(
        *("-m", "tuner", "search", "--experiment", "no\nsuch \x1b[31mñ.yaml"),
        cwd=tmp_path,
        PYTHONIOENCODING="ascii",
    )
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        == rb"tuner: There is no experiment file no\nsuch \x1b[31m\xf1.yaml: check the path."
    )


@pytest.fixture
def other_spark(tmp_path: Path) -> Path:
    """The Python folder of another version, as profiles put it into `PYTHONPATH`."""
    for name in ("pyspark", "py4j"):
        (tmp_path / "spark/python" / name).mkdir(parents=True)
        (tmp_path / "spark/python" / name / "__init__.py").write_text("raise ImportError('another Spark')")
    return tmp_path / "spark/python"


def test_another_spark_in_the_path_of_python_is_left_out(tmp_path: Path, other_spark: Path) -> None:
    script = (
        "from tuner.cli.startup import prepare_process; prepare_process()\n"
        "import json, os, subprocess, sys, pyspark\n"
        "print(json.dumps([pyspark.__file__, os.environ['PYTHONPATH']]))\n"
        "subprocess.run([sys.executable, '-c', 'import pyspark, tuner'], check=True)\n"
    )
    paths = f"{other_spark}{os.pathsep}{ROOT}{os.pathsep}{tmp_path}"
    done = run("-c", script, cwd=tmp_path, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    file, left = json.loads(done.stdout)
    assert str(other_spark) not in file
    assert left == f"{ROOT}{os.pathsep}{tmp_path}"
    assert done.stderr.decode().strip() == (
        f"PYTHONPATH leads to another Spark, which is left out: {other_spark}."
    )


def test_what_is_installed_is_no_other_spark(tmp_path: Path) -> None:
    site = next(entry for entry in sys.path if Path(entry, "pyspark").is_dir())
    done = run("-m", "tuner", "--help", cwd=tmp_path, PYTHONPATH=f"{ROOT}{os.pathsep}{site}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert "search" in tuner(tmp_path, "--help").stdout
