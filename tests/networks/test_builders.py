from pathlib import Path

import pytest

from tuner.base.errors import NetworkError
from tuner.networks.builders import build_with_imagenet, weights_at_hand, weights_folder
from tuner.networks.efficientnet_lite import LITE_NETWORKS, has_package


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def of_keras() -> list[str]:
    return [name for name in weights_at_hand() if name not in LITE_NETWORKS]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "ResNet50"),
        ("resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "ResNet50V2"),
        ("inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "InceptionResNetV2"),
        ("mobilenet_1_0_224_tf_no_top.h5", "MobileNet"),
        ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", "MobileNetV2"),
        ("weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", "MobileNetV3Small"),
        ("efficientnetv2-b0_notop.h5", "EfficientNetV2B0"),
        ("convnext_xlarge_notop.h5", "ConvNeXtXLarge"),
        ("nasnet_mobile_no_top.h5", "NASNetMobile"),
    ],
)
def test_a_file_is_known_by_its_name(models: Path, file: str, name: str) -> None:
    assert of_keras() == []
    (models / file).touch()
    assert of_keras() == [name]


def test_files_with_the_head_are_others(models: Path) -> None:
    (models / "resnet50_weights_tf_dim_ordering_tf_kernels.h5").touch()
    (models / "my_own_notop.h5").touch()
    assert of_keras() == []


def test_packages_that_are_installed_count(models: Path) -> None:
    assert set(weights_at_hand()) == {name for name in LITE_NETWORKS if has_package(name)}


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["MobileNetV2", "MobileNetV3Small", "NASNetMobile", "EfficientNetV2B0", "VGG16"]
)
def test_the_files_that_keras_looks_for_are_those_that_are_known(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the weights cannot be downloaded, the sentence names Keras's file, in Keras's folder."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match="could not be downloaded") as refused:
        build_with_imagenet(name, (224, 224))
    folder, _, file = str(refused.value).partition("put it into ")[2].rstrip(".").partition(" as ")
    assert Path(folder) == weights_folder()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / file).touch()
    assert of_keras() == [name]
