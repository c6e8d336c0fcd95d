from pathlib import Path

import numpy as np
import pytest

from tests.helpers.training import small_base, small_plan, training_images
from tuner.base.errors import CacheError, ExperimentError, TrialError
from tuner.training.bases import Base
from tuner.training.checkpoints import Checkpoints, Epoch
from tuner.training.images import TrainingImages
from tuner.training.loop import Training
from tuner.training.plan import Plan

LABELS = ("a", "b")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> TrainingImages:
    return training_images(tmp_path_factory.mktemp("images"))


def training(base: Base, plan: Plan, images: TrainingImages, folder: Path) -> Training:
    return Training(base, plan, images, LABELS, folder, threads=1)


@pytest.mark.long
@pytest.mark.parametrize("augment", ["strong", "none"])
def test_a_training_goes_on_as_if_it_had_not_been_stopped(
    base: Base, images: TrainingImages, tmp_path: Path, augment: str
) -> None:
    """In the midst of each phase: weights, optimizer, order and random generators are as they were."""
    plan = small_plan(augment=augment, epochs=3)
    whole = training(base, plan, images, tmp_path / "whole")
    whole.run()
    for until in (1, 2, 4):
        training(base, plan, images, tmp_path / "parts").run(until)
    parts = training(base, plan, images, tmp_path / "parts")
    assert len(parts.progress.history) == 4
    parts.run()
    arrays = [Checkpoints(tmp_path / name).last() for name in ("whole", "parts")]
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name], name)
    shown = [[dict(epoch.metrics) for epoch in one.progress.history] for one in (whole, parts)]
    assert shown[0] == shown[1]


@pytest.mark.long
def test_the_best_epoch_is_kept_and_its_last_layer_is_a_linear_classifier(
    base: Base, images: TrainingImages, tmp_path: Path
) -> None:
    seen: list[Epoch] = []
    plan = small_plan()
    run = Training(base, plan, images, LABELS, tmp_path, threads=1, on_epoch=seen.append)
    progress = run.run()
    assert [(epoch.number, epoch.phase) for epoch in seen] == [
        (1, "warm-up"),
        (2, "warm-up"),
        (3, "tuning"),
        (4, "tuning"),
    ]
    best = progress.best("accuracy")
    assert best.metrics["validation_accuracy"] == max(e.metrics["validation_accuracy"] for e in seen)
    built = run.best()
    held = images.part("unit", validates=True)
    scores = built.whole.predict(held.batches(99), verbose=0)
    right = (scores.argmax(axis=1) == held.label_index).mean()
    assert right == best.metrics["validation_accuracy"]
    features = built.features.predict(held.batches(99), verbose=0)
    np.testing.assert_allclose(built.head().score(features), scores, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("pooling", ["avg", "none"])
def test_what_a_frozen_base_gives_is_computed_once_and_nothing_else_changes(
    images: TrainingImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str
) -> None:
    base, notes = small_base(tmp_path, pooling), dict[str, list[str]]()
    found = {}
    for name in ("once", "each time"):
        if name == "each time":
            monkeypatch.setattr("tuner.training.loop._MOST", 0)
        notes[name] = []
        run = Training(
            base, small_plan(), images, LABELS, tmp_path / name, threads=1, on_note=notes[name].append
        )
        found[name] = run.run()
    assert "and what it gives is computed once" in notes["once"][0]
    assert "computed once" not in "".join(notes["each time"]) + notes["once"][1]
    for one, other in zip(found["once"].history, found["each time"].history, strict=True):
        assert one.metrics == pytest.approx(other.metrics, rel=1e-5)
    kept = [Checkpoints(tmp_path / name).last() for name in found]
    for name, array in kept[0].items():
        if name.startswith("weight"):
            np.testing.assert_allclose(array, kept[1][name], atol=1e-6, err_msg=name)


@pytest.mark.long
def test_only_the_layers_of_a_phase_learn_and_statistics_stay(
    base: Base, images: TrainingImages, tmp_path: Path
) -> None:
    run = training(base, small_plan(), images, tmp_path)
    layers = {layer.name: layer for layer in run._built.base.layers}
    before = {name: [np.array(w) for w in layer.get_weights()] for name, layer in layers.items()}

    def changed() -> list[str]:
        return [
            name
            for name, layer in layers.items()
            if not all(map(np.array_equal, before[name], layer.get_weights()))
        ]

    run.run(2)
    assert changed() == []
    run.run()
    assert changed() == ["last"]
    everything = training(base, small_plan(unfreeze="all", warm_up_epochs=0), images, tmp_path / "all")
    normal = everything._built.base.get_layer("normal")
    mean, variance = normal.moving_mean.numpy(), normal.moving_variance.numpy()
    gamma = normal.gamma.numpy()
    everything.run()
    assert np.array_equal(normal.moving_mean.numpy(), mean)
    assert np.array_equal(normal.moving_variance.numpy(), variance)
    assert not np.array_equal(normal.gamma.numpy(), gamma)


@pytest.mark.long
def test_a_loss_that_is_no_number_names_the_epoch(
    base: Base, images: TrainingImages, tmp_path: Path
) -> None:
    plan = small_plan(learning_rate=1e30, unfreeze="all", batch_normalization=False, warm_up_epochs=1)
    with pytest.raises(TrialError, match=r"no number any more at epoch \d \(tuning\): lower learning_rate"):
        training(base, plan, images, tmp_path).run()


@pytest.mark.long
def test_a_phase_ends_early_without_a_gain(base: Base, images: TrainingImages, tmp_path: Path) -> None:
    still = {"warm_up_learning_rate": 1e-12, "batch_normalization": False}  # statistics would go on moving
    plan = small_plan(early_stop=1, warm_up_epochs=6, epochs=1, **still)
    progress = training(base, plan, images, tmp_path).run()
    numbers = [epoch.number for epoch in progress.history]
    assert numbers[-1] == 7
    assert len(numbers) < 7
    assert "1 epochs brought no gain on the validation part" in progress.notes[0]


def test_other_settings_do_not_go_on(base: Base, images: TrainingImages, tmp_path: Path) -> None:
    plan = small_plan()
    first = training(base, plan, images, tmp_path)
    Checkpoints(tmp_path).keep(first.progress, {})
    with pytest.raises(CacheError, match="is of a training with other settings"):
        training(base, small_plan(units=6), images, tmp_path)


def test_float16_needs_a_gpu(base: Base, images: TrainingImages, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="TensorFlow sees no GPU here"):
        training(base, small_plan(precision="float16"), images, tmp_path)
