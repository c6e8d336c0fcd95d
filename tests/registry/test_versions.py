import os
import shutil
import socket
import sqlite3
import warnings
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.models.model import ModelInfo
from mlflow.pyfunc import PythonModel

from tuner.base.errors import ModelError, TrackingError
from tuner.registry.versions import (
    Move,
    describe_version,
    find_version,
    holder_of,
    list_versions,
    make_challenger,
    make_champion,
    register_version,
    roll_back,
)
from tuner.tracking.store import Tracking


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: MLflow takes seconds for its tables."""
    file = tmp_path_factory.mktemp("registry") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def tracking(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    store = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "0")
    store.client()
    return store


def forbid(tmp_path: Path, what: str) -> None:
    """Make the registry refuse one kind of change, as a server that fails half-way would."""
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute(f"CREATE TRIGGER refuse BEFORE {what} BEGIN SELECT RAISE(ABORT, 'no'); END")


def versions(tracking: Tracking, count: int, name: str = "letters") -> list[ModelVersion]:
    client = tracking.client()
    client.create_registered_model(name)
    return [client.create_model_version(name, "somewhere") for _ in range(count)]


def crown(tracking: Tracking, version: ModelVersion, stage: str = "Staging", **move: str):
    move = Move(**{"why": "better"} | move)
    return make_champion(tracking, version, alias="champion", stage=stage, move=move)


def standing(tracking: Tracking) -> dict[int, tuple[str | None, list[str]]]:
    """Each version's stage and aliases."""
    found = list_versions(tracking, "letters")
    return {int(version.version): (version.current_stage, version.aliases) for version in found}


def tags(tracking: Tracking, number: int) -> dict[str, str]:
    return tracking.client().get_model_version("letters", str(number)).tags


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


def test_champion_and_challenger_and_the_tags_of_the_moves(tracking: Tracking):
    first, second = versions(tracking, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert crown(tracking, first).uri == "models:/letters@champion"
        challenger = make_challenger(tracking, second, "a note")
        assert (challenger.uri, challenger.stage) == ("models:/letters@challenger", "None")
        assert standing(tracking) == {1: ("Staging", ["champion"]), 2: ("None", ["challenger"])}
        crown(tracking, second, by="someone", run_id="abc")
    assert standing(tracking) == {1: ("Archived", []), 2: ("Staging", ["champion"])}
    written = tags(tracking, 2)
    at = written.pop("tuner.promotion.at")
    assert at.endswith("+00:00")
    assert written == {
        "tuner.promotion.from": "1",
        "tuner.promotion.to": "2",
        "tuner.promotion.why": "better",
        "tuner.promotion.by": "someone",
        "tuner.promotion.run": "abc",
    }
    assert "tuner.promotion.from" not in tags(tracking, 1)


def test_a_second_promotion_forgets_who_forced_the_first(tracking: Tracking):
    first, second = versions(tracking, 2)
    crown(tracking, first, by="someone")
    crown(tracking, second)
    crown(tracking, tracking.client().get_model_version("letters", "1"))
    assert tags(tracking, 1)["tuner.promotion.from"] == "2"
    assert "tuner.promotion.by" not in tags(tracking, 1)


@pytest.mark.parametrize(("stage", "left"), [("None", "None"), ("Archived", "Archived")])
def test_a_stage_that_keeps_the_others(tracking: Tracking, stage: str, left: str):
    first, second = versions(tracking, 2)
    crown(tracking, first, stage)
    crown(tracking, second, stage)
    assert standing(tracking) == {1: (left, []), 2: (stage, ["champion"])}


def test_a_refused_stage_is_a_note_and_the_alias_moves(tracking: Tracking, tmp_path: Path):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    forbid(tmp_path, "UPDATE OF current_stage ON model_versions WHEN NEW.current_stage = 'Staging'")
    placed = crown(tracking, second)
    (note,) = placed.notes
    assert note.startswith("The registry refuses stages (")
    assert note.endswith("so the alias alone marks the version.")
    assert placed.stage == "None"
    assert standing(tracking) == {1: ("Staging", []), 2: ("None", ["champion"])}


@pytest.mark.parametrize(
    "refused",
    [
        "UPDATE ON registered_model_aliases WHEN NEW.version = 2",
        "DELETE ON registered_model_aliases",
        "INSERT ON model_version_tags WHEN NEW.key LIKE '%why'",
    ],
    ids=["the alias", "the end of the challenger's alias", "a tag"],
)
def test_a_move_that_fails_half_way_leaves_all_as_it_was(tracking: Tracking, tmp_path: Path, refused: str):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    make_challenger(tracking, second)
    before = standing(tracking), tags(tracking, 1), tags(tracking, 2)
    forbid(tmp_path, refused)
    with pytest.raises(TrackingError, match="does not move letters") as caught:
        crown(tracking, second)
    assert "\n" not in str(caught.value)
    assert (standing(tracking), tags(tracking, 1), tags(tracking, 2)) == before


def test_rollback_brings_back_the_champion_before_and_says_so_on_both(tracking: Tracking):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    crown(tracking, second, "Production")
    back = roll_back(tracking, "letters", alias="champion", why="wrong labels")
    assert (back.version, back.stage, back.notes) == ("1", "Production", ())
    assert standing(tracking) == {1: ("Production", ["champion"]), 2: ("Archived", [])}
    for number in (1, 2):
        written = {key: value for key, value in tags(tracking, number).items() if "rollback" in key}
        assert written.pop("tuner.rollback.at")
        assert written == {
            "tuner.rollback.from": "2",
            "tuner.rollback.to": "1",
            "tuner.rollback.why": "wrong labels",
        }
    with pytest.raises(ModelError, match="took the alias champion from no other version"):
        roll_back(tracking, "letters", alias="champion", why="again")


def test_rollback_that_fails_half_way_leaves_all_as_it_was(tracking: Tracking, tmp_path: Path):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    crown(tracking, second)
    before = standing(tracking), tags(tracking, 1), tags(tracking, 2)
    forbid(tmp_path, "UPDATE ON registered_model_aliases WHEN NEW.version = 1")
    with pytest.raises(TrackingError, match="does not move letters"):
        roll_back(tracking, "letters", alias="champion", why="")
    assert (standing(tracking), tags(tracking, 1), tags(tracking, 2)) == before


def test_rollback_to_a_deleted_version_is_a_sentence(tracking: Tracking):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    crown(tracking, second)
    tracking.client().delete_model_version("letters", "1")
    with pytest.raises(ModelError, match=r"has no version 1: it has 2 \(champion\)"):
        roll_back(tracking, "letters", alias="champion", why="")
    assert standing(tracking) == {2: ("Staging", ["champion"])}


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
    monkeypatch.setattr("tuner.tracking.store._CHECK_SECONDS", 1)
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
