from pathlib import Path
from typing import Any

import pytest

from tuner.base.errors import NetworkError
from tuner.doctor import networks
from tuner.experiment.schema import Experiment


def experiment(cache: Path, *backbones: Any) -> Experiment:
    data = {"name": "e", "images": "a", "cache": str(cache), "search": {"backbone": list(backbones)}}
    return Experiment.model_validate(data)


def test_what_comes_with_the_package_can_be_had_and_what_is_downloaded_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    found = list(networks.check_weights(experiment(tmp_path, "GlyphNet", "VGG16")))
    assert [finding.state for finding in found][:2] == ["note", "ok"]
    assert "VGG16 are not here" in found[0].said
    assert str(tmp_path / "keras" / "models") in found[0].said
    assert "GlyphNet" in found[1].said
    (tmp_path / "keras" / "models").mkdir(parents=True)
    (tmp_path / "keras" / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5").touch()
    found = list(networks.check_weights(experiment(tmp_path, "GlyphNet", "VGG16")))
    assert {finding.state for finding in found} == {"ok"}
    assert "VGG16" in found[-1].said


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("ResNet5", "did you mean"),
        ({"name": "VGG16", "weights": "/nowhere/vgg16.h5"}, "no weights file /nowhere/vgg16.h5"),
        ({"name": "GlyphNet", "weights": "imagenet"}, "has no ImageNet weights"),
    ],
)
def test_what_a_search_would_refuse_is_refused(tmp_path: Path, backbone: Any, said: str) -> None:
    with pytest.raises(NetworkError, match=said):
        list(networks.check_weights(experiment(tmp_path, backbone)))


def test_random_weights_are_looked_for_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    random = {"name": "ResNet50", "weights": "random"}
    first, *_ = networks.check_weights(experiment(tmp_path, random))
    assert (first.state, "ResNet50" in first.said) == ("ok", True)


@pytest.mark.long
def test_tensorflow_takes_images_through_a_network() -> None:
    found = list(networks.check_tensorflow())
    assert found[0].state == "ok"
    assert [finding.about for finding in found] == ["TensorFlow", "GPU"]
