import socket
import threading

import mlflow
import pytest
from mlflow.models.model import ModelInfo
from mlflow.pyfunc import PythonModel

from tests.helpers.registries import crown, standing, versions
from tests.helpers.searches import TrackingServer
from tuner.base.errors import ModelError, TrackingError
from tuner.registry.versions import (
    describe_version,
    find_version,
    holder_of,
    list_versions,
    register_version,
)
from tuner.tracking.store import Tracking


class Echo(PythonModel):
    def predict(self, context: object, model_input: list[str]) -> list[str]:
        return model_input


def log_model() -> ModelInfo:
    with mlflow.start_run():
        return mlflow.pyfunc.log_model(name="model", python_model=Echo(), pip_requirements=[])


def test_a_logged_model_becomes_a_version_with_lineage_tags_and_description(tracking: Tracking):
    model = log_model()
    created = register_version(tracking, model, name="letters", tags={"backbone": "GlyphNet"})
    describe_version(tracking, created, "The best.")
    version = tracking.client().get_model_version("letters", "1")
    assert (version.run_id, version.tags, version.description) == (
        model.run_id,
        {"backbone": "GlyphNet"},
        "The best.",
    )
    assert standing(tracking) == {1: ("None", [])}
    crown(tracking, created)
    assert mlflow.pyfunc.load_model("models:/letters@champion").predict(["a"]) == ["a"]


def test_a_version_that_the_registry_refuses_is_a_sentence(tracking: Tracking):
    with pytest.raises(TrackingError, match=r"The model registry refuses a version of a/b: .*name"):
        register_version(tracking, log_model(), name="a/b", tags={})


def test_what_is_not_there_is_said_with_what_is(tracking: Tracking):
    with pytest.raises(ModelError, match="no registered model letters: the registry is empty"):
        find_version(tracking, "letters", "1")
    assert holder_of(tracking, "letters", "champion") is None
    first, _ = versions(tracking, 2)
    crown(tracking, first)
    versions(tracking, 0, "it's")
    assert (
        find_version(tracking, "letters", "champion").version
        == find_version(tracking, "letters", "1").version
    )
    assert holder_of(tracking, "letters", "challenger") is None
    for reference, kind in (("3", "version"), ("best", "alias")):
        with pytest.raises(ModelError, match=rf"has no {kind} {reference}: it has 2, 1 \(champion\)\."):
            find_version(tracking, "letters", reference)
    with pytest.raises(ModelError, match="no registered model digits: there are it's, letters"):
        find_version(tracking, "digits", "1")
    with pytest.raises(ModelError, match="it has no versions"):
        find_version(tracking, "it's", "1")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("listening", [False, True])
def test_a_registry_that_does_not_answer_is_one_sentence(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch, listening: bool
):
    monkeypatch.setattr("tuner.tracking.answering._CHECK_SECONDS", 1)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"http://user:secret@127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(
            TrackingError, match=r"The model registry cannot be read: .*MLFLOW_REGISTRY_URI"
        ) as caught:
            holder_of(tracking, "letters", "champion")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_a_registry_that_is_started_again_is_waited_for(server: TrackingServer):
    """At the end of a search each request waits for it, about a minute."""
    away = Tracking(server.uri, "0")
    first, second = versions(away, 2)
    crown(away, first)
    server.stop()
    back = threading.Timer(20, server.start)
    back.start()
    placed = crown(away, second)
    back.join()
    assert (placed.version, placed.notes) == ("2", ())
    server.stop()
    back = threading.Timer(20, server.start)
    back.start()
    describe_version(away, second, "The best.")
    back.join()
    assert away.client().get_model_version("letters", "2").description == "The best."


def test_every_page_of_a_large_registry_is_read(tracking: Tracking, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tuner.registry.versions._PAGE", 2)
    versions(tracking, 3, "one")
    versions(tracking, 2, 'it\'s "two"')
    found = [(version.name, int(version.version)) for version in list_versions(tracking)]
    assert found == [('it\'s "two"', 2), ('it\'s "two"', 1), ("one", 3), ("one", 2), ("one", 1)]
