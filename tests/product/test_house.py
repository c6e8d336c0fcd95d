"""The house: what its folders hold, and what import-linter, which reads imports alone, does not see."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tuner"
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({file.parent for file in MODULES})
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
# Functions of the Python API, now or soon: to import a module of that name would hide the function.
API_NAMES = {"search", "features", "spot_check", "load", "compare", "promote", "fine_tune", "learn"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != PACKAGE], ids=name_of)
def test_a_folder_s_init_is_one_sentence(folder: Path) -> None:
    """An import there would load pyspark or TensorFlow for everyone below."""
    body = ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body
    assert len(body) == 1
    sentence = ast.get_docstring(ast.Module(body, []))
    assert sentence is not None
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert ". " not in sentence


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_a_folder_has_nine_modules_at_most(folder: Path) -> None:
    assert len([file for file in folder.glob("*.py") if file.stem != "__init__"]) <= 9


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_a_module_says_its_role_in_its_first_line(file: Path) -> None:
    first, _, rest = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")
    assert first.endswith((".", ":"))
    assert not rest or rest.startswith("\n")


def test_no_module_hides_a_function_of_the_api() -> None:
    inside = {path.stem for path in PACKAGE.iterdir()}
    assert {"__init__", "cli", "trials"} <= inside
    assert not inside & API_NAMES


def test_the_tests_mirror_the_folders() -> None:
    tests = [file.relative_to(ROOT / "tests") for file in (ROOT / "tests").rglob("test_*.py")]
    mirrored = [test for test in tests if test.parts[0] != "product"]
    assert len(mirrored) > 20
    rooms = {test: PACKAGE / test.parent / test.stem.removeprefix("test_") for test in mirrored}
    astray = [
        test for test, room in rooms.items() if not (room.is_dir() or room.with_suffix(".py").is_file())
    ]
    assert astray == []


@pytest.mark.long
@pytest.mark.parametrize("contract", ["no-jvm", "no-mlflow"])
def test_what_must_not_be_imported_need_not_be_installed(contract: str) -> None:
    """Import-linter sees the package's own imports; a library may want the module, too."""
    (rule,) = [rule for rule in CONTRACTS["contracts"] if rule["id"] == contract]
    program = (
        "import importlib, pkgutil, sys\n"
        "sys.modules.update(dict.fromkeys(sys.argv[2].split(',')))  # None: as if they were not installed\n"
        "for name in sys.argv[1].split(','):\n"
        "    module = importlib.import_module(name)\n"
        "    for found in pkgutil.walk_packages(getattr(module, '__path__', []), name + '.'):\n"
        "        importlib.import_module(found.name)\n"
    )
    arguments = [",".join(rule[key]) for key in ("source_modules", "forbidden_modules")]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
