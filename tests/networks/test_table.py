import importlib

import keras
import numpy as np
import pytest

from tuner.base.errors import NetworkError
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.schema import Experiment
from tuner.experiment.search import SearchSettings
from tuner.images.decoding import preprocess
from tuner.networks.embedded.files import NETWORK_FILES
from tuner.networks.files import open_network
from tuner.networks.table import NETWORKS, Architecture, check_names, find_architecture, may_be_negative

APPLICATIONS = [row for row in NETWORKS.values() if row.module.startswith("keras.")]
EMBEDDED = [row for row in NETWORKS.values() if row.weights == "embedded"]


def build(row: Architecture, **arguments: object) -> keras.Model:
    return getattr(keras.applications, row.name)(weights=None, **arguments)


def test_every_network_of_keras_is_listed() -> None:
    classes = {name for name in dir(keras.applications) if name[0].isupper()}
    assert {row.name for row in APPLICATIONS} == classes
    assert {row.name for row in EMBEDDED} == set(NETWORK_FILES)


@pytest.mark.parametrize("row", APPLICATIONS, ids=lambda row: row.name)
def test_preprocessing_is_the_modules_own(row: Architecture) -> None:
    module = importlib.import_module(row.module)
    assert hasattr(module, row.name) or row.module.endswith("mobilenet_v3")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    expected = module.preprocess_input(pixels.astype(np.float32))
    np.testing.assert_allclose(preprocess(pixels, row.preprocessing), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", ["VGG16", "ResNet50", "MobileNetV2", "MobileNetV3Small"])
def test_width_of_some(name: str) -> None:
    row = NETWORKS[name]
    with keras.StatelessScope():  # the shapes alone: no weight is drawn
        assert build(row, include_top=False, pooling="avg").output_shape == (None, row.width)


@pytest.mark.parametrize("row", EMBEDDED, ids=lambda row: row.name)
def test_embedded_networks_are_as_listed(row: Architecture) -> None:
    features = open_network(NETWORK_FILES[row.name], row.input_size, "float32")
    assert features(np.zeros((1, *row.input_size, 3), np.float32)).shape == (1, row.width)


@pytest.mark.parametrize("row", EMBEDDED, ids=lambda row: row.name)
def test_which_features_may_be_negative(row: Architecture) -> None:
    pixels = np.random.default_rng(0).uniform(size=(8, *row.input_size, 3)).astype(np.float32)
    features = open_network(NETWORK_FILES[row.name], row.input_size, "float32")(pixels)
    assert may_be_negative(NetworkSpec(name=row.name)) == bool((features < 0).any())


def ends_in_relu(network: keras.Model) -> bool:
    """Whether what comes before the pooling is made by a ReLU."""
    for layer in reversed(network.layers):
        if isinstance(layer, keras.layers.ReLU):
            return True
        activation = getattr(layer, "activation", None)
        if activation is not None or isinstance(layer, keras.layers.LayerNormalization):
            return activation in (keras.activations.relu, keras.activations.relu6)
    raise AssertionError("no activation")


@pytest.mark.long
@pytest.mark.parametrize("row", APPLICATIONS, ids=lambda row: row.name)
def test_width_input_size_and_built_in_preprocessing_of_all(row: Architecture) -> None:
    with keras.StatelessScope():
        features = build(row, include_top=False, pooling="avg")
        assert features.output_shape == (None, row.width)
        assert may_be_negative(NetworkSpec(name=row.name)) != ends_in_relu(features)
        whole = build(row, include_top=True)
    size = (None, None) if row.module.endswith("mobilenet_v3") else row.input_size
    assert whole.input_shape == (None, *size, 3)  # MobileNetV3 alone leaves it open
    scaling = (keras.layers.Rescaling, keras.layers.Normalization)
    assert any(isinstance(layer, scaling) for layer in whole.layers) == (row.preprocessing == "none")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("inceptionv3", "InceptionV3"), ("ResNt50", "ResNet50"), ("glyphnet", "GlyphNet")],
)
def test_an_unknown_name_gets_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(NetworkError, match=f"no network {typed}: did you mean {meant}"):
        find_architecture(typed)


def test_a_name_like_no_other_gets_them_all() -> None:
    with pytest.raises(NetworkError) as caught:
        find_architecture("zzz")
    assert all(name in str(caught.value) for name in NETWORKS)


def test_an_experiment_s_unknown_networks_are_refused_with_the_nearest_names() -> None:
    known = Experiment(
        name="letters", images="letters", search=SearchSettings(backbone="GaborNet,ResNet50")
    )
    check_names(known)
    search = SearchSettings(backbone="ResNet5O")
    with pytest.raises(NetworkError, match="ResNet50"):
        check_names(known.model_copy(update={"search": search}))
