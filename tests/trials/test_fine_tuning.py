from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from tests.helpers.training import small_base, training_images
from tuner.experiment.training.fine_tuning import FineTune
from tuner.tracking.store import open_tracking
from tuner.training.checkpoints import Epoch
from tuner.trials.fine_tuning import Rung, Trained, TuningTrial, drawn_points, rungs
from tuner.trials.space import NUMBER


def settings(**keys: Any) -> FineTune:
    given = {"units": 5, "warm_up_epochs": 1, "epochs": 2, "batch_size": 5, "unfreeze": -1, **keys}
    return FineTune.model_validate(given)


def test_rungs_have_fewer_trials_for_more_epochs() -> None:
    assert rungs(8, 70, 2) == [Rung(9, 8), Rung(18, 4), Rung(35, 2), Rung(70, 1)]
    assert rungs(9, 27, 3) == [Rung(3, 9), Rung(9, 3), Rung(27, 1)]
    assert rungs(8, 4, 2) == [Rung(1, 8), Rung(2, 2), Rung(4, 1)]
    assert rungs(1, 5, 2) == [Rung(5, 1)]


@given(st.integers(1, 40), st.integers(1, 100), st.integers(2, 5))
def test_the_last_rung_ends_the_training(trials: int, epochs: int, reduction: int) -> None:
    planned = rungs(trials, epochs, reduction)
    assert planned[0].trials == trials
    assert planned[-1].epoch == epochs
    assert [rung.epoch for rung in planned] == sorted({rung.epoch for rung in planned})
    assert [rung.trials for rung in planned] == sorted({rung.trials for rung in planned}, reverse=True)


def test_points_are_drawn_by_the_seed_and_differ() -> None:
    wide = settings(learning_rate="1e-4:1e-2", dropout=[0.2, 0.5], unfreeze="-1,all", max_evals=6)
    points = drawn_points(wide, seed=1)
    assert points == drawn_points(wide, seed=1) != drawn_points(wide, seed=2)
    assert len(points) == 6
    for point in points:
        assert set(point) == {"learning_rate", "dropout", "unfreeze"}
        assert 1e-4 <= float(point["learning_rate"]) <= 1e-2
        assert point["dropout"] in (0.2, 0.5)
        assert point["unfreeze"] in (-1, "all")
    few = drawn_points(settings(dropout=[0.2, 0.5], max_evals=6), seed=1)
    assert sorted(float(point["dropout"]) for point in few) == [0.2, 0.5]


def test_a_result_is_kept_by_hyperopt_and_read_back() -> None:
    metrics = {"validation_accuracy": 0.75, "validation_logLoss": 0.5}
    done = Trained(3, "id", 4, Epoch(2, "tuning", 0.5, metrics), 2.0)
    document = done.to_document("accuracy")
    assert (document["status"], document["loss"]) == ("ok", -0.75)
    assert Trained.of_document(document) == done
    failed = Trained(3, "id", reason="no")
    assert failed.to_document("accuracy")["status"] == "fail"
    assert Trained.of_document(failed.to_document("accuracy")) == failed
    assert Trained.of_document({"status": "fail"}) is None


@pytest.mark.long
def test_a_trial_goes_on_in_its_own_run_and_a_failure_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the driver, as SparkTrials calls it on a worker."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    store = open_tracking("trained")
    client: MlflowClient = store.client()
    parent = client.create_run(store.experiment_id)
    wide = settings(learning_rate="1e-3,1e30", unfreeze="all")
    trial = TuningTrial(
        tracking=store,
        parent_id=parent.info.run_id,
        base=small_base(tmp_path / "base"),
        settings=wide,
        points=[{"learning_rate": 1e-3}, {"learning_rate": 1e30}],
        images=training_images(tmp_path / "images"),
        labels=("a", "b"),
        numbers=[1],
        until=1,
        folder=tmp_path / "trials",
        metric="accuracy",
        seed=1,
        threads=1,
    )
    first = Trained.of_document(trial({NUMBER: 1}))
    second = Trained.of_document(replace(trial, until=3)({NUMBER: 1}))
    assert first is not None
    assert second is not None
    assert (first.epochs, second.epochs) == (1, 3)
    assert first.run_id == second.run_id
    assert second.run_id is not None
    steps = client.get_metric_history(second.run_id, "loss")
    assert sorted(metric.step for metric in steps) == [1, 2, 3]
    assert second.best is not None
    shown = client.get_run(second.run_id).data.metrics
    assert shown["accuracy"] == second.best.metrics["validation_accuracy"]
    assert shown["best_epoch"] == second.best.number
    assert client.get_run(second.run_id).info.status == "FINISHED"
    failed = Trained.of_document(replace(trial, numbers=[2], until=3)({NUMBER: 1}))
    assert failed is not None
    assert failed.reason is not None
    assert "no number any more at epoch" in failed.reason
    assert failed.run_id is not None
    assert client.get_run(failed.run_id).info.status == "FAILED"
