"""A model as one ONNX file: the model's answers, by ONNX Runtime and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.helpers import onnx_files
from tests.helpers.models import ODD_IMAGES, as_png, random_head
from tuner.base.choices import Preprocessing
from tuner.base.errors import ModelError
from tuner.classifiers.heads.files import Head
from tuner.classifiers.heads.mllib import MarginsHead, PerceptronHead
from tuner.classifiers.heads.trees import TreesHead
from tuner.classifiers.linear import LinearHead
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.scikit import fit_sklearn
from tuner.images.decoding import decode_image, resize
from tuner.images.preprocessing import MODES
from tuner.models.scorer import Scorer
from tuner.networks.resolution import Network
from tuner.serving.onnx_export import export_onnx

SIZE, WIDTH = (16, 12), 5
LABELS = ('it\'s "quoted"', "ñandú <b>", "[UNK]", "")
IMAGES = list(ODD_IMAGES.values())


def scorer_of(folder: Path, head: Head, mode: Preprocessing = "unit", labels=LABELS) -> Scorer:
    """A model whose network is an ONNX file made by hand."""
    file = onnx_files.saved(onnx_files.small_network(SIZE, WIDTH), folder)
    return Scorer(Network("small", "d" * 64, str(file), SIZE, mode, WIDTH, "float32"), head, labels)


def perceptron() -> PerceptronHead:
    weights = np.random.default_rng(1).normal(size=3 * (WIDTH + 1) + 4 * (3 + 1))
    return PerceptronHead(np.array([WIDTH, 3, 4]), weights)


def margins() -> MarginsHead:
    rng = np.random.default_rng(1)
    return MarginsHead(rng.normal(size=(4, WIDTH)) * 1000, rng.normal(size=4))


def of_sklearn(name: str, **values: object) -> Head:
    rng = np.random.default_rng(1)
    label = rng.choice([0, 1, 3], 80)
    features = np.abs(rng.normal(size=(80, WIDTH)) + 2 * np.eye(4, WIDTH)[label])
    params = TrialParams.of("any", f"sklearn.{name}", **values)
    return fit_sklearn(params, features, label, None, classes=4, seed=1).head


HEADS = {
    "logistic regression": lambda: random_head(4, WIDTH),
    "perceptron": perceptron,
    "margins": margins,
    "scaled": lambda: of_sklearn("LogisticRegression", prestep="StandardScaler"),
    "unit": lambda: of_sklearn("LinearSVC", prestep="Normalizer"),
}


def by_onnx_runtime(file: Path, contents: list[bytes]) -> dict[str, np.ndarray]:
    """What a user without tuner does, but for the decoding."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    pixels = np.stack([resize(decode_image(content), SIZE) for content in contents])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"pixels": pixels}), strict=True))


@pytest.mark.parametrize("name", HEADS)
def test_classifiers_that_are_layers_answer_as_the_model_does(name: str, tmp_path: Path) -> None:
    scorer = scorer_of(tmp_path, HEADS[name]())
    expected, _ = scorer.score(IMAGES)
    done = export_onnx(scorer, tmp_path / "out" / "model.onnx", IMAGES)
    assert (done.images, done.disagreements, done.unread) == (len(IMAGES), 0, 0)
    assert done.difference < 1e-5
    answer = by_onnx_runtime(done.path, IMAGES)
    assert sorted(answer) == sorted([scorer.head.gives, "label_index"])
    known = expected > -1e300
    assert np.abs(expected[known]).std() > 1e-3
    np.testing.assert_allclose(answer[scorer.head.gives][known], expected[known], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(answer["label_index"], expected.argmax(axis=1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("labels", [("no", "yes"), LABELS], ids=["two classes", "four"])
def test_preprocessing_is_part_of_it(mode: Preprocessing, labels: tuple[str, ...], tmp_path: Path) -> None:
    head = random_head(len(labels), WIDTH)
    scale = 100 if mode in ("none", "caffe") else 1
    head = LinearHead(head.coefficients / scale, head.intercepts)
    rng = np.random.default_rng(0)
    images = [as_png(rng.integers(0, high, (*SIZE, 3), np.uint8)) for high in (20, 100, 256)]
    scorer = scorer_of(tmp_path, head, mode, labels)
    done = export_onnx(scorer, tmp_path / "model.onnx", images)
    expected, _ = scorer.score(images)
    assert expected.std(axis=0).max() > 0.001
    np.testing.assert_allclose(
        by_onnx_runtime(done.path, images)["probability"], expected, rtol=0, atol=1e-6
    )


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    scorer = scorer_of(tmp_path, random_head(4, WIDTH), "caffe")
    done = export_onnx(scorer, tmp_path / "model.onnx", IMAGES)
    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    facts = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    assert facts["labels"] == list(LABELS)
    assert facts["input_size"] == list(SIZE)
    assert (facts["preprocessing"], facts["backbone"], facts["opset"]) == ("caffe", "small", 17)
    (pixels,) = session.get_inputs()
    assert (pixels.name, pixels.type, pixels.shape[1:]) == ("pixels", "tensor(uint8)", [*SIZE, 3])


def test_onnx_runtime_is_all_that_it_needs(tmp_path: Path) -> None:
    """In a process that finds onnxruntime, NumPy and Python's own modules."""
    scorer = scorer_of(tmp_path, random_head(4, WIDTH))
    done = export_onnx(scorer, tmp_path / "model.onnx", IMAGES[:1])
    np.save(tmp_path / "pixels.npy", resize(decode_image(IMAGES[0]), SIZE)[None])
    program = (
        "import sys\n"
        "class Only:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        "        if top not in {'onnxruntime', 'numpy'} and top not in sys.stdlib_module_names:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Only())\n"
        "import numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "print(*session.run(['probability'], {'pixels': numpy.load(sys.argv[2])})[0][0])\n"
    )
    command = [sys.executable, "-I", "-c", program, done.path, tmp_path / "pixels.npy"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    expected, _ = scorer.score(IMAGES[:1])
    np.testing.assert_allclose([float(value) for value in ran.stdout.split()], expected[0], atol=1e-6)


def test_what_cannot_be_exported_gets_a_sentence(tmp_path: Path) -> None:
    leaf = np.zeros(1, int)
    trees = TreesHead(leaf - 1, leaf * 1.0, leaf, leaf, np.ones((1, 4)), leaf, np.array(True))
    with pytest.raises(ModelError, match="cannot become part of an ONNX file: linear classifiers"):
        export_onnx(scorer_of(tmp_path, trees), tmp_path / "model.onnx", IMAGES)
    scorer = scorer_of(tmp_path, random_head(4, WIDTH))
    with pytest.raises(ModelError, match=r"must be called \*\.onnx, and --to is .*model\.bin\.$"):
        export_onnx(scorer, tmp_path / "model.bin", IMAGES)
    (tmp_path / "there.onnx").write_bytes(b"mine")
    with pytest.raises(ModelError, match="exists already"):
        export_onnx(scorer, tmp_path / "there.onnx", IMAGES)
    assert (tmp_path / "there.onnx").read_bytes() == b"mine"


def test_a_file_that_answers_otherwise_is_not_kept(tmp_path: Path) -> None:
    scorer = scorer_of(tmp_path, random_head(4, WIDTH))
    other = Scorer(scorer.network, random_head(4, WIDTH, seed=1), LABELS)
    scorer.score = other.score  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"^The ONNX file differs from the model by .*: it was not kept"):
        export_onnx(scorer, tmp_path / "out" / "model.onnx", IMAGES)
    assert list((tmp_path / "out").iterdir()) == []


def test_names_of_the_network_s_own_do_not_clash(tmp_path: Path) -> None:
    model = onnx_files.small_network(SIZE, WIDTH)
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "probability"
    file = onnx_files.saved(model, tmp_path)
    network = Network("small", "d" * 64, str(file), SIZE, "unit", WIDTH, "float32")
    done = export_onnx(Scorer(network, random_head(4, WIDTH), LABELS), tmp_path / "model.onnx", IMAGES)
    onnx.checker.check_model(onnx.load(done.path), full_check=True)
