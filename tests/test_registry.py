import warnings
from pathlib import Path

import mlflow
import pytest
from mlflow.models.model import ModelInfo
from mlflow.pyfunc import PythonModel

from tuner.errors import TrackingError
from tuner.registry import _set_stage, register_winner
from tuner.tracking import Tracking


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    before = mlflow.get_tracking_uri()
    monkeypatch.chdir(tmp_path)
    store = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "0")
    store.client()
    yield store
    mlflow.set_tracking_uri(before)


class Echo(PythonModel):
    def predict(self, context: object, model_input: list[str]) -> list[str]:
        return model_input


def log_model() -> ModelInfo:
    with mlflow.start_run():
        return mlflow.pyfunc.log_model(name="model", python_model=Echo(), pip_requirements=[])


def register(tracking: Tracking, model: ModelInfo, **changes: str):
    given = {"name": "letters", "stage": "Staging", "alias": "champion", "description": "The best."}
    return register_winner(tracking, model, tags={"backbone": "GlyphNet"}, **given | changes)


def test_the_newest_version_has_stage_alias_description_tags_and_lineage(tracking: Tracking) -> None:
    client, model = tracking.client(), log_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        first = register(tracking, model)
        second = register(tracking, log_model())
    assert (first.version, second.version) == ("1", "2")
    assert first.notes == second.notes == ()
    assert second.uri == "models:/letters@champion"
    assert int(client.get_model_version_by_alias("letters", "champion").version) == 2
    old, new = (client.get_model_version("letters", number) for number in ("1", "2"))
    assert (old.current_stage, new.current_stage) == ("Archived", "Staging")
    assert old.run_id == model.run_id
    assert new.description == "The best."
    assert new.tags == {"backbone": "GlyphNet"}
    assert mlflow.pyfunc.load_model(second.uri).predict(["a"]) == ["a"]


def test_a_stage_that_keeps_the_others(tracking: Tracking) -> None:
    model = log_model()
    assert register(tracking, model, stage="None").notes == ()
    assert register(tracking, model, stage="Archived").notes == ()
    versions = tracking.client().search_model_versions("name = 'letters'")
    stages = {int(version.version): version.current_stage for version in versions}
    assert stages == {1: "None", 2: "Archived"}


def test_a_refused_stage_is_a_note_and_the_version_stands(tracking: Tracking) -> None:
    version = register(tracking, log_model(), stage="Shelf")
    (note,) = version.notes
    assert note.startswith("The registry refuses stages (Invalid Model Version stage: Shelf")
    assert note.endswith("so the alias alone marks the version.")
    assert version.stage == "None"
    assert int(tracking.client().get_model_version_by_alias("letters", "champion").version) == 1
    assert _set_stage(tracking, "letters", "1", "Staging") is None


def test_a_registry_that_refuses_the_version_is_a_sentence(tracking: Tracking) -> None:
    with pytest.raises(TrackingError, match=r"The model registry refuses a version of a/b: .*name"):
        register(tracking, log_model(), name="a/b")
