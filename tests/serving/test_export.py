import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import FinishedSearch, tuner
from tests.helpers.models import CHAMPION, ODD_IMAGES, as_png, embedded, random_head, scorer_of
from tests.images.test_decoding import PAIRS, chunk, png_file
from tuner.base.choices import Decoding
from tuner.base.errors import ModelError
from tuner.classifiers.heads.files import Head
from tuner.classifiers.heads.mllib import MarginsHead, PerceptronHead
from tuner.classifiers.heads.steps import SteppedHead, fit_step
from tuner.classifiers.heads.trees import TreesHead
from tuner.classifiers.linear import LinearHead
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.scikit import SklearnHead, fit_sklearn
from tuner.cli.main import main
from tuner.experiment.networks import NetworkSpec
from tuner.images.decoding import decode_image
from tuner.models.scorer import Scorer
from tuner.networks.files import import_keras
from tuner.networks.resolution import resolve_network
from tuner.networks.store import NetworkStore
from tuner.serving.export import _decode_png, export_model

SIDE = (24, 20)
ODD_LABELS = ('it\'s "quoted"', "ñandú <b>", "[UNK]", "")
# What TensorFlow decodes, in the network's own size: nothing is resized.
EXACT = [as_png(np.random.default_rng(seed).integers(0, 256, (*SIDE, 3), np.uint8)) for seed in range(5)]


def network(folder: Path, spatial: bool) -> Path:
    """A small seeded network; with `spatial`, its output has four dimensions."""
    keras = import_keras()
    keras.utils.set_random_seed(3)
    pixels = keras.Input((*SIDE, 3))
    features = keras.layers.Conv2D(8, 3, activation="relu", strides=2)(pixels)
    if not spatial:
        features = keras.layers.GlobalMaxPooling2D()(features)
    model = keras.Model(pixels, features)
    file = folder / "network.keras"
    model.save(file)
    return file


def small_scorer(
    folder: Path, mode: str, labels: tuple[str, ...], spatial: bool = False, pooling: str = "avg"
) -> Scorer:
    file = network(folder, spatial)
    spec = NetworkSpec(name="small", file=file, input_size=SIDE, preprocessing=mode, pooling=pooling)
    backbone = resolve_network(spec, "float32", NetworkStore(folder / "store"))
    # Features of pixels up to 255 are large: the classifier's margins shall not be.
    head = random_head(len(labels), backbone.width)
    scale = 100 if mode in ("none", "caffe") else 1
    return Scorer(backbone, LinearHead(head.coefficients / scale, head.intercepts), labels)


def keras_user(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """What a user without tuner does with a `.keras` file."""
    model = import_keras().saving.load_model(path)
    return lambda pixels: {name: np.asarray(value) for name, value in model(pixels).items()}


def tensorflow_user(path: Path) -> Callable[[list[bytes]], dict[str, Any]]:
    import_keras()
    import tensorflow as tf

    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    return lambda contents: {
        name: value.numpy() for name, value in signature(content=tf.constant(contents)).items()
    }


@pytest.mark.parametrize(
    "mode",
    ["caffe", "torch", *(pytest.param(mode, marks=pytest.mark.long) for mode in ("tf", "unit", "none"))],
)
@pytest.mark.parametrize("labels", [("no", "yes"), ODD_LABELS], ids=["binomial", "multinomial"])
def test_both_forms_answer_as_the_model_does(mode: str, labels: tuple[str, ...], tmp_path: Path) -> None:
    scorer = small_scorer(tmp_path, mode, labels, spatial=mode == "torch")
    expected, _ = scorer.score(EXACT)
    assert expected.std(axis=0).max() > 0.001
    names = [labels[index] for index in expected.argmax(axis=1)]

    done = export_model(scorer, tmp_path / "out" / "model.keras", "keras", EXACT)
    assert (done.images, done.disagreements, done.unread) == (5, 0, 0)
    assert done.difference < 1e-5
    pixels = np.stack(
        [np.random.default_rng(seed).integers(0, 256, (*SIDE, 3), np.uint8) for seed in range(5)]
    )
    answer = keras_user(done.path)(pixels.astype(np.float32))
    assert [name.decode() for name in answer["prediction"].tolist()] == names
    np.testing.assert_allclose(answer["probability"], expected, rtol=0, atol=1e-5)

    done = export_model(scorer, tmp_path / "out" / "model", "savedmodel", EXACT)
    assert (done.images, done.disagreements, done.unread) == (5, 0, 0)
    answer = tensorflow_user(done.path)(EXACT)
    assert [name.decode() for name in answer["prediction"].tolist()] == names
    np.testing.assert_allclose(answer["probability"], expected, rtol=0, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model", "model.keras"]


@pytest.mark.parametrize("form", ["keras", "savedmodel"])
@pytest.mark.parametrize(("pooling", "width"), [("avg", 8), ("max", 8), ("none", 11 * 9 * 8)])
def test_an_export_pools_as_the_model_does(pooling: str, width: int, form: str, tmp_path: Path) -> None:
    scorer = small_scorer(tmp_path, "unit", ODD_LABELS, spatial=True, pooling=pooling)
    assert scorer.network.width == width
    done = export_model(scorer, tmp_path / f"model.{form}", form, EXACT)
    assert (done.images, done.disagreements) == (5, 0)
    assert done.difference < 1e-6


def of_sklearn(name: str, known: list[int], **values: Any) -> Callable[[int], SklearnHead]:
    """A classifier of scikit-learn that knows some of four classes, of features much as a network gives."""

    def fit(width: int) -> SklearnHead:
        rng = np.random.default_rng(1)
        label = rng.choice(known, 80)
        features = np.abs(rng.normal(size=(80, width)) + 2 * np.eye(4, width)[label])
        params = TrialParams.of("any", f"sklearn.{name}", **values)
        return fit_sklearn(params, features, label, None, classes=4, seed=1).head

    return fit


def margins(width: int) -> MarginsHead:
    rng = np.random.default_rng(1)
    return MarginsHead(rng.normal(size=(4, width)) * 1000, rng.normal(size=4))


def perceptron(width: int) -> PerceptronHead:
    weights = np.random.default_rng(1).normal(size=3 * (width + 1) + 4 * (3 + 1))
    return PerceptronHead(np.array([width, 3, 4]), weights)


def margins_of_components(width: int) -> SteppedHead:
    rows = np.abs(np.random.default_rng(2).normal(size=(80, width)))
    return SteppedHead(fit_step("PCA", rows, 5), margins(5))


EVERY = [0, 1, 2, 3]
HEADS: dict[str, Callable[[int], Head]] = {
    "perceptron": perceptron,
    "margins": margins,
    "scaled": of_sklearn("LogisticRegression", EVERY, prestep="StandardScaler"),
    "two classes known": of_sklearn("LogisticRegression", [1, 3]),
    "unit": of_sklearn("LinearSVC", EVERY, prestep="Normalizer"),
    "components": of_sklearn("Ridge", [0, 1, 3], prestep="PCA", k=4),
    "margins of components": margins_of_components,
}


@pytest.mark.parametrize("form", ["keras", "savedmodel"])
@pytest.mark.parametrize("name", HEADS)
def test_all_that_are_layers_are_exported(name: str, form: str, tmp_path: Path) -> None:
    network = small_scorer(tmp_path, "tf", ODD_LABELS).network
    scorer = Scorer(network, HEADS[name](network.width), ODD_LABELS)
    expected, _ = scorer.score(EXACT)
    done = export_model(scorer, tmp_path / f"model.{form}", form, EXACT)
    assert (done.images, done.disagreements, done.gives) == (5, 0, scorer.head.gives)
    assert done.difference < 1e-5
    if form == "keras":
        pixels = np.stack([decode_image(content) for content in EXACT])
        answer = keras_user(done.path)(pixels.astype(np.float32))
    else:
        answer = tensorflow_user(done.path)(EXACT)
    assert sorted(answer) == sorted(["prediction", scorer.head.gives])
    known = np.abs(expected[expected > -1e300])
    assert known.std() > 1e-3
    size = known.max() if scorer.head.gives == "decision" else 1.0
    np.testing.assert_allclose(answer[scorer.head.gives], expected, rtol=1e-5, atol=1e-5 * size)


def test_what_is_neither_linear_nor_a_perceptron_is_refused_with_a_sentence(tmp_path: Path) -> None:
    network = small_scorer(tmp_path, "tf", ODD_LABELS).network
    leaf = np.zeros(1, int)
    trees = TreesHead(leaf - 1, leaf * 1.0, leaf, leaf, np.ones((1, 4)), leaf, np.array(True))
    for head in (trees, of_sklearn("KNeighbors", EVERY)(network.width)):
        with pytest.raises(
            ModelError, match=r"^The model's classifier cannot become part of a Keras model: linear class"
        ):
            export_model(Scorer(network, head, ODD_LABELS), tmp_path / "no.keras", "keras", EXACT)
        assert not (tmp_path / "no.keras").exists()


def test_a_difference_of_decision_values_is_told_as_a_share_of_the_greatest(tmp_path: Path) -> None:
    network = small_scorer(tmp_path, "tf", ODD_LABELS).network
    scorer = Scorer(network, of_sklearn("Ridge", [0, 1, 3])(network.width), ODD_LABELS)
    honest = scorer.score

    def changed(contents: Any) -> Any:
        scores, reasons = honest(contents)
        scores[scores > -1e300] *= 1.25
        return scores, reasons

    scorer.score = changed  # type: ignore[method-assign]
    with pytest.raises(
        ModelError, match=r"by 0\.2 of the greatest decision value, more than 1e-05: it was not kept\.$"
    ):
        export_model(scorer, tmp_path / "model.keras", "keras", EXACT)


def test_the_saved_model_reads_what_tensorflow_reads_and_the_rest_is_counted(tmp_path: Path) -> None:
    scorer = scorer_of(embedded(tmp_path), ODD_LABELS)
    foreign = {name for name in ODD_IMAGES if name.startswith("TIFF") or name == "WebP RGBA"}
    turned = {name for name in ODD_IMAGES if name.startswith("EXIF")}
    upright = [ODD_IMAGES[name] for name in ODD_IMAGES.keys() - turned]
    done = export_model(scorer, tmp_path / "model", "savedmodel", [*upright, b"no image"])
    assert done.unread == len(foreign) + 1
    assert done.images == len(upright) - len(foreign)
    assert done.disagreements == 0
    assert 1e-5 < done.difference < 0.02  # TensorFlow resizes without rounding on the way
    done = export_model(scorer, tmp_path / "again", "savedmodel", [ODD_IMAGES[name] for name in turned])
    assert done.difference > 0.05  # it does not turn what EXIF says is turned


ROWS = {1: b"\0\x40", 2: b"\0\x10", 4: b"\0\x01"}  # of a pixel 0 and a pixel 1
PALETTE = chunk(b"PLTE", bytes([0, 0, 0, 200, 100, 50]))
SHALLOW = {
    **{f"gray of {depth} bits": png_file(2, 1, depth, 0, b"\0\x40") for depth in (1, 2, 4)},
    **{f"palette of {depth} bits": png_file(2, 1, depth, 3, row, PALETTE) for depth, row in ROWS.items()},
    **{
        f"transparent palette of {depth} bits": png_file(
            2, 1, depth, 3, row, PALETTE + chunk(b"tRNS", b"\xff\x40")
        )
        for depth, row in ROWS.items()
    },
}


@pytest.mark.parametrize("name", [*SHALLOW, *PAIRS])
@pytest.mark.parametrize("ground", ["white", "black"])
def test_png_files_of_all_depths_are_decoded_as_the_model_does(name: str, ground: str) -> None:
    import_keras()
    decoding = Decoding(ground)
    content = (SHALLOW | PAIRS)[name]
    found = _decode_png(content, decoding).numpy()
    np.testing.assert_allclose(found, decode_image(content, decoding=decoding), rtol=0, atol=1)


@pytest.mark.parametrize("decoding", [Decoding("black"), Decoding("white", 4095), Decoding("black", 100)])
def test_both_forms_decode_as_the_model_does(decoding: Decoding, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scorer = small_scorer(tmp_path, "unit", ("no", "yes"))
    network = replace(scorer.network, transparent=decoding.transparent, max_value=decoding.max_value)
    scorer = Scorer(network, scorer.head, scorer.labels)
    sample = [
        as_png(rng.integers(0, 256, (*SIDE, channels), np.uint8).squeeze()) for channels in (1, 2, 3, 4)
    ]
    sample.append(as_png(rng.integers(0, 5000, SIDE, np.uint16)))
    for form, name in (("keras", "model.keras"), ("savedmodel", "model")):
        done = export_model(scorer, tmp_path / "out" / name, form, sample)
        assert (done.images, done.disagreements, done.unread) == (5, 0, 0)
        assert done.difference < 1e-3  # a value may be rounded the other way
    usual = Scorer(replace(network, transparent="white", max_value=None), scorer.head, scorer.labels)
    assert np.abs(scorer.score(sample)[0] - usual.score(sample)[0]).max() > 1e-2


def test_a_saved_model_as_network_is_refused(tmp_path: Path) -> None:
    keras = import_keras()
    model = keras.saving.load_model(network(tmp_path, spatial=False))
    model.export(tmp_path / "folder", verbose=False)
    spec = NetworkSpec(name="mine", file=tmp_path / "folder", input_size=SIDE, preprocessing="unit")
    scorer = scorer_of(resolve_network(spec, "float32", NetworkStore(tmp_path / "store")), ODD_LABELS)
    for form, name in (("keras", "m.keras"), ("savedmodel", "m")):
        with pytest.raises(
            ModelError, match=r"^The network mine is a SavedModel, .* save the network as a"
        ):
            export_model(scorer, tmp_path / name, form, EXACT)
        assert not (tmp_path / name).exists()


def test_targets_that_cannot_be_are_refused(tmp_path: Path) -> None:
    scorer = scorer_of(embedded(tmp_path), ODD_LABELS)
    (tmp_path / "there").mkdir()
    with pytest.raises(ModelError, match=r"there exists already: remove it, or give another --to\.$"):
        export_model(scorer, tmp_path / "there", "savedmodel", [])
    with pytest.raises(
        ModelError, match=r"^A Keras file must be called \*\.keras, and --to is .*model\.h5\.$"
    ):
        export_model(scorer, tmp_path / "model.h5", "keras", [])
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot be written"):
        export_model(scorer, tmp_path / "file" / "model.keras", "keras", [])


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves `--to=~/model.keras` as it is."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    scorer = scorer_of(embedded(tmp_path), ODD_LABELS)
    done = export_model(scorer, Path("~/model.keras"), "keras", EXACT)
    assert done.path == tmp_path / "home" / "model.keras"
    assert done.path.is_file()
    with pytest.raises(
        ModelError, match=r"^~nobody-here/m\.keras begins with a home folder that is not known"
    ):
        export_model(scorer, Path("~nobody-here/m.keras"), "keras", EXACT)
    assert not (tmp_path / "~").exists()


def test_a_keras_file_that_differs_is_not_kept(tmp_path: Path) -> None:
    """Its head is changed behind its back: the check must see it."""
    scorer = scorer_of(embedded(tmp_path), ODD_LABELS)
    honest = scorer.score
    scorer.score = lambda contents: (honest(contents)[0] * 0.9, honest(contents)[1])  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"differs from the model by 0\.\d+ .* it was not kept\.$"):
        export_model(scorer, tmp_path / "out" / "model.keras", "keras", EXACT)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.long
def test_the_command_exports_and_says_how_it_compares(
    finished_search: FinishedSearch, letters: Path, tmp_path: Path
) -> None:
    target = tmp_path / "letters.keras"
    done = tuner(finished_search.folder, "export", CHAMPION, "--to", target, "--images", letters)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{target}: 61 image(s) compared with the model, 0 of another class")
    assert done.stdout.strip().endswith("; 2 not compared, for they cannot be read")
    assert target.stat().st_size < 5 * 2**20


@pytest.mark.usefixtures("search_store")
def test_the_command_ends_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tuner", "export", "models:/letters/77", "--to", "m.keras"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("tuner: The model models:/letters/77 cannot be loaded")
    assert len(error.strip().splitlines()) == 1
