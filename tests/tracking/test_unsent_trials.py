import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from tests.helpers.searches import free_port
from tuner.base.errors import StoreError, TrackingError
from tuner.tracking.runs import trial_run, trial_runs
from tuner.tracking.store import Tracking
from tuner.tracking.unsent_trials import open_unsent, push


@pytest.fixture
def parent(store: Tracking) -> str:
    return store.client().create_run(store.experiment_id).info.run_id


def keep(folder: Path, parent: str, number: int) -> None:
    """A trial that ended while its server was away."""
    with trial_run(open_unsent(folder), parent, number, {"backbone": "GlyphNet", "regParam": 0.1}) as run:
        run.batch(metrics={"accuracy": number / 10}, histories={"objectiveHistory": [3, 2, 1]})
        run.text(f"of trial {number}", "report/note.txt")


def sent(store: Tracking, parent: str) -> dict[int, Run]:
    mlflow.set_tracking_uri(store.uri)
    return {int(run.data.tags["tuner.trial"]): run for run in trial_runs(store, parent)}


def test_a_trial_is_sent_as_it_was_and_is_no_longer_on_disk(
    store: Tracking, parent: str, tmp_path: Path
) -> None:
    folder = tmp_path / "unsent"
    keep(folder, parent, 1)
    keep(folder, parent, 2)
    mlflow.set_tracking_uri(store.uri)
    assert push(folder) == (2, [parent])
    assert not folder.exists()
    runs = sent(store, parent)
    assert sorted(runs) == [1, 2]
    for number, run in runs.items():
        assert run.info.status == "FINISHED"
        assert run.info.run_name == f"{number:03}-glyphnet"
        assert run.data.params == {"backbone": "GlyphNet", "regParam": "0.1"}
        assert run.data.metrics["accuracy"] == number / 10
        history = store.client().get_metric_history(run.info.run_id, "objectiveHistory")
        assert [(point.step, point.value) for point in history] == [(0, 3), (1, 2), (2, 1)]
        note = store.client().download_artifacts(run.info.run_id, "report/note.txt", str(tmp_path))
        assert Path(note).read_text() == f"of trial {number}"


def test_a_trial_that_the_server_has_is_not_sent_again(
    store: Tracking, parent: str, tmp_path: Path
) -> None:
    with trial_run(store, parent, 1, {"backbone": "GlyphNet"}):
        pass
    folder = tmp_path / "unsent"
    keep(folder, parent, 1)
    keep(folder, parent, 2)
    mlflow.set_tracking_uri(store.uri)
    assert push(folder) == (1, [parent])
    assert sorted(sent(store, parent)) == [1, 2]


def test_a_folder_without_trials_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"There are no unsent trials in .*: check the path\.$"):
        push(tmp_path / "none")


def test_trials_stay_on_disk_while_the_server_is_away(store: Tracking, parent: str, tmp_path: Path) -> None:
    folder = tmp_path / "unsent"
    keep(folder, parent, 1)
    mlflow.set_tracking_uri(f"http://user:secret@127.0.0.1:{free_port()}")
    sentence = rf"does not answer: .*refused.*The trials stay in {folder}; check MLFLOW_TRACKING_URI"
    with pytest.raises(TrackingError, match=sentence) as caught:
        push(folder)
    assert "secret" not in str(caught.value)
    mlflow.set_tracking_uri(store.uri)
    assert push(folder) == (1, [parent])


def test_what_a_store_refuses_stays_on_disk_and_is_sent_once(
    store: Tracking, parent: str, tmp_path: Path
) -> None:
    folder = tmp_path / "unsent"
    for number in (1, 2):
        keep(folder, parent, number)
    mlflow.set_tracking_uri(store.uri)
    full = tmp_path / "mlruns"  # where artifacts go
    shutil.rmtree(full, ignore_errors=True)
    full.write_text("no folder")
    with pytest.raises(StoreError, match=rf"refuses a trial, or .*send it with tuner push {folder}$"):
        push(folder)
    assert {run.info.status for run in trial_runs(store, parent)} == {"KILLED"}
    full.unlink()
    assert push(folder) == (2, [parent])
    finished = [run for run in trial_runs(store, parent) if run.info.status == "FINISHED"]
    assert sorted(int(run.data.tags["tuner.trial"]) for run in finished) == [1, 2]


def test_the_folder_may_be_in_the_home_folder(
    store: Tracking, parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path / "unsent", parent, 1)
    mlflow.set_tracking_uri(store.uri)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert push(Path("~/unsent")) == (1, [parent])
    with pytest.raises(
        TrackingError, match=r"no unsent trials in ~nobody-here/x: .* home folder that is not"
    ):
        push(Path("~nobody-here/x"))


def test_a_trial_that_was_kept_twice_is_sent_once(store: Tracking, parent: str, tmp_path: Path) -> None:
    folder = tmp_path / "unsent"
    keep(folder, parent, 1)
    keep(folder, parent, 1)
    mlflow.set_tracking_uri(store.uri)
    assert push(folder) == (1, [parent])
