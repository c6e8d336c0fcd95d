import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.helpers import onnx_files
from tests.helpers.onnx_files import SIDE, WIDTH
from tuner.base.errors import NetworkError
from tuner.networks.onnx.session import open_onnx

IMAGES = np.random.default_rng(0).random((7, *SIDE, 3), np.float32)


def test_it_computes_batches_of_any_size_also_none(tmp_path: Path) -> None:
    run = open_onnx(onnx_files.saved(onnx_files.small_network(), tmp_path), SIDE, threads=1)
    for count in (1, 3, 7):
        features = run(IMAGES[:count])
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, onnx_files.computed(IMAGES[:count]), rtol=1e-5, atol=1e-6)
    assert run(IMAGES[:0]).shape == (0, WIDTH)


def test_several_threads_may_call_it_at_once(tmp_path: Path) -> None:
    run = open_onnx(onnx_files.saved(onnx_files.small_network(), tmp_path), SIDE, threads=2)
    with ThreadPoolExecutor(4) as pool:
        for features in pool.map(run, [IMAGES] * 20):
            np.testing.assert_array_equal(features, run(IMAGES))


def test_channels_turned_round_are_read_right(tmp_path: Path) -> None:
    """Preprocessing gives BGR as a view."""
    run = open_onnx(onnx_files.saved(onnx_files.small_network(), tmp_path), SIDE, threads=1)
    np.testing.assert_array_equal(run(IMAGES[..., ::-1]), run(IMAGES[..., ::-1].copy()))


@pytest.mark.parametrize(
    "model",
    [
        onnx_files.small_network((5, 4)),
        onnx_files.model_of([helper.make_node("Identity", ["images"], ["features"])], []),
    ],
    ids=["another size", "a map"],
)
def test_what_does_not_fit_its_description_is_refused(model: ModelProto, tmp_path: Path) -> None:
    if model.graph.node[0].op_type == "Identity":
        given = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", *SIDE, 3])
        model.graph.output[0].CopyFrom(given)
    file = onnx_files.saved(model, tmp_path)
    with pytest.raises(NetworkError, match="does not fit its description: it takes tensor"):
        open_onnx(file, SIDE, threads=1)


def test_a_newer_opset_is_refused_with_the_versions(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["images"], ["features"])]
    file = onnx_files.saved(onnx_files.model_of(nodes, [], opset=999), tmp_path)
    with pytest.raises(NetworkError, match=r"of opset 999, cannot be run by ONNX Runtime \d"):
        open_onnx(file, SIDE, threads=1)


def test_nothing_is_read_of_a_hostile_file(tmp_path: Path) -> None:
    file = onnx_files.saved(onnx_files.with_weights_elsewhere(tmp_path, "weights.bin"), tmp_path)
    with pytest.raises(NetworkError, match="keeps weights in other files"):
        open_onnx(file, SIDE, threads=1)


def test_neither_tensorflow_nor_spark_is_imported(tmp_path: Path) -> None:
    file = onnx_files.saved(onnx_files.small_network(), tmp_path)
    program = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from tuner.networks.onnx.session import open_onnx\n"
        f"open_onnx(Path(sys.argv[1]), {SIDE}, 1)(np.zeros((1, *{SIDE}, 3), np.float32))\n"
        "print(*{'tensorflow', 'keras', 'pyspark', 'mlflow', 'onnx', 'pandas'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
