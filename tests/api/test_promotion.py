"""A challenger and the champion, compared from a program; nothing moves."""

import shutil
from pathlib import Path

import pytest

import tuner
from tests.conftest import FinishedSearch
from tests.helpers.searches import aliases_of, tracking
from tuner.experiment.file import registry_of
from tuner.registry.promotion import register_copy
from tuner.registry.versions import RegisteredVersion
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


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with (
        tracking(f"sqlite:///{tmp_path / 'mlflow.db'}"),
        pytest.raises(tuner.InvalidInput, match="There is no registered model letters"),
    ):
        tuner.compare("letters")
