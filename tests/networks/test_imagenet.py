"""ImageNet's classes: Keras's own, in Keras's order."""

import hashlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.datasets import load_sample_image

from tuner.base.errors import NetworkError
from tuner.networks.imagenet import check_head, check_top_k, decode_predictions, imagenet_classes

DECODE = """
import sys, keras, numpy as np
probability = np.load(sys.argv[1])
for row in keras.applications.imagenet_utils.decode_predictions(probability, top=7):
    for wnid, name, value in row:
        print(wnid, name, repr(float(value)))
"""


def keras_class_index() -> str:
    """Keras's file of classes, made from tuner's."""
    return json.dumps({str(place): row for place, row in enumerate(imagenet_classes())})


def test_the_classes_are_those_of_keras_to_the_byte() -> None:
    source = inspect.getsource(keras.applications.imagenet_utils.decode_predictions)
    (expected,) = re.findall(r'file_hash="([0-9a-f]{32})"', source)
    assert hashlib.md5(keras_class_index().encode()).hexdigest() == expected


def test_some_classes_have_the_same_name_and_none_the_same_id() -> None:
    classes = imagenet_classes()
    assert len(classes) == len({wnid for wnid, _ in classes}) == 1000
    assert classes[0] == ("n01440764", "tench")
    assert classes[482] == ("n02979186", "cassette_player")
    assert classes[607] == ("n03590841", "jack-o'-lantern")
    assert classes[134][1] == classes[517][1] == "crane"
    assert classes[134][0] != classes[517][0]


@pytest.mark.long
def test_decoding_is_that_of_keras(tmp_path: Path) -> None:
    probability = np.random.default_rng(0).dirichlet(np.full(1000, 0.1), 5).astype(np.float32)
    np.save(tmp_path / "probability.npy", probability)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "imagenet_class_index.json").write_text(keras_class_index())
    done = subprocess.run(  # Keras decides where its files are when it is imported
        [sys.executable, "-c", DECODE, tmp_path / "probability.npy"],
        env={**os.environ, "KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    decoded = [prediction for row in decode_predictions(probability, 7) for prediction in row]
    assert done.stdout.splitlines() == [f"{wnid} {name} {value!r}" for wnid, name, value in decoded]


@settings(max_examples=50, deadline=None)
@given(
    probability=arrays(
        np.float32, st.tuples(st.integers(0, 3), st.just(1000)), elements=st.floats(0, 1, width=32)
    ),
    top_k=st.integers(1, 1000),
)
def test_the_likeliest_come_first_and_equals_in_order(probability: np.ndarray, top_k: int) -> None:
    decoded = decode_predictions(probability, top_k)
    assert len(decoded) == len(probability)
    for row, predictions in zip(probability, decoded, strict=True):
        expected = sorted(zip(-row, range(1000), strict=True))[:top_k]
        assert predictions == [(*imagenet_classes()[place], -value) for value, place in expected]
        assert all(type(value) is float for _, _, value in predictions)


@pytest.mark.parametrize("shape", [(1000,), (2, 1001), (2, 1280), (1, 2, 1000)])
def test_what_is_no_probabilities_of_the_classes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        NetworkError, match=re.escape(f"shape (n, 1000), not {shape}: those of a network with")
    ):
        decode_predictions(np.zeros(shape))


@pytest.mark.parametrize("top_k", [0, -1, 1001])
def test_a_number_of_classes_that_are_not_there_is_refused(top_k: int) -> None:
    with pytest.raises(NetworkError, match=f"topK .* 1 to 1000, not {top_k}"):
        decode_predictions(np.zeros((1, 1000)), top_k)
    with pytest.raises(NetworkError, match=f"topK .* 1 to 1000, not {top_k}"):
        check_top_k(top_k)


def test_a_network_without_the_head_is_refused() -> None:
    check_head("ResNet50", 1000)
    with pytest.raises(
        NetworkError, match=r"^The network ResNet50 gives 2048 numbers an image, and ImageNet"
    ):
        check_head("ResNet50", 2048)


def test_a_network_with_its_head_names_real_pictures(shared: Path) -> None:
    network = keras.models.load_model(shared / "weights" / "efficientnet_lite0_top.keras")
    pictures = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    small = np.stack([picture.resize((224, 224), Image.Resampling.BILINEAR) for picture in pictures])
    temple, flower = decode_predictions(network(small / np.float32(127.5) - 1).numpy(), 15)
    assert temple[0][:2] == ("n02825657", "bell_cote")
    assert temple[0][2] > 0.25
    assert {"boathouse", "monastery", "palace"} <= {name for _, name, _ in temple}
    assert flower[0][:2] == ("n11939491", "daisy")
    assert flower[0][2] > 0.14
