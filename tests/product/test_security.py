"""What comes from outside cannot run code, break out of a page, or write where it should not."""

import ast
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

from tests.conftest import FinishedSearch
from tuner.base.errors import ExperimentError, ImageError, NetworkError
from tuner.evaluation.metrics import evaluate
from tuner.experiment.file import read_experiment
from tuner.experiment.networks import NetworkSpec
from tuner.images.decoding import decode_image
from tuner.networks.files import pack_saved_model
from tuner.networks.resolution import resolve_network
from tuner.networks.store import NetworkStore
from tuner.reports import charts, pages

TUNER = Path(__file__).resolve().parents[2] / "tuner"
BASE = "name: a\nimages: photos\nsearch: {backbone: GlyphNet}\n"


def refusal(tmp_path: Path, text: str) -> str:
    file = tmp_path / "experiment.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ExperimentError) as caught:
        read_experiment(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Experiment files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{made}]]",
        "!!python/object/new:os.system [touch {made}]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!touch {made}",
    ],
)
def test_a_yaml_tag_makes_no_object(tmp_path: Path, value: str):
    made = tmp_path / "made"
    sentence = refusal(tmp_path, BASE.replace("name: a", f"name: {value.format(made=made)}"))
    assert "is not valid YAML: could not determine a constructor" in sentence
    assert not made.exists()


def bomb(levels: int) -> str:
    """A few lines of YAML that stand for 9^levels items."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(bomb(4) + BASE.replace("name: a", "name: *a3"), id="bomb as name"),
        pytest.param(bomb(4) + BASE.replace("GlyphNet", "*a3"), id="bomb as networks"),
        pytest.param(bomb(4) + BASE.replace("GlyphNet", "a, regParam: *a3"), id="bomb as space"),
        pytest.param(f"name: {'[' * 3000}{']' * 3000}", id="deep"),
        pytest.param(BASE.replace("GlyphNet", f"a, regParam: 1{'0' * 400}"), id="400 digits"),
        pytest.param(BASE.replace("GlyphNet", f"a, seed: 1{'0' * 5000}"), id="5000 digits"),
        pytest.param(BASE + 'cache: "a\\0b"\n', id="null byte in cache"),
        pytest.param(BASE.replace("name: a", 'name: ".."'), id="name of two dots"),
        pytest.param(BASE.replace("name: a", 'name: "a\\nb"'), id="name of two lines"),
        pytest.param(BASE + "registry: {name: ../up}\n", id="model's name that climbs"),
        pytest.param("name: &a [*a]\nimages: x\nsearch: {backbone: a}\n", id="a list in itself"),
        pytest.param("&a\nname: a\nimages: x\nsearch: *a\n", id="a file in itself"),
        pytest.param("name: \0", id="null byte"),
        pytest.param(BASE + "? [1, 2]\n: 3\n", id="a list as key"),
    ],
)
def test_a_hostile_file_is_refused_in_one_short_sentence(tmp_path: Path, text: str):
    assert len(refusal(tmp_path, text)) < 1000


def test_a_network_whose_name_is_no_text_is_refused_with_an_option_too(tmp_path: Path):
    file = tmp_path / "experiment.yaml"
    file.write_text(BASE.replace("GlyphNet", "[{name: [a]}]"), encoding="utf-8")
    with pytest.raises(ExperimentError):
        read_experiment(file, {"backbone": "a,GlyphNet,{name: [a]}"})
    read_experiment(file, {"backbone": "GlyphNet"})  # the option takes the place of what is wrong


ESCAPES = ["../up", "/root", "a/../../b", "..\\up", "a/b", "", "a\n/b"]


@pytest.mark.parametrize("name", ESCAPES)
def test_the_name_of_a_search_is_no_path(tmp_path: Path, name: str):
    """It names the MLflow experiment, the run, the data and the registered model."""
    quoted = name.replace("\\", "\\\\").replace("\n", "\\n")
    assert "name is" in refusal(tmp_path, BASE.replace("name: a", f'name: "{quoted}"'))


@pytest.mark.parametrize("name", [*ESCAPES, "..", ".", ".hidden", "-rf", "a b", "a\n", "<b>", "a:b", "ü"])
def test_the_name_of_a_network_is_no_path(tmp_path: Path, name: str):
    """It names runs (`003-<name>`), tables and metrics; with a file of one's own it can be anything."""
    quoted = name.replace("\\", "\\\\").replace("\n", "\\n")
    network = f'{{name: "{quoted}", file: a.keras, input_size: 8, preprocessing: tf}}'
    assert "search.backbone.0.name is" in refusal(tmp_path, BASE.replace("GlyphNet", f"[{network}]"))


@pytest.mark.parametrize("alias", ["../up", "a/b", "..", "", "a\n", "a b"])
def test_the_alias_of_a_model_is_no_path(tmp_path: Path, alias: str):
    quoted = alias.replace("\n", "\\n")
    assert "registry.alias is" in refusal(tmp_path, BASE + f'registry: {{alias: "{quoted}"}}\n')


def test_a_stored_network_is_named_by_its_content_wherever_its_file_is(tmp_path: Path):
    """So what a run stores of it stands in `networks/<digest>.keras`, however its path climbs."""
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
    (tmp_path / "deep" / "er").mkdir(parents=True)
    network.save(tmp_path / "up.keras")
    spec = NetworkSpec(
        name="mine",
        file=tmp_path / "deep" / "er" / ".." / ".." / "up.keras",
        input_size=8,
        preprocessing="tf",
    )
    store = tmp_path / "store"
    backbone = resolve_network(spec, "float32", NetworkStore(store))
    assert Path(backbone.file) == store / "networks" / f"{backbone.digest}.keras"
    assert len(backbone.digest) == 64
    assert int(backbone.digest, 16) >= 0
    assert len(backbone.key) == 64
    assert int(backbone.key, 16) >= 0


# Pages --------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """The names of the elements of a page, and their attributes that run code."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.handlers: set[str] = set()
        self.scripts = 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.scripts += tag == "script"
        self.handlers |= {name for name, _ in attrs if name.startswith("on")}


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</title><b>",
    "'\"><i>",
    "$body",
    "{{7*7}}",
]


def test_class_names_add_nothing_to_the_pages_of_a_trial_and_of_the_test():
    generator = np.random.default_rng(0)
    plain = [f"class {number}" for number in range(len(HOSTILE))]
    found = []
    for labels in (plain, HOSTILE):
        truth = np.arange(60) % len(labels)
        scores = generator.dirichlet(np.ones(len(labels)), 60)
        evaluation = evaluate(truth, scores, labels)
        figure = charts.confusion_figure(evaluation)
        roc = charts.roc_figure(truth, scores, labels)
        for page in (
            pages.light_figure_html(figure, "m.png", library="a", picture="b"),
            pages.figure_html(figure, roc),
        ):
            parsed = Elements(page)
            found.append((parsed.names, parsed.scripts, parsed.handlers))
    assert found[:2] == found[2:]
    assert all(not handlers for _, _, handlers in found)


@pytest.mark.long
def test_a_search_of_a_class_called_b_has_no_bold_text_in_its_pages(
    finished_search: FinishedSearch, tmp_path: Path
):
    client = finished_search.client()
    read = 0
    for run in (finished_search.parent(), *finished_search.trials()):
        folder = mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id,
            dst_path=str(tmp_path / run.info.run_id),
            tracking_uri=client.tracking_uri,
        )
        for file in Path(folder).rglob("*.html"):
            parsed = Elements(file.read_text(encoding="utf-8"))
            assert "script" in parsed.names
            assert "b" not in parsed.names, file
            assert not parsed.handlers, file
            read += 1
    assert read >= 4


# Networks from outside ----------------------------------------------------------------------------


def with_lambda(depth: int, made: Path) -> keras.Model:
    """A network with a Lambda layer, as many models deep as is said; its code would make a file."""

    def code(x, name=str(made)):
        open(name, "w").close()  # noqa: PTH123
        return x

    network = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Lambda(code), keras.layers.Conv2D(2, 3)]
    )
    for _ in range(depth):
        network = keras.Sequential([keras.Input((8, 8, 3)), network])
    return network


@pytest.mark.parametrize("depth", [0, 2])
def test_a_lambda_layer_is_refused_and_does_not_run(depth: int, tmp_path: Path):
    made = tmp_path / "made"
    file = tmp_path / "mine.keras"
    with_lambda(depth, made).save(file)
    made.unlink()  # building it ran it
    spec = NetworkSpec(name="mine", file=file, input_size=8, preprocessing="unit")
    with pytest.raises(NetworkError, match=r"mine\.keras has a Lambda layer.* is not loaded: build"):
        resolve_network(spec, "float32", NetworkStore(tmp_path / "store"))
    assert not made.exists()
    assert not list((tmp_path / "store").glob("*.keras"))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_weights_are_read_without_the_layers_beside_them(suffix: str, tmp_path: Path):
    """Keras ignores `safe_mode` for .h5 files: their weights are read, never their network."""
    made = tmp_path / "made"
    file = tmp_path / f"weights{suffix}"
    with_lambda(0, made).save(file)
    made.unlink()
    with pytest.raises(NetworkError, match="is not of GlyphNet without its top"):
        resolve_network(
            NetworkSpec(name="GlyphNet", weights=str(file)), "float32", NetworkStore(tmp_path / "store")
        )
    assert not made.exists()


def test_an_h5_file_is_no_network_of_ones_own(tmp_path: Path):
    made = tmp_path / "made"
    with_lambda(0, made).save(tmp_path / "mine.h5")
    made.unlink()
    spec = NetworkSpec(name="mine", file=tmp_path / "mine.h5", input_size=8, preprocessing="unit")
    with pytest.raises(NetworkError, match=r"neither a \.keras file nor a SavedModel"):
        resolve_network(spec, "float32", NetworkStore(tmp_path / "store"))
    assert not made.exists()


def test_a_packed_network_holds_no_name_that_climbs(tmp_path: Path):
    (tmp_path / "model" / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index", "..odd"):
        (tmp_path / "model" / name).write_bytes(b"x")
    pack_saved_model(tmp_path / "model", tmp_path / "model.zip")
    names = zipfile.ZipFile(tmp_path / "model.zip").namelist()
    assert sorted(names) == ["..odd", "saved_model.pb", "variables/variables.index"]


# Nothing runs or unpickles what it reads ----------------------------------------------------------

MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "yaml",
    "code",
}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "enable_unsafe_deserialization"}
UNPICKLERS = {"read_pickle", "pickleFile", "loads_pickle", "Unpickler", "unsafe_load", "full_load"}
OPTIONS = {"allow_pickle": False, "safe_mode": True, "shell": False, "typ": "safe"}


def dangers(source: str) -> list[str]:
    """What in a module's source could run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [alias.name for alias in names if alias.name.partition(".")[0] in MODULES]
            case ast.ImportFrom(module=str(module), names=names):
                parts = {*module.split("."), *(alias.name for alias in names)}
                safe = {"yaml"} if module.startswith("ruamel.") else set()
                if parts == {"joblib", "cpu_count"}:  # which reads nothing but numbers
                    safe = {"joblib"}
                found += sorted(parts & (MODULES | UNPICKLERS) - safe)
            case ast.Call(func=function, keywords=keywords):
                name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                # Patterns and Keras models are compiled, too.
                own = name == "compile" and ast.unparse(function) not in ("compile", "builtins.compile")
                if (name in CALLS and not own) or name in UNPICKLERS:
                    found.append(name)
                for option in keywords:
                    if option.arg in OPTIONS and ast.unparse(option.value) != repr(OPTIONS[option.arg]):
                        found.append(ast.unparse(option))
                given = {option.arg for option in keywords}
                if name == "load_model" and "keras" in ast.unparse(function) and "safe_mode" not in given:
                    found.append("load_model without safe_mode")
    return found


@pytest.mark.parametrize("file", sorted(TUNER.rglob("*.py")), ids=lambda file: str(file.relative_to(TUNER)))
def test_no_module_unpickles_or_runs_what_it_reads(file: Path):
    assert dangers(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import joblib.externals",
        "from joblib import cpu_count, load",
        "from pyspark import cloudpickle",
        "from pyspark.cloudpickle import loads",
        "np.load(file, allow_pickle=True)",
        "pd.read_pickle(file)",
        "import yaml",
        "YAML(typ='unsafe')",
        "eval(text)",
        "exec(text)",
        "compile(text, name, mode)",
        "builtins.compile(text, name, mode)",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "keras.saving.load_model(file)",
        "keras.saving.load_model(file, safe_mode=False)",
        "keras.config.enable_unsafe_deserialization()",
    ],
)
def test_the_search_for_dangers_finds_them(source: str):
    assert dangers(source)


def test_what_is_no_danger_is_none():
    harmless = ["import re\nre.compile('a')", "model.compile()", "YAML(typ='safe')"]
    assert not dangers("\n".join([*harmless, "np.load(file, allow_pickle=False)"]))


def test_an_array_or_a_pickle_is_no_image(tmp_path: Path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for content in ((tmp_path / "objects.npy").read_bytes(), b"\x80\x04cposix\nsystem\n(S'touch x'\ntR."):
        with pytest.raises(ImageError, match="not an image of a known format"):
            decode_image(content)
