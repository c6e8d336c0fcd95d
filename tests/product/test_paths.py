"""The paths and names that are written into files, settings and MLflow, where no import follows a move.

What a search wrote yesterday must be read tomorrow: whoever changes a name of the first part raises
`tuner.models.format.FORMAT`, or lets what was written before be read as well.
"""

import importlib.util
import json
import pkgutil
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
import pytest
from mlflow.models import Model
from ruamel.yaml import YAML

from tests.conftest import FinishedSearch
from tests.helpers.searches import tracking
from tests.helpers.wheels import build_wheel
from tuner.networks.embedded.files import NETWORK_FILES
from tuner.networks.table import NETWORKS
from tuner.spark.settings import settings
from tuner.spark.worker_daemon import FOR_EXTRACTION, FOR_TRIALS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


# What a search writes ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(finished_search: FinishedSearch) -> Path:
    """The folder of the winner's model."""
    with tracking(finished_search.store):
        return Path(mlflow.artifacts.download_artifacts("models:/letters@champion"))


def test_a_saved_pipeline_names_the_classes_of_its_python_stages(model: Path) -> None:
    parts = model.glob("sparkml/stages/*/metadata/part-*")
    written = {json.loads(part.read_text(encoding="utf-8"))["class"] for part in parts}
    ours = {"tuner.models.featurizer.DeepImageFeaturizer", "tuner.models.class_names.ClassNames"}
    assert written == {*ours, "org.apache.spark.ml.classification.LogisticRegressionModel"}
    for name in ours:
        found = pkgutil.resolve_name(name)
        assert f"{found.__module__}.{found.__qualname__}" == name


def test_a_classifier_of_scikit_learn_is_saved_under_a_class_that_is_there() -> None:
    name = "tuner.models.fitted.sklearn_model.SklearnModel"
    found = pkgutil.resolve_name(name)
    assert f"{found.__module__}.{found.__qualname__}" == name


def test_a_logged_model_names_its_loader_and_its_parts(model: Path) -> None:
    flavors = Model.load(model).flavors
    assert set(flavors) == {"spark", "python_function", "tuner"}
    assert flavors["python_function"]["loader_module"] == "tuner.models.scorer"
    assert callable(pkgutil.resolve_name("tuner.models.scorer:_load_pyfunc"))
    assert flavors["spark"]["model_data"] == "sparkml"
    assert flavors["tuner"]["data"] == "scorer"
    assert {file.name for file in (model / "scorer").iterdir()} == {"head.npz", "scorer.json"}


def named(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.startswith("tuner.")}


def test_runs_and_versions_bear_the_tags_that_later_searches_look_for(
    finished_search: FinishedSearch,
) -> None:
    versions = {f"tuner.{library}_version" for library in ("pyspark", "tensorflow", "keras")}
    parent = named(finished_search.parent().data.tags)
    assert parent - versions == {
        "tuner.kind",
        "tuner.best_trial",
        "tuner.data_digest",
        "tuner.experiment",
        "tuner.heartbeat",
    }
    assert named(finished_search.trials()[0].data.tags) == {"tuner.kind", "tuner.trial"}
    (version,) = finished_search.client().search_model_versions("name = 'letters'", max_results=1)
    moves = {f"tuner.promotion.{word}" for word in ("to", "at", "why")}
    lineage = {"tuner.search_run_id", "tuner.trial_run_id", "tuner.data_digest"}
    assert named(version.tags) == {*lineage, *moves}


# What starts by its name ---------------------------------------------------------------------------


def test_the_commands_start_what_is_there() -> None:
    assert PROJECT["scripts"] == {"tuner": "tuner.__main__:main"}
    assert callable(pkgutil.resolve_name(PROJECT["scripts"]["tuner"]))
    entries = YAML(typ="safe").load(ROOT / "MLproject")["entry_points"]
    assert {tuple(entry["command"].split()[:3]) for entry in entries.values()} == {
        ("python", "-m", "tuner")
    }
    assert is_module("tuner.__main__")


def test_spark_starts_a_daemon_that_is_there() -> None:
    assert settings("local[2]")["spark.python.daemon.module"] == "tuner.spark.worker_daemon"
    assert callable(pkgutil.resolve_name("tuner.spark.worker_daemon:main"))


@pytest.mark.parametrize("name", [*FOR_TRIALS, *FOR_EXTRACTION])
def test_what_workers_import_ahead_is_there(name: str) -> None:
    assert callable(pkgutil.resolve_name(name)) if ":" in name else is_module(name)


def test_spark_s_log_settings_are_there() -> None:
    options = settings("local[2]")["spark.driver.extraJavaOptions"].split()
    (uri,) = [option.partition("=")[2] for option in options if "log4j2.configurationFile" in option]
    file = Path(unquote(urlsplit(uri).path))  # the project's folder may be called `my projects #1 é`
    assert file.is_relative_to(ROOT / "tuner" / "spark")
    assert "rootLogger" in file.read_text(encoding="utf-8")


def test_the_table_of_networks_names_modules_that_are_there() -> None:
    ours = {row.module for row in NETWORKS.values() if row.module.startswith("tuner.")}
    embedded = {f"tuner.networks.embedded.{name.lower()}" for name in NETWORK_FILES}
    assert ours == {"tuner.networks.efficientnet_lite", *embedded}
    assert all(map(is_module, ours))


# What is installed ---------------------------------------------------------------------------------


def test_the_wheel_holds_the_package_with_its_data(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entries,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "tuner = tuner.__main__:main" in archive.read(entries).decode()
    here = (file for file in (ROOT / "tuner").rglob("*") if file.is_file() and file.suffix != ".pyc")
    examples = {f"tuner/examples/{file.name}" for file in (ROOT / "experiments").glob("*.yaml")}
    assert packed == {file.relative_to(ROOT).as_posix() for file in here} | examples
    assert len(examples) > 3
    networks = {file.relative_to(ROOT).as_posix() for file in NETWORK_FILES.values()}
    assert {"tuner/py.typed", "tuner/spark/log4j2.properties", *networks} < packed
