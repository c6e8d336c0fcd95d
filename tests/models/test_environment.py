"""What a model is served with."""

import ast
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import tuner
from tuner.models.environment import WHEELS, requirements, wheel_of, write_environment


def test_tuner_is_named_by_the_path_of_its_wheel(tmp_path: Path) -> None:
    write_environment(tmp_path, requirements())
    (wheel,) = (tmp_path / WHEELS).iterdir()
    *pinned, last = (tmp_path / "requirements.txt").read_text().splitlines()
    assert last == f"wheels/{wheel.name}"
    assert pinned == requirements()
    assert not [line for line in pinned if "tuner" in line or "==" not in line]
    conda = YAML(typ="safe").load(tmp_path / "conda.yaml")
    assert conda["dependencies"][-1] == {"pip": [*pinned, last]}


def test_written_again_it_keeps_its_wheel(tmp_path: Path) -> None:
    write_environment(tmp_path, requirements())
    wheel = wheel_of(tmp_path)
    assert wheel is not None
    written = wheel.stat().st_mtime_ns
    write_environment(tmp_path, requirements(onnx=True))
    assert wheel_of(tmp_path) == wheel
    assert wheel.stat().st_mtime_ns == written
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    assert lines == [*requirements(onnx=True), f"wheels/{wheel.name}"]


def test_the_wheel_holds_all_of_tuner_that_serving_imports(tmp_path: Path) -> None:
    write_environment(tmp_path, requirements())
    wheel = wheel_of(tmp_path)
    assert wheel is not None
    needed: set[str] = set()
    imported("tuner.models.scorer", needed)
    held = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.endswith(".py")
    }
    assert {"tuner.networks.onnx.session", "tuner.classifiers.table"} <= needed
    assert sorted(needed - held) == []
    assert not [name for name in held if name.startswith(("tuner.spark", "tuner.searches"))]
    assert wheel.stat().st_size < 200_000  # each trial's model has one


def imported(module: str, seen: set[str]) -> set[str]:
    """The top-level names that a module of the package imports, with those of the package it needs."""
    if module in seen:
        return set()
    seen.add(module)
    source = Path(tuner.__file__).parent.joinpath(*module.split(".")[1:])
    file = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    own = {name for name in names if name.startswith("tuner.")}
    return {name.split(".")[0] for name in names} | {
        name for inner in own for name in imported(inner, seen)
    }


@pytest.mark.parametrize(
    ("onnx", "other_engine"),
    [(False, {"onnxruntime"}), (True, {"tensorflow", "keras", "h5py"})],
    ids=["TensorFlow", "ONNX"],
)
def test_the_requirements_hold_all_that_serving_imports(onnx: bool, other_engine: set[str]) -> None:
    """`tests/product/test_onnx.py` hides the other engine."""
    names = imported("tuner.models.scorer", set())
    assert {"mlflow", "keras", "pydantic", "PIL", "onnxruntime"} <= names
    assert "pyspark" not in names
    names -= other_engine
    stated = {line.split("==")[0].lower() for line in requirements(onnx=onnx)}
    providers = {
        name: {provider.lower() for provider in them} for name, them in packages_distributions().items()
    }
    missing = {name for name in names - {"tuner"} if name in providers and not providers[name] & stated}
    assert missing == set()
