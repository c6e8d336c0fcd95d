"""Networks exported by a process of its own: what comes of it, and what is kept."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.models import NO_IMAGES, ODD_IMAGES, embedded
from tuner.base.choices import Precision
from tuner.experiment.networks import NetworkSpec
from tuner.networks.embedded.files import NETWORK_FILES
from tuner.networks.exporting import stored
from tuner.networks.exporting.program import OPSET, TOLERANCE, Request, compare
from tuner.networks.exporting.stored import exported, find_onnx, onnx_place
from tuner.networks.files import import_keras
from tuner.networks.inference import content_reader
from tuner.networks.onnx.inspection import inspect_onnx
from tuner.networks.resolution import Network, load_network, resolve_network
from tuner.networks.store import NetworkStore

SIDE = (24, 20)
CONTENTS = [*ODD_IMAGES.values(), *NO_IMAGES.values()]


def keras_file(folder: Path, *, exportable: bool = True) -> Path:
    """A small seeded network, whose output is a map; `MelSpectrogram` needs operators that ONNX lacks."""
    keras = import_keras()
    keras.utils.set_random_seed(3)
    pixels = keras.Input((*SIDE, 3))
    # It holds tensors, no weights; EfficientNet begins with it.
    maps = keras.layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(pixels)
    maps = keras.layers.Conv2D(8, 3, activation="relu", strides=2)(maps)
    maps = keras.layers.BatchNormalization()(maps)
    if not exportable:
        maps = keras.layers.Reshape((11 * 9 * 8,))(maps)
        maps = keras.layers.MelSpectrogram(fft_length=64, num_mel_bins=8)(maps)
        maps = keras.layers.Flatten()(maps)
    file = folder / "network.keras"
    keras.Model(pixels, maps).save(file)
    return file


def small(
    folder: Path, *, pooling: str = "avg", exportable: bool = True, saved_model: bool = False
) -> Network:
    file = keras_file(folder, exportable=exportable)
    if saved_model:
        keras = import_keras()
        keras.saving.load_model(file).export(str(folder / "saved"), verbose=False)
        file = folder / "saved"
    spec = NetworkSpec(name="small", file=file, input_size=SIDE, preprocessing="torch", pooling=pooling)
    return resolve_network(spec, "float32", NetworkStore(folder / "store"))


def assert_alike(network: Network, file: Path) -> None:
    read = content_reader(network)
    images = np.stack([read(content) for content in ODD_IMAGES.values()])
    expected = load_network(network, Path(network.file), 1)(images)
    found = load_network(replace(network, file=str(file)), file, 1)(images)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.long
@pytest.mark.parametrize("pooling", ["avg", "max", "none"])
def test_a_network_is_exported_once_and_computes_the_same(pooling: str, tmp_path: Path) -> None:
    network, store = small(tmp_path, pooling=pooling), NetworkStore(tmp_path / "store")
    assert find_onnx(network, store) is None
    with exported(network, store, CONTENTS) as result:
        done = result()
        assert result() == done
    assert done.file == onnx_place(network, store)
    assert done.difference is not None
    assert done.difference < TOLERANCE
    assert inspect_onnx(done.file).opset == OPSET
    assert_alike(network, done.file)
    assert sorted(path.suffix for path in done.file.parent.iterdir()) == [".json", ".onnx"]
    with exported(network, store) as again:  # no process: it is there
        assert again() == done


@pytest.mark.long
def test_a_saved_model_is_exported_too(tmp_path: Path) -> None:
    network = small(tmp_path, saved_model=True)
    with exported(network, NetworkStore(tmp_path / "store"), CONTENTS) as result:
        done = result()
    assert done.reason is None
    assert_alike(network, done.file)


@pytest.mark.long
def test_what_does_not_export_has_a_reason_until_a_library_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, store = small(tmp_path, exportable=False), NetworkStore(tmp_path / "store")
    with exported(network, store) as result:
        done = result()
    assert done.file is None
    assert done.reason
    assert find_onnx(network, store) == done
    monkeypatch.setattr(stored, "_DECIDES", ("numpy",))
    assert find_onnx(network, store) is None


@pytest.mark.long
def test_the_process_ends_with_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, store = small(tmp_path), NetworkStore(tmp_path / "store")
    started = []
    start = stored.subprocess.Popen

    def kept(*args, **options):
        started.append(start(*args, **options))
        return started[-1]

    monkeypatch.setattr(stored.subprocess, "Popen", kept)
    with pytest.raises(RuntimeError, match="stopped"), exported(network, store):
        raise RuntimeError("stopped")
    assert started[0].returncode == -signal.SIGKILL
    assert list(onnx_place(network, store).parent.iterdir()) == []
    with exported(network, store) as result:
        os.kill(started[1].pid, signal.SIGKILL)
        assert result().reason == "the process that exports it ended with code -9"


def never_opened(folder: Path, precision: Precision = "float32") -> Network:
    """A network that is asked about, and no more."""
    return Network("any", "d" * 64, str(folder / "any.keras"), SIDE, "unit", 8, precision, "f" * 64)


def test_a_network_that_computes_in_bfloat16_stays_with_tensorflow(tmp_path: Path) -> None:
    with exported(never_opened(tmp_path, "bfloat16"), NetworkStore(tmp_path)) as result:
        assert result().file is None
        assert "bfloat16" in result().reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NETWORK_FILES)
def test_an_embedded_network_comes_with_its_onnx_file(name: str, tmp_path: Path) -> None:
    network = embedded(tmp_path, name)
    with exported(network, NetworkStore(tmp_path)) as result:
        file = result().file
    assert file == NETWORK_FILES[name].with_suffix(".onnx")
    assert file.stat().st_size < 2 * 2**20
    read = content_reader(network)
    images = np.stack([read(content) for content in ODD_IMAGES.values()])
    request = Request(network.file, network.input_size, network.preprocessing, network.pooling)
    assert compare(request, file, images) < TOLERANCE


def test_a_store_that_cannot_be_written_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with exported(never_opened(tmp_path), NetworkStore(tmp_path / "file")) as result:
        assert result().file is None
        assert "cannot be written" in result().reason


@pytest.mark.parametrize("length", [20, None], ids=["half a record", "a file that is gone"])
def test_what_is_not_whole_in_the_store_is_made_again(length: int | None, tmp_path: Path) -> None:
    network, store = never_opened(tmp_path), NetworkStore(tmp_path)
    place = onnx_place(network, store)
    place.parent.mkdir(parents=True)
    record = json.dumps({"versions": {}, "difference": 1e-6, "reason": None})
    place.with_suffix(".json").write_text(record[:length])
    assert find_onnx(network, store) is None


def test_what_else_decides_features_has_a_file_of_its_own(tmp_path: Path) -> None:
    network, store = never_opened(tmp_path), NetworkStore(tmp_path)
    others = [replace(network, **change) for change in ({"pooling": "max"}, {"input_size": (20, 24)})]
    assert len({onnx_place(one, store) for one in (network, *others)}) == 3
    assert onnx_place(replace(network, preprocessing="torch", transparent="black"), store) == onnx_place(
        network, store
    )
