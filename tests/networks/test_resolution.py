import dataclasses
import hashlib
import importlib
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tuner.base.choices import Precision
from tuner.base.errors import CacheError, NetworkError
from tuner.experiment.networks import NetworkSpec
from tuner.images.decoding import load_input
from tuner.networks.efficientnet_lite import build_efficientnet_lite
from tuner.networks.resolution import NETWORKS, Network, load_network, recall_network, resolve_network
from tuner.networks.store import NetworkStore

SIDE = 96


def resolve(store: Path, precision: Precision = "float32", **spec: object) -> Network:
    return resolve_network(NetworkSpec.model_validate(spec), precision, NetworkStore(store))


def resolve_with_head(store: Path, **spec: object) -> Network:
    named = NetworkSpec.model_validate(spec)
    return resolve_network(named, "float32", NetworkStore(store), include_top=True)


def features(backbone: Network, images: np.ndarray) -> np.ndarray:
    return load_network(backbone, Path(backbone.file), threads=1)(images)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def mobilenet(shared_store: Path) -> Network:
    return resolve(shared_store, name="MobileNetV2", weights="random", seed=3, input_size=SIDE)


def test_a_network_is_recalled_once_it_was_resolved_and_its_file_is_there(tmp_path: Path) -> None:
    spec = NetworkSpec(name="GlyphNet", weights="random", seed=5)
    assert recall_network(spec, "float32", NetworkStore(tmp_path)) is None
    resolved = resolve_network(spec, "float32", NetworkStore(tmp_path))
    assert recall_network(spec, "float32", NetworkStore(tmp_path)) == resolved
    Path(resolved.file).unlink()
    assert recall_network(spec, "float32", NetworkStore(tmp_path)) is None


# Features


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV2",
        "VGG16",
        "DenseNet121",
        "MobileNetV3Small",
    ],
)
def test_features_equal_those_of_keras(name: str, tmp_path: Path, shared_store: Path) -> None:
    file = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (70, 110, 3), np.uint8)).resize(
        (150, 90)
    ).save(file)
    keras.utils.set_random_seed(3)
    network = getattr(keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(SIDE, SIDE, 3)
    )
    module = importlib.import_module(NETWORKS[name].module)
    loaded = keras.utils.load_img(file, target_size=(SIDE, SIDE), interpolation="bilinear")
    pixels = module.preprocess_input(keras.utils.img_to_array(loaded)[None])
    expected = np.asarray(network(pixels))

    backbone = resolve(shared_store, name=name, weights="random", seed=3, input_size=SIDE)
    image = load_input(file.read_bytes(), backbone.input_size, backbone.preprocessing)
    assert_close(features(backbone, image[None]), expected)


def test_features_of_unit_preprocessing_equal_those_of_keras(shared_store: Path) -> None:
    backbone = resolve(shared_store, name="GlyphNet")
    content = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(content, "PNG")
    loaded = keras.utils.load_img(content, target_size=(32, 32), interpolation="bilinear")
    network = keras.saving.load_model(backbone.file)
    expected = np.asarray(network(keras.utils.img_to_array(loaded)[None] / 255))
    image = load_input(content.getvalue(), backbone.input_size, backbone.preprocessing)
    assert_close(features(backbone, image[None]), expected)


@pytest.mark.parametrize("pooling", ["avg", "max", "none"])
@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV2",
        pytest.param("ConvNeXtTiny", marks=pytest.mark.long),  # it normalizes what it has pooled
        pytest.param("EfficientNetLite0", marks=pytest.mark.long),
    ],
)
def test_each_pooling_is_that_of_keras(name: str, pooling: str, shared_store: Path) -> None:
    keras.utils.set_random_seed(3)
    options = {"pooling": None if pooling == "none" else pooling, "include_top": False}
    if name in NETWORKS and NETWORKS[name].module.startswith("tuner"):
        network = build_efficientnet_lite(name, (SIDE, SIDE), **options)
    else:
        builder = getattr(keras.applications, name)
        network = builder(weights=None, input_shape=(SIDE, SIDE, 3), **options)
    images = noise(2, SIDE, SIDE, 3)
    expected = np.asarray(network(images)).reshape(2, -1)
    backbone = resolve(shared_store, name=name, weights="random", seed=3, input_size=SIDE, pooling=pooling)
    assert (backbone.pooling, backbone.width) == (pooling, expected.shape[1])
    assert backbone.width == NETWORKS[name].width * (9 if pooling == "none" else 1)
    assert_close(features(backbone, images), expected)


@pytest.mark.parametrize("pooling", ["avg", "max", "none"])
def test_the_map_of_a_network_of_one_s_own_is_pooled(tmp_path: Path, pooling: str) -> None:
    pixels = keras.Input((12, 10, 3))
    network = keras.Model(pixels, keras.layers.Conv2D(4, 3)(pixels))
    network.save(tmp_path / "own.keras")
    images = noise(3, 12, 10, 3)
    features_map = np.asarray(network(images))
    expected = {
        "avg": features_map.mean((1, 2)),
        "max": features_map.max((1, 2)),
        "none": features_map.reshape(3, -1),
    }[pooling]
    own = {"name": "own", "file": tmp_path / "own.keras", "preprocessing": "tf", "input_size": (12, 10)}
    found = resolve(tmp_path, **own, pooling=pooling)
    assert found.width == expected.shape[1]
    assert_close(features(found, images), expected)
    assert_close(features(Network.from_dict(found.to_dict()), images), expected)


def test_each_pooling_has_a_key_of_its_own_and_the_average_its_old_one(mobilenet: Network) -> None:
    decides = [mobilenet.digest, mobilenet.input_size, "tf", "float32", 2]
    assert mobilenet.key == hashlib.sha256(json.dumps(decides).encode()).hexdigest()
    assert mobilenet.pooling == "avg"
    keys = {dataclasses.replace(mobilenet, pooling=pooling).key for pooling in ("avg", "max", "none")}
    assert len(keys) == 3


@pytest.mark.parametrize("pooling", ["max", "none"])
def test_a_vector_is_not_pooled(tmp_path: Path, pooling: str) -> None:
    pixels = keras.Input((8, 8, 3))
    keras.Model(pixels, keras.layers.GlobalMaxPooling2D()(pixels)).save(tmp_path / "own.keras")
    own = {"name": "own", "file": tmp_path / "own.keras", "preprocessing": "tf", "input_size": 8}
    for spec in ({"name": "GlyphNet"}, {"name": "GlyphNet", "weights": "random"}, own):
        with pytest.raises(NetworkError, match=f"{spec['name']} gives one vector .*: leave out"):
            resolve(tmp_path, **spec, pooling=pooling)
        assert resolve(tmp_path, **spec, pooling="avg").width > 0


@pytest.mark.parametrize(
    ("name", "mode"),
    [pytest.param("mobilenet_pw12", "tf", marks=pytest.mark.long), ("squeezenet", "caffe")],
)
def test_features_of_real_networks_on_photographs(
    name: str, mode: str, shared: Path, shared_store: Path
) -> None:
    file = shared / "weights" / f"{name}.keras"
    backbone = resolve(shared_store, name=name, file=file, input_size=224, preprocessing=mode)
    photographs = sorted((shared / "data/football").rglob("*.jp*g"))[:4]
    loaded = [
        keras.utils.img_to_array(
            keras.utils.load_img(path, target_size=(224, 224), interpolation="bilinear")
        )
        for path in photographs
    ]
    pixels = keras.applications.imagenet_utils.preprocess_input(np.stack(loaded), mode=mode)
    expected = np.asarray(keras.saving.load_model(file)(pixels))
    images = np.stack(
        [load_input(path.read_bytes(), (224, 224), backbone.preprocessing) for path in photographs]
    )
    assert_close(features(backbone, images), expected)


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.long
def test_bfloat16_is_another_precision_of_the_same_network(mobilenet: Network) -> None:
    half = dataclasses.replace(mobilenet, precision="bfloat16")
    images = noise(4, SIDE, SIDE, 3).clip(-1, 1)
    exact, rough = features(mobilenet, images), features(half, images)
    difference = np.linalg.norm(rough - exact) / np.linalg.norm(exact)
    assert rough.dtype == np.float32
    assert 1e-4 < difference < 0.05


def test_no_images_give_no_features(mobilenet: Network) -> None:
    assert features(mobilenet, noise(0, SIDE, SIDE, 3)).shape == (0, mobilenet.width)


def test_bfloat16_reaches_nested_networks(tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    file = save(keras.Sequential([keras.Input((8, 8, 3)), inner]), tmp_path / "nested.keras")
    own = resolve(tmp_path / "store", "bfloat16", **described(file))
    images = noise(2, 8, 8, 3)
    exact = features(dataclasses.replace(own, precision="float32"), images)
    assert 0 < np.abs(features(own, images) - exact).max() < 0.05


# The digest and the store
@pytest.mark.long
def test_the_same_network_has_the_same_digest_wherever_it_is_built(
    mobilenet: Network, tmp_path: Path
) -> None:
    embedded = resolve(tmp_path, name="GaborNet")
    printed = run(
        f"""
        from pathlib import Path
        from tuner.networks.resolution import Network, load_network, resolve_network
        from tuner.networks.store import NetworkStore
        from tuner.experiment.networks import NetworkSpec
        embedded = Network.from_dict({embedded.to_dict()})
        load_network(embedded, Path(embedded.file), threads=3)
        import keras, tensorflow as tf
        print(tf.config.threading.get_intra_op_parallelism_threads())
        keras.layers.Conv2D(1, 1), keras.layers.Dense(1)  # layers are counted for their names
        spec = NetworkSpec(name="MobileNetV2", weights="random", seed=3, input_size={SIDE})
        print(resolve_network(spec, "float32", NetworkStore(Path({str(tmp_path)!r}, "other"))).digest)
        """
    )
    assert printed.stdout.split() == ["3", mobilenet.digest]
    assert printed.stderr == ""


def test_a_second_resolve_needs_no_tensorflow_and_no_spark(mobilenet: Network) -> None:
    printed = run(
        f"""
        import sys
        from pathlib import Path
        from tuner.networks.resolution import resolve_network
        from tuner.networks.store import NetworkStore
        from tuner.experiment.networks import NetworkSpec
        spec = NetworkSpec(name="MobileNetV2", weights="random", seed=3, input_size={SIDE})
        print(resolve_network(spec, "float32", NetworkStore(Path({mobilenet.file!r}).parents[1])).key)
        print({{"tensorflow", "keras", "pyspark"}} & set(sys.modules))
        """
    )
    assert printed.stdout.split() == [mobilenet.key, "set()"]


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    lines = program.splitlines()[1:]
    code = "\n".join(line.removeprefix(" " * 8) for line in lines)
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


@pytest.mark.long
def test_seed_and_input_size_change_the_digest(mobilenet: Network, tmp_path: Path) -> None:
    spec = {"name": "MobileNetV2", "weights": "random", "seed": 3, "input_size": SIDE}
    others = [resolve(tmp_path, **{**spec, **change}) for change in ({"seed": 4}, {"input_size": 64})]
    assert len({mobilenet.digest, *(other.digest for other in others)}) == 3


@pytest.mark.long
def test_random_weights_leave_the_generators_of_the_process_alone(tmp_path: Path) -> None:
    random.seed(7)
    np.random.seed(7)
    expected = random.random(), np.random.rand()
    random.seed(7)
    np.random.seed(7)
    resolve(tmp_path, name="GlyphNet", weights="random", seed=1)
    resolve(tmp_path, name="MobileNetV3Small", weights="random", input_size=SIDE)
    assert (random.random(), np.random.rand()) == expected


@pytest.mark.parametrize("change", [{"name": "other"}, {"file": "elsewhere"}])
def test_the_cache_key_ignores_what_decides_no_feature(mobilenet: Network, change: dict[str, str]) -> None:
    assert dataclasses.replace(mobilenet, **change).key == mobilenet.key


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "0"},
        {"input_size": (96, 95)},
        {"preprocessing": "torch"},
        {"precision": "bfloat16"},
    ],
)
def test_the_cache_key_knows_what_decides_a_feature(mobilenet: Network, change: dict[str, object]) -> None:
    assert dataclasses.replace(mobilenet, **change).key != mobilenet.key


def test_a_backbone_travels(mobilenet: Network) -> None:
    assert pickle.loads(pickle.dumps(mobilenet)) == mobilenet
    assert Network.from_dict(json.loads(json.dumps(mobilenet.to_dict()))) == mobilenet


def test_searches_at_once_store_one_network(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: resolve(tmp_path, name="GlyphNet"), range(4)))
    assert [path.name for path in (tmp_path / "networks").glob("*.keras")] == [
        f"{found.pop().digest}.keras"
    ]
    assert not found


def test_a_network_lost_from_the_store_is_made_again(tmp_path: Path) -> None:
    backbone = resolve(tmp_path, name="GlyphNet")
    Path(backbone.file).unlink()
    with pytest.raises(NetworkError, match="There is no network"):
        features(backbone, noise(1, 32, 32, 3))
    assert resolve(tmp_path, name="GlyphNet") == backbone
    assert Path(backbone.file).is_file()


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(CacheError, match=r"folder of networks .*taken/networks cannot be used: Not a dir"):
        resolve(tmp_path / "taken", name="GlyphNet")


# Weights


@pytest.fixture
def offline() -> Iterator[None]:
    nowhere = urllib.request.ProxyHandler({"https": "http://127.0.0.1:9"})
    urllib.request.install_opener(urllib.request.build_opener(nowhere))
    yield
    urllib.request.install_opener(None)  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("find", "name", "url"),
    [
        (resolve, "nasnet_mobile_no_top.h5", "NASNet-mobile-no-top.h5"),
        (resolve_with_head, "nasnet_mobile.h5", "NASNet-mobile.h5"),
    ],
    ids=["features", "head"],
)
def test_offline_the_file_and_its_place_are_named(find, name: str, url: str, tmp_path: Path) -> None:
    """The file is not called as the last part of its URL."""
    if Path("~/.keras/models", name).expanduser().exists():
        pytest.skip(f"{name} was downloaded before")
    with pytest.raises(NetworkError) as caught:
        find(tmp_path, name="NASNetMobile")
    message = str(caught.value)
    assert "weights of NASNetMobile could not be downloaded" in message
    assert f"{url} where" in message
    assert message.endswith(f"models as {name}.")


@pytest.mark.long
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "timed out"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nabc", "timed out"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nabc.", "it ended after 3 of 9 bytes"),
    ],
    ids=["silent", "stuck", "cut off"],
)
def test_a_download_that_stops_ends_and_leaves_nothing(answer: bytes, reason: str, tmp_path: Path) -> None:
    """The process's own timeout, which other threads have, too, stays what it was."""
    seen = run(
        f"""
        import socket, threading, time
        from keras.src.applications import mobilenet
        from tuner.networks import builders
        from tuner.base.errors import NetworkError

        server = socket.create_server(("127.0.0.1", 0))
        mobilenet.BASE_WEIGHT_PATH = f"http://127.0.0.1:{{server.getsockname()[1]}}/"
        builders.DOWNLOAD_TIMEOUT = 1.0
        timeouts = []

        def serve():
            client, _ = server.accept()
            client.recv(2**16)
            timeouts.append(socket.getdefaulttimeout())
            client.sendall({answer.removesuffix(b".")!r})
            if {answer.endswith(b".")}:
                client.close()
            time.sleep(60)

        threading.Thread(target=serve, daemon=True).start()
        try:
            builders.build_with_imagenet("MobileNet", (224, 224))
        except NetworkError as error:
            print(error)
        print(timeouts)
        """,
        KERAS_HOME=str(tmp_path),
    )
    said, timeouts = seen.stdout.splitlines()[-2:]
    assert f"weights of MobileNet could not be downloaded ({reason}): get http://127.0.0.1:" in said
    assert timeouts == "[None]"
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.long
def test_weights_put_into_place_by_hand_are_found(mobilenet: Network, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    name = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{SIDE}_no_top.h5"
    keras.saving.load_model(mobilenet.file).save(models / name)
    printed = run(
        f"""
        from pathlib import Path
        from tuner.networks.resolution import resolve_network
        from tuner.networks.store import NetworkStore
        from tuner.experiment.networks import NetworkSpec
        spec = NetworkSpec(name="MobileNetV2", input_size={SIDE})
        print(resolve_network(spec, "float32", NetworkStore(Path({str(tmp_path)!r}, "store"))).digest)
        """,
        KERAS_HOME=str(tmp_path),
    )
    assert printed.stdout.split() == [mobilenet.digest]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        pytest.param("MobileNetV3Small", ".h5", marks=pytest.mark.long),
        ("GlyphNet", ".keras"),
        ("GlyphNet", ".weights.h5"),
    ],
)
def test_weights_of_a_file(name: str, suffix: str, shared_store: Path, tmp_path: Path) -> None:
    drawn = resolve(shared_store, name=name, weights="random", seed=3)
    network = keras.saving.load_model(drawn.file)
    file = tmp_path / f"mine{suffix}"
    write = network.save_weights if "weights" in suffix else network.save
    write(file)
    assert resolve(tmp_path / "store", name=name, weights=str(file)).digest == drawn.digest

    changed = network.get_weights()
    changed[0] = changed[0] + 1e-6
    network.set_weights(changed)
    file.unlink()
    write(file)
    assert resolve(tmp_path / "store", name=name, weights=str(file)).digest != drawn.digest


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_weights_of_another_architecture(suffix: str, tmp_path: Path) -> None:
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    file = tmp_path / f"other{suffix}"
    (network.save_weights if "weights" in suffix else network.save)(file)
    with pytest.raises(NetworkError, match=r"weights file .* is not of VGG16 without its top"):
        resolve(tmp_path, name="VGG16", weights=str(file), input_size=32)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("missing.h5", "There is no weights file missing.h5 for VGG16: give imagenet, random"),
        (__file__, "This is not a weights file"),
    ],
)
def test_weights_that_are_no_file_of_weights(weights: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=sentence):
        resolve(tmp_path, name="VGG16", weights=weights)


def test_weights_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "broken.h5"
    file.write_bytes(b"not HDF5")
    with pytest.raises(NetworkError, match=r"broken\.h5 is not of VGG16"):
        resolve(tmp_path, name="VGG16", weights=str(file), input_size=32)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"name": "InceptionV3", "weights": "random", "input_size": 32}, "of 32 x 32 pixels: Input"),
        ({"name": "GlyphNet", "weights": "imagenet"}, "no ImageNet weights"),
        ({"name": "GaborNet", "weights": "random"}, "fixed filters"),
        ({"name": "GaborNet", "input_size": 64}, "takes images of 32 x 32 pixels"),
        ({"name": "VGG99"}, "did you mean VGG"),
    ],
)
def test_what_a_network_cannot_be(spec: dict[str, object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=sentence):
        resolve(tmp_path, **spec)


# With its head for ImageNet's classes


def test_the_head_s_outputs_are_1000_probabilities(mobilenet: Network, shared_store: Path) -> None:
    with_head = resolve_with_head(
        shared_store, name="MobileNetV2", weights="random", seed=3, input_size=SIDE
    )
    assert with_head.width == 1000
    assert with_head.digest != mobilenet.digest
    probability = features(with_head, noise(2, SIDE, SIDE, 3))
    assert probability.shape == (2, 1000)
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-5)
    # Each is found again as what it is.
    again = {"name": "MobileNetV2", "weights": "random", "seed": 3, "input_size": SIDE}
    assert resolve_with_head(shared_store, **again).digest == with_head.digest
    assert resolve(shared_store, **again).digest == mobilenet.digest


def test_weights_of_a_file_may_have_the_head(
    mobilenet: Network, shared_store: Path, tmp_path: Path
) -> None:
    drawn = {"name": "MobileNetV2", "weights": "random", "seed": 3, "input_size": SIDE}
    with_head = resolve_with_head(shared_store, **drawn)
    file = tmp_path / "with_head.weights.h5"
    keras.saving.load_model(with_head.file).save_weights(file)
    found = resolve_with_head(tmp_path, name="MobileNetV2", weights=str(file), input_size=SIDE)
    assert found.digest == with_head.digest
    keras.saving.load_model(mobilenet.file).save_weights(tmp_path / "without.weights.h5")
    with pytest.raises(NetworkError, match=r"is not of MobileNetV2 with its top \(include_top=True\)"):
        resolve_with_head(
            tmp_path, name="MobileNetV2", weights=str(tmp_path / "without.weights.h5"), input_size=SIDE
        )


@pytest.mark.parametrize("name", ["GlyphNet", "GaborNet"])
def test_what_was_not_trained_on_imagenet_has_no_head(name: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=f"^{name} was not trained on ImageNet, and has no head for its"):
        resolve_with_head(tmp_path, name=name)


# A network of one's own


def save(network: keras.Model, file: Path) -> Path:
    network.save(file)
    return file


def described(file: Path, size: int = 8) -> dict[str, object]:
    return {"name": "mine", "file": file, "input_size": size, "preprocessing": "unit"}


def functional(outputs: int = 1, side: int | None = 8, *more: keras.Layer) -> keras.Model:
    image = x = keras.Input((side, side, 3))
    for layer in (keras.layers.Conv2D(4, 3), *more):
        x = layer(x)
    return keras.Model(image, x if outputs == 1 else [x] * outputs)


@pytest.mark.parametrize("side", [8, None])
def test_a_map_of_features_is_averaged(side: int | None, tmp_path: Path) -> None:
    network = functional(1, side)
    backbone = resolve(tmp_path, **described(save(network, tmp_path / "mine.keras")))
    images = noise(3, 8, 8, 3)
    assert backbone.width == 4
    assert_close(features(backbone, images), np.asarray(network(images)).mean(axis=(1, 2)))


def test_a_vector_of_features_is_taken_as_it_is(tmp_path: Path) -> None:
    network = functional(1, 8, keras.layers.Flatten())
    backbone = resolve(tmp_path, **described(save(network, tmp_path / "mine.keras")))
    images = noise(3, 8, 8, 3)
    assert backbone.width == 6 * 6 * 4
    assert_close(features(backbone, images), np.asarray(network(images)))


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (lambda: functional(2), "has 2 outputs: it must have one"),
        (lambda: functional(1, 16), "takes images of 16 x 16 pixels, and its input_size"),
        (lambda: functional(1, 8, keras.layers.Reshape((36, 4))), "must give one vector"),
        (lambda: functional(1, 8, keras.layers.Lambda(lambda x: x)), "a Lambda layer"),
        (lambda: keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]), "one input of RGB"),
        (lambda: keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()]), "of RGB"),
        (lambda: functional(1, 8, Own()), "as a Keras file: Could not locate class 'Own'"),
    ],
)
def test_a_keras_file_that_cannot_be_a_backbone(network, sentence: str, tmp_path: Path) -> None:
    file = save(network(), tmp_path / "mine.keras")
    with pytest.raises(NetworkError, match=sentence) as caught:
        resolve(tmp_path, **described(file))
    assert "mine.keras" in str(caught.value)


class Own(keras.layers.Layer):
    """A layer whose code is not part of the file."""

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return inputs


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("broken.keras", "cannot be loaded as a Keras file"),
        ("notes.txt", "neither a .keras file nor a SavedModel"),
        ("missing.keras", "There is no file"),
    ],
)
def test_a_file_that_is_no_network(name: str, sentence: str, tmp_path: Path) -> None:
    if not name.startswith("missing"):
        (tmp_path / name).write_text("nothing")
    with pytest.raises(NetworkError, match=sentence):
        resolve(tmp_path, **described(tmp_path / name))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    network = functional()
    folder = tmp_path_factory.mktemp("saved") / "model"
    network.export(folder, verbose=False)
    return network, folder


def test_a_saved_model_is_stored_whole(exported: tuple[keras.Model, Path], tmp_path: Path) -> None:
    network, folder = exported
    backbone = resolve(tmp_path / "store", **described(folder))
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)  # new dates
    again = resolve(tmp_path / "other store", **described(copy))
    images = noise(3, 8, 8, 3)
    assert backbone.file.endswith(f"{backbone.digest}.zip")
    assert again.digest == backbone.digest
    assert Path(again.file).read_bytes() == Path(backbone.file).read_bytes()
    assert_close(features(backbone, images), np.asarray(network(images)).mean(axis=(1, 2)))


def test_a_saved_model_cannot_be_bfloat16(exported: tuple[keras.Model, Path], tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="SavedModel, whose precision is fixed"):
        resolve(tmp_path, "bfloat16", **described(exported[1]))


class Brightness(tf.Module):
    """A SavedModel without Keras: the mean of each channel, of all images or of the first few."""

    def __init__(self, first: int | None) -> None:
        self.first = first

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3))])
    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(images[: self.first], axis=(1, 2))


def test_a_saved_model_need_not_be_of_keras(tmp_path: Path) -> None:
    tf.saved_model.save(Brightness(None), tmp_path / "model")
    backbone = resolve(tmp_path, **described(tmp_path / "model"))
    images = noise(3, 8, 8, 3)
    assert_close(features(backbone, images), images.mean(axis=(1, 2)))


def test_a_saved_model_for_one_image_at_a_time(tmp_path: Path) -> None:
    tf.saved_model.save(Brightness(1), tmp_path / "model")
    with pytest.raises(NetworkError, match="gives 1 rows of features for two images"):
        resolve(tmp_path, **described(tmp_path / "model"))


def test_a_saved_model_that_is_broken(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(NetworkError, match=r"neither a .keras file nor a SavedModel"):
        resolve(tmp_path, **described(folder))
