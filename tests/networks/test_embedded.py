"""The embedded networks: what they promise, and that pre-training on letters pays on digits."""

import importlib.util
import io
import json
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path
from types import ModuleType

import h5py
import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tuner.networks.embedded.files import NETWORK_FILES
from tuner.networks.embedded.gabornet import build_gabornet
from tuner.networks.embedded.glyphnet import build_glyphnet

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pretrain_glyphnet.py"
WIDTHS = {"GlyphNet": 192, "GaborNet": 384}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT.stem] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits, 8 x 8 enlarged to 32 x 32, preprocessing 'unit'."""
    data = load_digits()
    images = [Image.fromarray((image * 255 / 16).round().astype(np.uint8)) for image in data.images]
    large = [image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in large]).astype(np.float32) / 255, data.target


def accuracy(features: np.ndarray, labels: np.ndarray, per_class: int) -> float:
    """Mean held-out accuracy of a logistic regression over ten splits."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=300))
    splits = StratifiedShuffleSplit(10, train_size=10 * per_class, random_state=0)
    with threadpool_limits(1):  # so small a fit gains nothing by threads, and loses on a busy machine
        scores = [
            classifier.fit(features[train], labels[train]).score(features[test], labels[test])
            for train, test in splits.split(features, labels)
        ]
    return float(np.mean(scores))


def test_importing_the_package_imports_no_keras() -> None:
    code = "import sys, tuner.networks; print([m for m in ('keras', 'tensorflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NETWORK_FILES)
def test_a_packaged_network_loads_in_safe_mode(name: str) -> None:
    network = keras.models.load_model(NETWORK_FILES[name], safe_mode=True)
    assert network.input_shape == (None, 32, 32, 3)
    assert network.output_shape == (None, WIDTHS[name])
    features = network.predict(np.random.default_rng(0).random((4, 32, 32, 3)), verbose=0)
    assert features.dtype == np.float32
    assert (features != 0).all()  # dense: MLlib's sparse path is slow


@pytest.mark.parametrize(("name", "limit"), [("GlyphNet", 2_000_000), ("GaborNet", 200_000)])
def test_a_packaged_network_is_small_and_carries_layers_and_weights_alone(name: str, limit: int) -> None:
    assert NETWORK_FILES[name].stat().st_size < limit
    with zipfile.ZipFile(NETWORK_FILES[name]) as stored:
        config = json.loads(stored.read("config.json"))
        weights = h5py.File(io.BytesIO(stored.read("model.weights.h5")))
    assert not config["compile_config"]
    assert "optimizer" not in weights
    layers = config["config"]["layers"]
    assert {layer["module"] for layer in layers} == {"keras.layers"}
    assert "Lambda" not in {layer["class_name"] for layer in layers}


def test_glyphnet_file_has_the_architecture_of_its_builder() -> None:
    stored = keras.models.load_model(NETWORK_FILES["GlyphNet"], safe_mode=True)
    built = build_glyphnet(seed=0)
    assert [(layer.name, type(layer)) for layer in stored.layers] == [
        (layer.name, type(layer)) for layer in built.layers
    ]
    assert [weight.shape for weight in stored.weights] == [weight.shape for weight in built.weights]


def test_glyphnet_builder_follows_its_seed() -> None:
    first, again, other = (build_glyphnet(seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_gabornet_file_holds_the_network_that_the_builder_builds() -> None:
    stored = keras.models.load_model(NETWORK_FILES["GaborNet"], safe_mode=True)
    built, again = build_gabornet(), build_gabornet()
    assert built.count_params() == stored.count_params()
    for a, b, c in zip(stored.get_weights(), built.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(b, c)
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_gabornet_sees_strokes_not_brightness(digits: tuple[np.ndarray, np.ndarray]) -> None:
    network, images = build_gabornet(), digits[0][:8]
    features = network(images).numpy()
    np.testing.assert_allclose(network(1 - images).numpy(), features, atol=1e-5)
    assert network(np.full((1, 32, 32, 3), 0.8)).numpy().max() < 1e-5 < features.max() / 1000


def test_gabornet_tells_orientations_apart() -> None:
    stripes = np.sin(np.arange(32) * 2 * np.pi / 4)[None, :, None] * np.ones((32, 1, 3)) / 2 + 0.5
    upright, level = build_gabornet()(np.stack([stripes, stripes.transpose(1, 0, 2)])).numpy()
    strongest = [grid.reshape(-1, 24).mean(axis=0).argmax() for grid in (upright, level)]
    assert strongest == [0, 4]  # scale 0, 0 and 90 degrees


@pytest.mark.long
def test_pretrained_glyphnet_beats_random_weights_on_handwritten_digits(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    images, labels = digits
    stored = keras.models.load_model(NETWORK_FILES["GlyphNet"], safe_mode=True)
    features = stored.predict(images, batch_size=256, verbose=0)
    untrained = [build_glyphnet(seed).predict(images, batch_size=256, verbose=0) for seed in range(3)]
    # Measured gains: 0.125, 0.081 and 0.055.
    for per_class, margin in ((5, 0.09), (10, 0.06), (20, 0.04)):
        pretrained = accuracy(features, labels, per_class)
        random = max(accuracy(other, labels, per_class) for other in untrained)
        print(f"{per_class} digits a class: {pretrained:.3f}; random weights, best of 3: {random:.3f}")
        assert pretrained > random + margin


def test_the_letters_have_no_digit_among_them(script: ModuleType) -> None:
    glyphs = script.find_glyphs()
    assert {*"AZaz", "Ω", "я"} <= glyphs.keys()
    for letter, variants in glyphs.items():
        for character in {letter, *(variant.character for variant in variants)}:
            assert unicodedata.category(character) in ("Lu", "Ll", "Lo")
            assert unicodedata.numeric(character, None) is None


def test_every_letter_is_drawn(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    for letter, variants in script.find_glyphs().items():
        ink = np.asarray(script.draw(variants[0], rng))
        assert ink.max() > 128, letter


def test_rendering_follows_its_seed(script: ModuleType) -> None:
    images, classes, letters = script.render_letters(64, seed=3)
    again, _, _ = script.render_letters(64, seed=3)
    other, _, _ = script.render_letters(64, seed=4)
    assert images.shape == (64, 32, 32, 3)
    assert images.dtype == np.uint8
    assert classes.max() < len(letters)
    assert np.array_equal(images, again)
    assert not np.array_equal(images, other)


@pytest.mark.long
def test_pretraining_twice_gives_the_same_weights(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> list[np.ndarray]:
        output = tmp_path / f"{name}.keras"
        options = ["--images", "512", "--epochs", "1", "--seed", str(seed)]
        subprocess.run([sys.executable, SCRIPT, *options, "--output", output], check=True)
        return keras.models.load_model(output, safe_mode=True).get_weights()

    first, again, other = weights("first", 5), weights("again", 5), weights("other", 6)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
