"""Models that carry their network as ONNX: answered by ONNX Runtime, where nothing else is installed."""

import base64
import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model
from pyspark.sql import SparkSession

from tests.helpers import onnx_files
from tests.helpers.models import NO_IMAGES, ODD_IMAGES, contents_frame, embedded, random_head
from tests.helpers.searches import free_port
from tuner.base.errors import ModelError, NetworkError
from tuner.classifiers.linear import LinearHead
from tuner.models.environment import requirements, wheel_of
from tuner.models.featurizer import DeepImageFeaturizer
from tuner.models.flavor import FittedModel, save_model, write_model_files
from tuner.models.scorer import PIPELINE_FOLDER, Scorer
from tuner.models.stages.saving import NetworkStage
from tuner.networks.embedded.files import NETWORK_FILES
from tuner.networks.inference import content_reader
from tuner.networks.resolution import Network

SIZE, WIDTH = (16, 12), 5
LABELS = ("A", "ñandú <b>", "")
IMAGES = [*ODD_IMAGES.values(), *NO_IMAGES.values()]
HIDDEN = ("tensorflow", "keras", "pyspark", "py4j", "onnx", "tf2onnx", "h5py", "hyperopt", "matplotlib")
# What Python runs before anything else: imports of these fail, as where they are not installed.
HOOK = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HIDDEN!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""


def hand_made(folder: Path) -> tuple[Network, Path]:
    """A network whose ONNX file is made by hand; the file that it came as is never to be opened."""
    keras_file = folder / f"{'d' * 64}.keras"
    keras_file.write_bytes(b"not to be opened")
    network = Network(
        "small", "d" * 64, str(keras_file), SIZE, "unit", WIDTH, "float32", file_digest="f" * 64
    )
    return network, onnx_files.saved(onnx_files.small_network(SIZE, WIDTH), folder)


def steep_head(network: Network) -> LinearHead:
    """One that names several classes among the images; of another network, any."""
    head = random_head(len(LABELS), network.width)
    if network.name != "small":
        return head
    read = content_reader(network)
    features = [onnx_files.computed(read(content)[None], WIDTH)[0] for content in ODD_IMAGES.values()]
    return LinearHead(30 * head.coefficients, -30 * head.coefficients @ np.mean(features, axis=0))


def model_folder(folder: Path, network: Network, onnx: Path | None, uri: str | None = None) -> Path:
    head = steep_head(network)
    write_model_files(folder / "files", ODD_IMAGES["PNG RGB"])
    model = FittedModel(network, head, {}, LABELS, uri, onnx=onnx)
    save_model(str(folder / "model"), Model(), model=model, files=folder / "files")
    return folder / "model"


@pytest.fixture(scope="module")
def network_and_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    network, onnx = hand_made(folder)
    return network, model_folder(folder, network, onnx)


@pytest.fixture(scope="module")
def folder(network_and_folder: tuple[Network, Path]) -> Path:
    return network_and_folder[1]


@pytest.fixture
def hidden(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python finds none of `HIDDEN`."""
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": path, "PATH": binaries}


def assert_right(answers: list[dict], network: Network) -> None:
    """The probabilities are those that NumPy makes of the images."""
    read, head = content_reader(network), steep_head(network)
    for answer, content in zip(answers[: len(ODD_IMAGES)], ODD_IMAGES.values(), strict=True):
        expected = head.score(onnx_files.computed(read(content)[None], WIDTH))[0]
        np.testing.assert_allclose(answer["probability"], expected, rtol=0, atol=1e-5)
        assert answer["prediction"] == LABELS[int(expected.argmax())]
    for answer in answers[len(ODD_IMAGES) :]:
        assert answer["prediction"] is None
        assert answer["error"]


def test_it_is_answered_by_onnx_runtime(network_and_folder: tuple[Network, Path]) -> None:
    network, folder = network_and_folder
    answers = Scorer.load(folder).predict(pd.DataFrame({"content": IMAGES})).to_dict("records")
    assert_right(answers, network)
    assert len({answer["prediction"] for answer in answers}) > 2


def test_python_function_needs_its_own_wheel_and_none_of_the_large_libraries(
    network_and_folder: tuple[Network, Path], hidden: dict[str, str]
) -> None:
    network, folder = network_and_folder
    program = (
        "import json, sys, mlflow, pandas as pd\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "images = [None if text is None else bytes.fromhex(text) for text in json.load(sys.stdin)]\n"
        "print(json.dumps(model.predict(pd.DataFrame({'content': images})).to_dict('records')))\n"
        "import tuner; print(tuner.__file__, file=sys.stderr)\n"
    )
    wheel = wheel_of(folder)
    hidden["PYTHONPATH"] = f"{wheel}{os.pathsep}{hidden['PYTHONPATH']}"
    asked = json.dumps([None if content is None else content.hex() for content in IMAGES])
    command = [sys.executable, "-c", program, folder]
    done = subprocess.run(command, input=asked, cwd=folder, env=hidden, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"{wheel}/tuner/")
    assert_right(json.loads(done.stdout.splitlines()[-1]), network)


@pytest.mark.long
def test_mlflow_serves_it_where_these_are_not_installed(
    network_and_folder: tuple[Network, Path], hidden: dict[str, str], tmp_path: Path
) -> None:
    network, folder = network_and_folder
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local", "-p", str(port)]
    texts = [None if content is None else base64.b64encode(content).decode() for content in IMAGES]
    body = json.dumps({"dataframe_split": {"columns": ["content"], "data": [[text] for text in texts]}})
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=hidden, stdout=log, stderr=log, start_new_session=True)
    try:
        status, answer = asked_until_it_answers(port, body, server)
    finally:
        os.killpg(server.pid, 15)
        server.wait()
    assert status == 200, (answer, (tmp_path / "log").read_text())
    assert_right(answer["predictions"], network)


def asked_until_it_answers(port: int, body: str, server: subprocess.Popen[bytes]) -> tuple[int, dict]:
    while server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    pytest.fail("the server ended")


def test_its_requirements_name_neither_tensorflow_nor_all_of_mlflow(folder: Path) -> None:
    for file in ("requirements.txt", "conda.yaml"):
        text = (folder / file).read_text()
        assert "onnxruntime==" in text
        assert "mlflow-skinny==" in text
        assert not any(name in text for name in ("tensorflow", "keras", "pyspark", "mlflow==", "scikit"))
    assert (folder / "requirements.txt").read_text().splitlines()[:-1] == requirements(onnx=True)


def test_without_an_onnx_file_all_is_as_before(tmp_path: Path) -> None:
    network, _ = hand_made(tmp_path)
    folder = model_folder(tmp_path, network, None)
    assert (folder / "requirements.txt").read_text().splitlines()[:-1] == requirements()
    assert not list(folder.rglob("*.onnx"))
    assert json.loads((folder / "scorer" / "scorer.json").read_text())["onnx"] is None


def test_a_model_that_finds_its_network_elsewhere_carries_none(tmp_path: Path) -> None:
    network, onnx = hand_made(tmp_path)
    folder = model_folder(tmp_path, network, onnx, uri="runs:/1/networks/x.keras")
    assert not [*folder.rglob("*.onnx"), *folder.rglob("*.keras")]
    assert "onnxruntime" not in (folder / "requirements.txt").read_text()
    assert not any(b"onnxDigest" in part.read_bytes() for part in folder.rglob("part-*"))


def test_a_featurizer_that_is_saved_without_its_network_names_no_onnx_file(tmp_path: Path) -> None:
    network, onnx = hand_made(tmp_path)
    for whole in (True, False):
        featurizer = DeepImageFeaturizer.from_network(network, embedWeights=whole)
        featurizer.carry_onnx(onnx)
        assert featurizer.network().file == str(onnx)
        folder = tmp_path / f"whole {whole}"
        NetworkStage(featurizer).write(folder)
        assert any(b"onnxDigest" in part.read_bytes() for part in folder.rglob("part-*")) == whole
        carried = sorted(file.suffix for file in folder.glob("network/*"))
        assert carried == ([".keras", ".onnx"] if whole else [])


@pytest.mark.parametrize("damage", ["missing", "another"])
def test_an_onnx_file_other_than_the_stated_one_gets_a_sentence(damage: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path, *hand_made(tmp_path))
    (carried,) = folder.glob(f"{PIPELINE_FOLDER}/stages/*/network/*.onnx")
    if damage == "missing":
        carried.unlink()
    else:
        carried.write_bytes(carried.read_bytes() + b"\x20\x01")
    with pytest.raises(NetworkError, match=f"of the network small is {damage}: its sha256 should be"):
        Scorer.load(folder)


def test_one_that_states_what_is_not_known_gets_a_sentence(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, *hand_made(tmp_path))
    description = folder / "scorer" / "scorer.json"
    description.write_text(description.read_text().replace('"onnx"', '"onnxx"'))
    with pytest.raises(ModelError, match="cannot be read by this version of tuner"):
        Scorer.load(folder)


# With TensorFlow and Spark


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glyphs")
    return model_folder(folder, embedded(folder), NETWORK_FILES["GlyphNet"].with_suffix(".onnx"))


def test_both_engines_agree(glyphs: Path) -> None:
    by_onnx, reasons = Scorer.load(glyphs).score(IMAGES)
    by_keras, same_reasons = Scorer.load(glyphs, keras=True).score(IMAGES)
    assert Scorer.load(glyphs).network.file.endswith(".onnx")
    assert Scorer.load(glyphs, keras=True).network.file.endswith(".keras")
    assert reasons == same_reasons
    np.testing.assert_allclose(by_onnx, by_keras, rtol=0, atol=1e-5)


def test_both_faces_agree_and_go_on_to_when_saved_again(
    glyphs: Path, spark: SparkSession, tmp_path: Path
) -> None:
    from pyspark.ml import PipelineModel

    pipeline = PipelineModel.load(f"{glyphs}/{PIPELINE_FOLDER}")
    assert pipeline.stages[0].network().file.endswith(".onnx")
    pipeline.save(str(tmp_path / "again"))
    scores, _ = Scorer.load(glyphs).score(IMAGES)
    for folder in (glyphs / PIPELINE_FOLDER, tmp_path / "again"):
        loaded = PipelineModel.load(str(folder))
        rows = sorted(loaded.transform(contents_frame(spark, IMAGES)).collect(), key=lambda row: row.number)
        for row, expected in zip(rows, scores, strict=True):
            assert (row.probability is None) == bool(np.isnan(expected).any())
            if row.probability is not None:
                np.testing.assert_allclose(row.probability.toArray(), expected, rtol=0, atol=1e-5)
                assert row.predicted_label == LABELS[int(expected.argmax())]
    names = sorted(file.suffix for file in (tmp_path / "again").glob("stages/*/network/*"))
    assert names == [".keras", ".onnx"]
