"""What stands around the package: its files agree with the code and with one another."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

from tuner.experiment.file import LEARN_OVERRIDES, OVERRIDES, read_experiment

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [file.read_text(encoding="utf-8") for file in (ROOT / "docs").rglob("*.md")]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
ENTRY_POINTS = YAML(typ="safe").load(ROOT / "MLproject")["entry_points"]


# Experiments


def test_the_experiments_are_there() -> None:
    names = {"bengali_digits", "digits", "flowers17", "football"}
    assert {path.stem for path in EXPERIMENTS} == names


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_is_valid_and_says_its_source(path: Path) -> None:
    assert read_experiment(path).name == path.stem
    assert "# Source" in path.read_text(encoding="utf-8")


# MLproject


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_types_and_passes_every_parameter(name: str) -> None:
    entry = ENTRY_POINTS[name]
    for parameter in entry["parameters"].values():
        assert parameter["type"] == "string"
        assert isinstance(parameter["default"], str)
    passed = re.findall(r"--(\w+) \{(\w+)\}", entry["command"])
    assert passed == [(parameter, parameter) for parameter in entry["parameters"]]


def test_the_search_takes_the_experiment_and_every_override() -> None:
    parameters = ENTRY_POINTS["main"]["parameters"]
    assert set(parameters) == {"experiment", "resume", *OVERRIDES}
    assert set(ENTRY_POINTS["features"]["parameters"]) - {"export"} < set(parameters)


def test_learning_takes_the_experiment_and_every_override_of_its_own() -> None:
    assert set(ENTRY_POINTS["learn"]["parameters"]) == {"experiment", "resume", *LEARN_OVERRIDES}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_command_line_takes_what_an_entry_point_passes(name: str) -> None:
    subcommand = ENTRY_POINTS[name]["command"].split()[3]
    done = subprocess.run(
        [sys.executable, "-m", "tuner", subcommand, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert set(ENTRY_POINTS[name]["parameters"]) <= set(re.findall(r"--(\w+)", done.stdout))


@pytest.mark.long
def test_mlflow_hands_values_over_as_they_were_given(tmp_path: Path) -> None:
    """Empty values, spaces, quotes and other alphabets come through MLflow's shell."""
    shutil.copy(ROOT / "MLproject", tmp_path)
    shutil.copy(ROOT / "python_env.yaml", tmp_path)
    (tmp_path / "tuner").mkdir()
    (tmp_path / "tuner" / "__main__.py").write_text(
        "import json, sys; json.dump(sys.argv[1:], open('given.json', 'w'))"
    )
    images = "/photos of '24/ফুল $HOME"
    command = [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local"]
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [*command, "-P", f"images={images}", "-P", "regParam=1e-4:1:log"],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": binaries, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/db"},
    )
    given = json.loads((tmp_path / "given.json").read_text())
    options = dict(zip(given[1::2], given[2::2], strict=True))
    assert given[0] == "search"
    assert options.pop("--images") == images
    assert options.pop("--regParam") == "1e-4:1:log"
    assert set(options.values()) == {""}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], ["--experiment-name", "digits"]),
        (["-P", "experiment=experiments/football.yaml", "-P", "seed=1"], ["--experiment-name", "football"]),
        (["-P", "experiment={folder}/own.yaml"], ["--experiment-name", "my own"]),
        (["-P", "experiment=nothing.yaml"], []),  # tuner says what is wrong
        (["--experiment-name", "other"], []),
        (["-P", "resume=last"], []),
        (["-e", "evaluate"], []),
    ],
)
def test_make_search_names_the_experiment_unless_it_is_named(
    tmp_path: Path, arguments: list[str], named: list[str]
) -> None:
    (tmp_path / "own.yaml").write_text("name: my own\n")
    (tmp_path / "mlflow").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "mlflow").chmod(0o755)
    given = [argument.format(folder=tmp_path) for argument in arguments]
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        [ROOT / "scripts" / "search.sh", *given],
        env=environment | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["run", ".", "--env-manager", "local", *named, *given]


# Checks


def make_prints(*arguments: str) -> list[str]:
    """The commands that make would run."""
    done = subprocess.run(
        ["make", "--dry-run", *arguments], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return done.stdout.replace("\\\n", " ").splitlines()


def test_the_hooks_run_what_make_check_runs() -> None:
    """On what changed: what takes files gets those, and what looks at the whole runs if a part changed."""
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config"], cwd=ROOT, check=True)
    (local,) = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    hooks = {hook["entry"].removesuffix(" --force-exclude"): hook for hook in local["hooks"]}
    (check,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    checked = [line.strip().lstrip("@").removesuffix(" .") for line in check.splitlines()]
    assert [entry.replace(".venv/bin", "$(BIN)") for entry in hooks] == checked
    for entry, hook in hooks.items():
        whole = "ruff" not in entry
        assert hook.get("pass_filenames", True) is not whole
        if whole:
            assert re.search(hook["files"], "tuner/base/errors.py")
            assert re.search(hook["files"], "pyproject.toml")


@pytest.mark.parametrize(
    ("part", "options"), [("2/4", "--splits 4 --group 2"), ("", "--splits 1 --group 1")]
)
def test_make_runs_the_part_of_the_long_tests_that_is_asked_for(part: str, options: str) -> None:
    (line,) = [
        line for line in make_prints("test-long", *([f"PART={part}"] if part else [])) if "pytest" in line
    ]
    assert "-m long" in line
    assert options in line


@pytest.mark.long
def test_all_parts_together_are_all_long_tests() -> None:
    def collected(*options: str) -> list[str]:
        command = [sys.executable, "-m", "pytest", "-m", "long", "--collect-only", "--quiet", *options]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return re.findall(r"^tests/.*::.*$", listed, re.MULTILINE)

    parts = [collected("--splits", "4", "--group", str(group)) for group in range(1, 5)]
    assert all(parts)
    assert sorted(test for part in parts for test in part) == sorted(collected())


# README and CONTRIBUTING


def test_every_make_command_that_is_written_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert {"search", "test"} <= set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets
    written = re.findall(r"(?:^|`)make ([a-z-]+)", "\n".join([CONTRIBUTING, *PAGES]), re.MULTILINE)
    assert set(written) <= targets


# Dependencies


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(requirement.name): Version(str(requirement.specifier).removeprefix("=="))
        for requirement in requirements
    }


@pytest.mark.parametrize(
    ("lock", "stated"),
    [
        ("requirements.lock", PYPROJECT["dependencies"]),
        ("requirements-dev.lock", PYPROJECT["dependencies"]),
        ("requirements-dev.lock", PYPROJECT["optional-dependencies"]["dev"]),
        ("requirements-dev.lock", PYPROJECT["optional-dependencies"]["docs"]),
    ],
    ids=["requirements", "dev-requirements", "dev-tools", "docs"],
)
def test_a_lock_file_fits_pyproject(lock: str, stated: list[str]) -> None:
    locked = pins(lock)
    for requirement in map(Requirement, stated):
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier


def test_both_lock_files_agree() -> None:
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


def test_mlflow_environment_is_the_locked_one() -> None:
    environment = YAML(typ="safe").load(ROOT / "python_env.yaml")
    assert environment["dependencies"] == ["-r requirements.lock"]
    assert environment["python"] in Requirement(f"python{PYPROJECT['requires-python']}").specifier


# Java


@pytest.mark.parametrize(
    ("version", "enough"), [("1.8.0_392", False), ("11.0.2", False), ("17.0.9", True), ("25-ea", True)]
)
def test_setup_tells_an_old_java(tmp_path: Path, version: str, enough: bool) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-01' >&2\n")
    java.chmod(0o755)
    done = subprocess.run(
        [ROOT / "scripts" / "ensure_java.sh"],
        capture_output=True,
        text=True,
        env={**os.environ, "JAVA_HOME": str(tmp_path)},
    )
    assert done.returncode == (0 if enough else 1)
    assert done.stderr.count("\n") == (0 if enough else 1)
    assert enough or str(tmp_path) in done.stderr
