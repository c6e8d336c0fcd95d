"""A challenger and the champion, compared from a program; nothing moves."""

import shutil
from pathlib import Path

import mlflow
import pytest

import tuner
from tests.conftest import FinishedSearch
from tests.helpers.searches import aliases_of, tracking
from tests.registry.test_versions import log_model
from tuner.experiment.file import registry_of
from tuner.registry.promotion import register_copy
from tuner.registry.versions import RegisteredVersion, register_version
from tuner.tracking.store import open_registry


@pytest.mark.long
def test_a_challenger_is_compared_and_nothing_moves(
    finished_search: FinishedSearch, tmp_path: Path
) -> None:
    shutil.copy(finished_search.folder / "mlflow.db", tmp_path)
    with tracking(f"sqlite:///{tmp_path / 'mlflow.db'}"):
        with pytest.raises(tuner.InvalidInput, match="is the champion already"):
            tuner.compare("letters", version="1")
        store = open_registry()
        first = RegisteredVersion("letters", "1", "Staging", "champion")
        copy = register_copy(store, first, registry_of("letters", "champion", "Staging"))
        assert (copy.version, copy.alias) == ("2", "challenger")
        before = aliases_of(store.client(), "letters")
        found = tuner.compare("letters")
        assert (found.champion, found.challenger) == ("1", "2")
        assert found.comparison.gain == 0
        assert found.comparison.disagreements.empty
        assert found.reasons
        assert "version 2" in found._repr_html_()
        assert aliases_of(store.client(), "letters") == before == {"champion": 1, "challenger": 2}


def test_a_model_under_one_more_name_is_champion_then_challenger(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    with tracking(f"sqlite:///{tmp_path / 'mlflow.db'}"):
        store = open_registry()
        tags = {"backbone": "GlyphNet", "tuner.promotion.why": "it was the first"}
        register_version(store, log_model(), name="letters", tags=tags)
        source = RegisteredVersion("letters", "1", "Staging", "champion")
        place = registry_of("mine", "best", "Production")
        first, second = (register_copy(store, source, place) for _ in range(2))
        assert (first.name, first.version, first.alias, first.stage) == ("mine", "1", "best", "Production")
        assert (second.version, second.alias) == ("2", "challenger")
        copied = store.client().get_model_version("mine", "2")
        assert copied.tags == {"backbone": "GlyphNet"}  # the moves of the first name are not this one's
        assert copied.run_id == store.client().get_model_version("letters", "1").run_id
        assert mlflow.pyfunc.load_model("models:/mine@best").predict(["a"]) == ["a"]
        with pytest.raises(tuner.InvalidInput, match="refuses a copy of version 7 of letters"):
            register_copy(store, RegisteredVersion("letters", "7", "None", ""), place)


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with (
        tracking(f"sqlite:///{tmp_path / 'mlflow.db'}"),
        pytest.raises(tuner.InvalidInput, match="There is no registered model letters"),
    ):
        tuner.compare("letters")
