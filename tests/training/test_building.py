from pathlib import Path

import numpy as np
import pytest

from tests.helpers.training import SIDE, small_base, small_plan
from tuner.training.bases import Base
from tuner.training.building import build


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(2).uniform(0, 1, (count, SIDE, SIDE, 3)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_classifier_and_the_features_give_what_the_network_does(tmp_path: Path, classes: int) -> None:
    built = build(small_base(tmp_path), small_plan(), classes)
    layer = built.whole.layers[-1]
    layer.set_weights([np.random.default_rng(4).normal(size=w.shape) for w in layer.get_weights()])
    whole = np.asarray(built.whole(images(), training=False))
    features = np.asarray(built.features(images(), training=False))
    assert features.shape == (3, 5)
    np.testing.assert_allclose(built.head().score(features), whole, atol=1e-6)
    np.testing.assert_allclose(np.asarray(built.model(images(), training=False)), whole, atol=1e-6)


def test_the_head_is_the_source_s_and_its_map_is_flattened_if_asked(tmp_path: Path) -> None:
    base = small_base(tmp_path, pooling="none")
    built = build(base, small_plan(augment="strong"), 2)
    changing, before, after = (
        [type(layer).__name__ for layer in model.layers] for model in built.model.layers
    )
    assert before[-1] == "Flatten"
    assert after[1:] == ["Dense", "ReLU", "BatchNormalization", "Dropout", "Dense"]
    assert changing[1:] == [
        "RandomFlip",
        "RandomRotation",
        "RandomTranslation",
        "RandomShear",
        "RandomZoom",
    ]
    kept = [type(layer).__name__ for layer in built.whole.layers]
    assert not any(kind.startswith("Random") for kind in kept)
    assert built.after.get_layer("classes").units == 2


@pytest.mark.parametrize(("steps", "momentum"), [(1000, 0.99), (100, 0.99), (20, 0.951), (1, 0.366)])
def test_statistics_follow_as_far_in_an_epoch_of_few_steps(
    tmp_path: Path, steps: int, momentum: float
) -> None:
    built = build(small_base(tmp_path), small_plan(), 2, steps=steps)
    (normal,) = [layer for layer in built.after.layers if type(layer).__name__ == "BatchNormalization"]
    assert normal.momentum == pytest.approx(momentum, abs=1e-3)


@pytest.mark.parametrize("name", ["small", "small-cnn"])
def test_the_same_seed_builds_the_same_network(name: str, tmp_path: Path) -> None:
    """All that is kept of it: weights, and the random generators of augmentation and dropout."""
    base = small_base(tmp_path) if name == "small" else Base(name, None, (SIDE, SIDE), "unit", "none")
    one, other, third = (
        [
            np.asarray(variable)
            for variable in build(base, small_plan(seed=seed, augment="strong"), 2).model.variables
        ]
        for seed in (1, 1, 2)
    )
    assert all(map(np.array_equal, one, other))
    assert not all(map(np.array_equal, one, third))


def test_mixed_precision_computes_in_it_and_keeps_weights(tmp_path: Path) -> None:
    built = build(small_base(tmp_path), small_plan(precision="bfloat16"), 2)
    assert {str(weight.dtype) for weight in built.whole.weights} == {"float32"}
    assert built.base.get_layer("last").compute_dtype == "bfloat16"
    assert built.whole.layers[-1].compute_dtype == "float32"
    assert np.asarray(built.whole(images(), training=False)).dtype == np.float32


def test_a_base_that_learned_is_called_as_in_inference(tmp_path: Path) -> None:
    base: Base = small_base(tmp_path)
    built = build(base, small_plan(), 2)
    normal = built.base.get_layer("normal")
    before = normal.moving_mean.numpy()
    built.model(images(), training=True)
    np.testing.assert_array_equal(normal.moving_mean.numpy(), before)
