from pathlib import Path

import pytest

from tests.conftest import FinishedSearch
from tests.helpers.searches import tracking
from tuner.base.errors import NetworkError
from tuner.base.files import file_digest
from tuner.networks.store import NetworkStore
from tuner.tracking.names import NETWORKS_FOLDER

STORE = Path(".tuner") / "networks"

DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stored(text: str) -> Path:
    STORE.mkdir(parents=True)
    file = STORE / f"{DIGEST}.keras"
    file.write_text(text)
    return file


def test_the_carried_file_comes_first_then_the_stored_one(here: Path) -> None:
    file, carried = stored("stored"), here / "carried.keras"
    assert NetworkStore().locate("VGG16", DIGEST, carried, None) == file
    carried.write_text("carried")
    assert NetworkStore().locate("VGG16", DIGEST, carried, None) == carried


def test_a_network_in_mlflow_is_fetched_once_and_stored(finished_search: FinishedSearch) -> None:
    run_id = finished_search.parent().info.run_id
    kept, *_ = finished_search.client().list_artifacts(run_id, NETWORKS_FOLDER)
    file = Path(kept.path)
    with tracking(finished_search.store):
        found = NetworkStore().locate("GlyphNet", file.stem, None, f"runs:/{run_id}/{kept.path}")
    assert found == STORE / file.name
    assert file_digest(found) == file.stem
    assert list(STORE.iterdir()) == [found]
    assert NetworkStore().locate("GlyphNet", file.stem, None, "runs:/gone/networks/x") == found


def test_a_network_that_is_nowhere_is_a_sentence(here: Path, finished_search: FinishedSearch) -> None:
    with pytest.raises(NetworkError, match=rf"The network VGG16 \(digest {DIGEST[:12]}\) is neither in"):
        NetworkStore().locate("VGG16", DIGEST, here / "none.keras", None)
    with (
        tracking(finished_search.store),
        pytest.raises(NetworkError, match=r"The network VGG16 cannot be fetched from runs:/.*TRACKING_URI"),
    ):
        NetworkStore().locate("VGG16", DIGEST, None, f"runs:/{'0' * 32}/networks/x.keras")
    assert list(STORE.iterdir()) == []
