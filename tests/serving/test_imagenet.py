"""A network with its own head, without Spark: beside Keras, and what cannot be read."""

import io
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from tests.helpers.models import LITE, ODD_IMAGES
from tuner.base.errors import NetworkError
from tuner.cli.main import main
from tuner.experiment.networks import NetworkSpec
from tuner.networks.imagenet import decode_predictions, imagenet_classes
from tuner.networks.resolution import resolve_network
from tuner.networks.store import NetworkStore
from tuner.serving.imagenet import ImageNetScorer


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks are stored below the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ImageNetScorer:
    keras.utils.set_random_seed(3)
    network = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1000, "softmax")]
    )
    folder = tmp_path_factory.mktemp("network")
    network.save(folder / "small.keras")
    spec = NetworkSpec(name="small", file=folder / "small.keras", input_size=8, preprocessing="unit")
    return ImageNetScorer(
        resolve_network(spec, "float32", NetworkStore(folder), include_top=True), threads=2
    )


def png(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(load_sample_image(name)).save(buffer, "PNG")
    return buffer.getvalue()


@LITE
def test_probabilities_are_those_of_the_reference_network(shared: Path) -> None:
    contents = [png("china.jpg"), png("flower.jpg")]
    reference = keras.saving.load_model(shared / "weights" / "efficientnet_lite0_top.keras")
    pixels = [
        np.asarray(Image.open(io.BytesIO(content)).resize((224, 224), Image.Resampling.BILINEAR))
        for content in contents
    ]
    expected = np.asarray(reference(np.stack(pixels) / np.float32(127.5) - 1))
    answers = ImageNetScorer.of("EfficientNetLite0").answer(contents, 5)
    found = np.stack(answers["probability"].to_list())
    assert float(np.abs(found - expected).max()) < 1e-5
    assert list(answers["prediction"]) == ["bell_cote", "daisy"]
    for row, wanted in zip(answers["top_k"], decode_predictions(expected, 5), strict=True):
        assert [(likely["class"], likely["label"]) for likely in row] == [likely[:2] for likely in wanted]


def test_a_row_for_each_image_with_a_reason_for_those_that_are_none(small: ImageNetScorer) -> None:
    contents = [ODD_IMAGES["GIF"], None, b"no image", ODD_IMAGES["GIF"]]
    answers = small.answer(contents, 2)
    assert list(answers.columns) == ["prediction", "probability", "error", "top_k"]
    assert list(answers["error"]) == [None, "empty file", "not an image of a known format", None]
    for row in (1, 2):
        assert [answers[name][row] for name in ("prediction", "probability", "top_k")] == [None] * 3
    (first, second), probability = answers["top_k"][0], answers["probability"][0]
    assert answers["prediction"][0] == first["label"]
    assert first["probability"] == max(probability) >= second["probability"]
    assert imagenet_classes()[int(np.argmax(probability))] == (first["class"], first["label"])
    assert list(small.answer(contents).columns) == ["prediction", "probability", "error"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("GaborNet", r"^GaborNet was not trained on ImageNet"),
        ("ResNet5", r"no network ResNet5: did you mean"),
        ("two words", r"no network two words"),
    ],
)
def test_a_network_that_has_no_head_is_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(NetworkError, match=sentence):
        ImageNetScorer.of(name)


# The command ---------------------------------------------------------------------------------------


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tuner", "predict", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@LITE
def test_the_command_names_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "temple.png").write_bytes(png("china.jpg"))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "bad.png").write_bytes(b"no image")
    assert command(monkeypatch, "--network", "EfficientNetLite0", "temple.png", "more", "--top-k", "2") == 0
    said = capsys.readouterr()
    head, temple, bad = said.out.splitlines()
    assert head == (
        "path,prediction,probability,error,class_1,label_1,probability_1,class_2,label_2,probability_2"
    )
    assert temple.startswith("temple.png,bell_cote,0.2")
    assert ",n02825657,bell_cote,0.2" in temple
    assert bad == "more/bad.png,,,not an image of a known format,,,,,,"
    assert "1 file(s) cannot be read" in said.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--network", "GlyphNet", "a.png"), "GlyphNet was not trained on ImageNet"),
        (("--network", "ResNet5", "a.png"), "no network ResNet5"),
        (("--network", "EfficientNetLite0", "gone.png"), "There is no file or folder gone.png"),
        (("--network", "EfficientNetLite0", "a.png", "--top-k", "-1"), "--top-k is -1"),
        (("models:/digits@champion",), "There are no images to predict: give them after the model."),
    ],
)
def test_the_command_ends_with_one_sentence(
    arguments: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.png").write_bytes(ODD_IMAGES["GIF"])
    assert command(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert len(said.err.strip().splitlines()) == 1
