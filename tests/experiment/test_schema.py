import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuner.base.errors import ExperimentError
from tuner.experiment.file import read_experiment
from tuner.experiment.schema import Experiment
from tuner.experiment.search import SearchSettings

MINIMAL = """
name: football
images: photos
search:
  backbone: [InceptionV3]
"""


def read(tmp_path: Path, text: str = MINIMAL, **overrides: str) -> Experiment:
    file = tmp_path / "experiment.yaml"
    file.write_text(text, encoding="utf-8")
    return read_experiment(file, overrides)


def refusal(tmp_path: Path, text: str = MINIMAL, **overrides: str) -> str:
    with pytest.raises(ExperimentError) as caught:
        read(tmp_path, text, **overrides)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "experiment.yaml" in sentence
    return sentence


def test_yaml_numbers_are_those_of_yaml_1_2(tmp_path: Path):
    """YAML 1.1 reads 5:30 as 330 and 1e-4 as text."""
    text = MINIMAL + "  maxIter: 5:30\n  regParam: 1e-4\n  elasticNetParam: [0, 0.5, 1.0]\n"
    search = read(tmp_path, text).search
    assert search.maxIter.bounds == (5, 30)
    assert search.regParam.values == (1e-4,)
    assert search.elasticNetParam.values == (0, 0.5, 1)


def test_options_override_the_file_and_empty_ones_do_not(tmp_path: Path):
    text = MINIMAL + "  seed: 7\n  max_evals: 3\n"
    experiment = read(tmp_path, text, seed="8", max_evals="", backbone="VGG16,VGG19", validation="cv:3")
    assert experiment.search.seed == 8
    assert experiment.search.max_evals == 3
    assert [spec.name for spec in experiment.search.backbone] == ["VGG16", "VGG19"]
    assert experiment.split.folds == 3


def test_backbones_named_in_an_option_keep_what_the_file_says_of_them(tmp_path: Path):
    text = MINIMAL.replace("InceptionV3", "{name: mine, file: a.keras, input_size: 64, preprocessing: tf}")
    (mine,) = read(tmp_path, text, backbone="mine").search.backbone
    assert mine.file == Path("a.keras")
    assert mine.input_size == (64, 64)


def test_regparam_ranges_are_log_uniform_by_default(tmp_path: Path):
    search = read(tmp_path, regParam="1e-4:1", elasticNetParam="0:1").search
    assert search.regParam.log
    assert not search.elasticNetParam.log
    assert not read(tmp_path, regParam="0:1:linear").search.regParam.log


@pytest.mark.parametrize(
    ("written", "ratio"),
    [("1/3", Fraction(1, 3)), ("0.2", Fraction(1, 5)), ("20%", Fraction(1, 5)), ("0.1", Fraction(1, 10))],
)
def test_ratios_are_exact(tmp_path: Path, written: str, ratio: Fraction):
    assert read(tmp_path, MINIMAL + f"split: {{test: {written}}}\n").split.test == ratio


@given(
    low=st.floats(1e-9, 1e3, allow_nan=False),
    factor=st.floats(1.001, 1e3),
    log=st.booleans(),
    values=st.lists(st.floats(0, 1, allow_nan=False), min_size=1, max_size=4, unique=True),
)
def test_written_spaces_are_read_back(low, factor, log, values):
    search = SearchSettings(
        backbone="VGG16",
        regParam=f"{low!r}:{low * factor!r}:{'log' if log else 'linear'}",
        elasticNetParam=values,
    )
    assert search.regParam.bounds == (low, low * factor)
    assert search.regParam.log is log
    assert search.elasticNetParam.values == tuple(values)


@pytest.mark.parametrize("text", [MINIMAL, MINIMAL + "  regParam: 1e-4:1\nsplit: {validation: cv:5}\n"])
def test_plain_data_gives_the_experiment_back(tmp_path: Path, text: str):
    experiment = read(tmp_path, text)
    assert Experiment(**experiment.to_yaml_dict()) == experiment


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("images", MINIMAL.replace("photos", "~/my photos")),
        ("cache", MINIMAL + "cache: ~/my photos\n"),
        ("weights", MINIMAL.replace("[InceptionV3]", "[{name: VGG16, weights: ~/my photos}]")),
        (
            "file",
            MINIMAL.replace(
                "[InceptionV3]", "[{name: a, file: ~/my photos, input_size: 9, preprocessing: tf}]"
            ),
        ),
    ],
)
def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch, key: str, text: str):
    monkeypatch.setenv("HOME", "/home/me")
    experiment = read(tmp_path, text)
    holder = experiment.search.backbone[0] if key in ("weights", "file") else experiment
    assert str(getattr(holder, key)) == "/home/me/my photos"
    if key in ("images", "cache"):
        assert str(getattr(read(tmp_path, **{key: "~"}), key)) == "/home/me"
        assert str(getattr(read(tmp_path, **{key: "a/~"}), key)) == "a/~"


def test_a_home_that_is_not_known_is_one_sentence(tmp_path: Path):
    assert "begins with a home folder that is not known here" in refusal(tmp_path, images="~nobody-here/a")
    with pytest.raises(ExperimentError, match=r"There is no experiment file ~nobody-here/a: .* not known"):
        read_experiment(Path("~nobody-here/a"))


def test_the_experiment_file_may_be_in_the_home_folder(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    read(tmp_path)
    assert read_experiment(Path("~/experiment.yaml")).name == "football"


def test_a_path_that_is_no_utf_8_is_one_sentence(tmp_path: Path):
    for key in ("images", "cache"):
        assert "is no UTF-8" in refusal(tmp_path, **{key: "caf\udce9"})


def test_a_file_uri_may_be_written_in_either_way(tmp_path: Path):
    for uri in ("file:///my%20photos", "file:/my photos", "file://localhost/my photos"):
        assert read(tmp_path, cache=uri).cache == Path("/my photos")
    for uri in ("hdfs://host/a//b", "s3a://bucket/cache"):  # a path would have fewer slashes
        assert read(tmp_path, cache=uri).cache == uri
        assert Experiment(**read(tmp_path, cache=uri).to_yaml_dict()).cache == uri


# What MLflow does with a name: tests/product/test_names.py.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[(name, "leave out") for name in ("a?b", "a#b", "a@b", "a/b", "a:b", "a\\b", "a\nb", "a\u0085b")],
        ("a\ud83d", "leave out"),
        *[(name, "leave out") for name in ("a\u2028", "a\tb", " a", "a ", "..a", "a'\"b", "a\x7fb")],
        *[(name, "which can be seen") for name in (" ", ".", "..", "\u200b", "\u202e", ". .")],
        ("a" * 201, "has 201 letters"),
    ],
)
def test_names_that_no_address_holds_are_one_sentence(tmp_path: Path, name: str, expected: str):
    quoted = json.dumps(name)
    assert expected in refusal(tmp_path, MINIMAL.replace("football", quoted))
    assert expected in refusal(tmp_path, MINIMAL + f"registry: {{name: {quoted}}}\n")


@pytest.mark.parametrize(
    "name", ["a b", "100%", "a'b", 'a"b', "é 😀", "\u202ea", "a..b", "1e4", "-a", "a;b&c=d+e"]
)
def test_names_that_an_address_holds_are_taken(tmp_path: Path, name: str):
    assert read(tmp_path, MINIMAL.replace("football", json.dumps(name, ensure_ascii=False))).name == name


def test_experiments_are_frozen(tmp_path: Path):
    with pytest.raises(ValidationError):
        read(tmp_path).name = "other"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"maxIter": "-1:3"}, "maxIter is -1:3"),
        ({"maxIter": "1.5"}, "whole numbers"),
        ({"maxIter": "30:5"}, "the range '30:5' is empty"),
        ({"maxIter": "5:5"}, "is empty"),
        ({"elasticNetParam": "0:1.5"}, "within [0, 1]"),
        ({"elasticNetParam": "-0.1"}, "within [0, 1]"),
        ({"regParam": "-1:1:linear"}, "0 or more"),
        ({"regParam": "0:1"}, "must start above 0"),
        ({"regParam": "1:2:3:4"}, "is not a range"),
        ({"regParam": "1:2:sqrt"}, "is not a range"),
        ({"regParam": "many"}, "'many' is not a number"),
        ({"regParam": "nan"}, "not a finite number"),
        ({"regParam": ","}, "is not a number"),
        ({"max_evals": "0"}, "max_evals is '0'"),
        ({"parallelism": "0"}, "parallelism is '0'"),
        ({"parallelism": "two"}, "parallelism is 'two'"),
        ({"timeout": "0"}, "timeout is '0'"),
        ({"validation": "cv:1"}, "k of 2 or more"),
        ({"validation": "bootstrap"}, "holdout, or cv:k"),
        ({"algorithm": "grid"}, "search.algorithm is 'grid'"),
        ({"metric": "auc"}, "search.metric is 'auc'"),
        ({"select": "one-standard-error"}, "needs folds"),
        ({"backbone": "VGG16,VGG16"}, "listed twice"),
        ({"backbone": "VGG16,"}, "backbone"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"seed": "-1"}, "seed is '-1'"),
    ],
)
def test_values_that_cannot_work_are_one_sentence(tmp_path: Path, overrides: dict, expected: str):
    assert expected in refusal(tmp_path, **overrides)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must hold keys and values"),
        ("- a\n- b\n", "must hold keys and values"),
        ("name: [", "not valid YAML"),
        ("name: a\nname: b\n", "not valid YAML"),
        (MINIMAL + "serch: {}\n", "the key serch is unknown"),
        (MINIMAL + "  regparam: 1\n", "the key search.regparam is unknown"),
        (MINIMAL.replace("images: photos\n", ""), "the key images is missing"),
        (MINIMAL.replace("name: football", "name: a/b"), "name is 'a/b'"),
        (MINIMAL + "split: 3\n", "split must hold keys and values"),
        (MINIMAL + "split: {test: 3/2}\n", "between 0 and 1"),
        (MINIMAL + "split: {test: third}\n", "is not a ratio"),
        (MINIMAL + "registry: {stage: Live}\n", "registry.stage is 'Live'"),
        (MINIMAL.replace("[InceptionV3]", "[]"), "backbone"),
        (MINIMAL.replace("[InceptionV3]", "[{name: mine, file: a.keras}]"), "input_size and preprocessing"),
    ],
)
def test_files_that_cannot_work_are_one_sentence(tmp_path: Path, text: str, expected: str):
    assert expected in refusal(tmp_path, text)


def test_missing_file_is_one_sentence(tmp_path: Path):
    with pytest.raises(ExperimentError, match="There is no experiment file"):
        read_experiment(tmp_path / "none.yaml")


def test_the_gate_compares_by_what_the_search_ranks_by_unless_it_says_otherwise(tmp_path: Path):
    ranked = read(tmp_path, MINIMAL + "  metric: logLoss\n")
    assert ranked.gate_metric == "logLoss"
    assert (ranked.gate.min_gain, ranked.gate.max_regression_per_class) == (0, None)
    assert read(tmp_path, MINIMAL + "gate: {metric: f1, min_gain: 1e-3}\n").gate_metric == "f1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gate: {metric: auc}", "gate.metric is 'auc'"),
        ("gate: {min_gain: -1}", "gate.min_gain is -1"),
        ("gate: {max_regression_per_class: 2}", "gate.max_regression_per_class is 2"),
        ("gate: strict", "gate must hold keys and values"),
        ("registry: {alias: challenger}", "the alias challenger has a meaning of its own"),
        ("registry: {alias: v2}", "the alias v2 has a meaning of its own"),
    ],
)
def test_gates_and_aliases_that_cannot_work_are_refused(tmp_path: Path, text: str, expected: str):
    assert expected in refusal(tmp_path, MINIMAL + text + "\n")
