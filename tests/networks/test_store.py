from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import FinishedSearch
from tests.helpers.searches import tracking
from tuner.base.errors import NetworkError
from tuner.base.files import file_digest
from tuner.networks.store import NetworkStore, Tuned, is_tuned
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
    assert NetworkStore().locate("VGG16", DIGEST, carried, None, None) == file
    carried.write_text("carried")
    assert NetworkStore().locate("VGG16", DIGEST, carried, None, None) == carried


def test_a_network_in_mlflow_is_fetched_once_and_stored(finished_search: FinishedSearch) -> None:
    run_id = finished_search.parent().info.run_id
    kept, *_ = finished_search.client().list_artifacts(run_id, NETWORKS_FOLDER)
    file = Path(kept.path)
    uri = f"runs:/{run_id}/{kept.path}"
    with tracking(finished_search.store):  # an embedded network is called after its file's own digest
        found = NetworkStore().locate("GlyphNet", file.stem, None, uri, file.stem)
    assert found == STORE / file.name
    assert file_digest(found) == file.stem
    assert list(STORE.iterdir()) == [found]
    assert NetworkStore().locate("GlyphNet", file.stem, None, "runs:/gone/networks/x", None) == found


def test_a_network_that_is_nowhere_is_a_sentence(here: Path, finished_search: FinishedSearch) -> None:
    with pytest.raises(NetworkError, match=rf"The network VGG16 \(digest {DIGEST[:12]}\) is neither in"):
        NetworkStore().locate("VGG16", DIGEST, here / "none.keras", None, None)
    with (
        tracking(finished_search.store),
        pytest.raises(NetworkError, match=r"The network VGG16 cannot be fetched from runs:/.*TRACKING_URI"),
    ):
        NetworkStore().locate("VGG16", DIGEST, None, f"runs:/{'0' * 32}/networks/x.keras", "0" * 64)
    assert list(STORE.iterdir()) == []


@pytest.mark.parametrize("sha256", ["0" * 64, None])
@pytest.mark.parametrize("name", [f"{DIGEST}.keras", f"{'cd' * 32}.keras", "other.zip", "folder"])
def test_what_was_fetched_and_is_not_the_network_is_neither_stored_nor_used(
    here: Path, name: str, sha256: str | None
) -> None:
    source = here / "elsewhere" / name
    source.parent.mkdir()
    if name == "folder":
        source.mkdir()
    else:
        source.write_text("another network")
    with pytest.raises(NetworkError, match=r"is not the network VGG16 .*: it is not used"):
        NetworkStore().locate("VGG16", DIGEST, None, str(source), sha256)
    assert list(STORE.iterdir()) == []


def test_a_fetched_network_takes_the_place_of_its_own_digest_only(here: Path) -> None:
    """Whatever its name where it comes from: that could be another network's."""
    source = here / f"{'cd' * 32}.keras"
    source.write_text("the network")
    found = NetworkStore().locate("VGG16", DIGEST, None, str(source), file_digest(source))
    assert found == STORE / f"{DIGEST}.keras"
    assert list(STORE.iterdir()) == [found]


def test_a_network_that_is_stored_keeps_its_bytes(here: Path) -> None:
    """Models name them: the same network written on another day is another file."""
    STORE.mkdir(parents=True)
    for text in ("first", "second"):
        kept = NetworkStore().keep(DIGEST, ".keras", 3, lambda aside, text=text: aside.write_text(text))
    assert NetworkStore().path(kept).read_text() == "first"


# Tuned networks ------------------------------------------------------------------------------------

INDEX = pd.DataFrame({"digest": list("abcdef")})
SPLIT = INDEX.assign(part=["train", "train", "train", "validation", "test", "test"])


def tuned(run_id: str = "r1") -> Tuned:
    return Tuned((32, 48), "tf", run_id, "0f0f", SPLIT)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (SPLIT["part"], None),
        (["train", "train", "train", "train", "validation", "test"], None),
        (["train", "train", "validation", "validation", "test", "test"], "1 for validation"),
        (["test", "train", "train", "validation", "test", "test"], "1 for test"),
        (["train", "train", "train", "test", "test", "test"], "1 for test"),
        (["fold-0", "fold-1", "fold-0", "fold-1", "test", "test"], "3 for validation"),
    ],
)
def test_a_tuned_network_is_not_judged_by_what_it_learned_from(parts: list[str], told: str | None) -> None:
    """Or was chosen by: the fourth image, which may be learned from, and rank, but not test."""
    given = pd.Series(list(parts))
    if told is None:
        tuned().check_split("mine", INDEX, given)
        return
    with pytest.raises(NetworkError, match=rf"The network mine was tuned on images .* \({told}\).*run r1"):
        tuned().check_split("mine", INDEX, given)


def test_images_that_it_has_not_seen_may_be_anywhere() -> None:
    index = pd.DataFrame({"digest": ["new", "a"]})
    tuned().check_split("mine", index, pd.Series(["test", "train"]))


@pytest.mark.parametrize("graph", [False, True])
def test_a_tuned_network_is_read_back(here: Path, graph: bool) -> None:
    file = tuned().write(here, lambda target: target.mkdir() if graph else target.touch(), graph=graph)
    read, found = Tuned.read(here)
    assert found == file
    assert (read.input_size, read.preprocessing, read.run_id, read.data_digest) == (
        (32, 48),
        "tf",
        "r1",
        "0f0f",
    )
    assert read.split.equals(SPLIT)


def test_a_tuned_network_is_fetched_once_and_what_is_none_is_a_sentence(here: Path) -> None:
    """By the address of a folder, which MLflow fetches as it does an artifact of a run."""
    (here / "run").mkdir()
    store = NetworkStore(here / "cache")
    with pytest.raises(NetworkError, match=r"The network mine cannot be had from .*run: .* \(give runs:/"):
        store.tuned("mine", str(here / "run"))
    tuned().write(here / "run", lambda target: target.write_text("x"), graph=False)
    read, file = store.tuned("mine", str(here / "run"))
    assert read.run_id == "r1"
    assert file.read_text() == "x"
    file.write_text("here")
    assert store.tuned("mine", str(here / "run"))[1].read_text() == "here"


def test_an_artifact_of_a_run_is_no_file_of_a_disk() -> None:
    assert is_tuned(Path("runs:/id/network"))
    assert not is_tuned(Path("/runs/network.keras"))
    assert not is_tuned(None)
