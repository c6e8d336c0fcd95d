"""Names of models: each that an experiment may have is found again in MLflow by every way to ask for it."""

from pathlib import Path

import mlflow
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from tests.helpers.searches import tracking as using
from tuner.experiment.schema import Experiment
from tuner.registry.versions import find_version, holder_of, list_versions
from tuner.tracking.store import Tracking


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    (folder / "model").mkdir()
    (folder / "model" / "MLmodel").write_text("flavors: {tuner: {}}\nmodel_uuid: a\n")
    return folder


def is_taken(name: str) -> bool:
    try:
        Experiment.model_validate({"name": name, "images": "a", "search": {"backbone": "GlyphNet"}})
    except ValueError:
        return False
    return True


signs = st.text("ab?#%@/:\\'\" .;&=+,()[]{}*$!~|^`<>-_\t\n\u0085\u2028\u202eé😀", min_size=1, max_size=6)


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=signs | st.text(min_size=1, max_size=6))
@example("100%25")
@example("it's")
@example("a" * 200)
def test_a_name_that_is_taken_is_found_again(folder: Path, name: str) -> None:
    assume(is_taken(name))
    store = Tracking(f"sqlite:///{folder / 'mlflow.db'}", "0")
    client = store.client()
    if all(model.name != name for model in client.search_registered_models()):
        client.create_registered_model(name)
    made = client.create_model_version(name, str(folder / "model"))
    client.set_registered_model_alias(name, "champion", made.version)
    with using(store.uri):
        for uri in (f"models:/{name}/{made.version}", f"models:/{name}@champion"):
            assert mlflow.models.get_model_info(uri).flavors == {"tuner": {}}
    assert find_version(store, name, "champion").version == made.version
    assert holder_of(store, name, "champion").name == name
    assert name in {version.name for version in list_versions(store)}


def test_a_model_with_a_name_that_breaks_filters_leaves_the_others_listed(tmp_path: Path) -> None:
    """Another tool may have registered it."""
    store = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "0")
    client = MlflowClient(store.uri)
    names = ["plain", 'it\'s "both"', "a?b#c", "line\nend", "%", " "]
    for name in names[:-1]:
        client.create_registered_model(name)
        client.create_model_version(name, "somewhere")
    assert {version.name for version in list_versions(store)} == set(names[:-1])
    for name in names[:-1]:
        assert [version.name for version in list_versions(store, name)] == [name]
        assert find_version(store, name, "1").name == name
