from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.helpers.experiments import WORDS, experiments, plain_data
from tuner.base.errors import ExperimentError
from tuner.experiment.file import OVERRIDES, experiment_of, read_experiment, read_yaml, yaml_text
from tuner.experiment.schema import Experiment


def plain() -> dict:
    return {"name": "football", "images": "photos", "search": {"backbone": ["VGG16"]}}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def nested(place: tuple[str, ...], value: object) -> dict:
    """Plain data with one value at a place."""
    data = inner = plain()
    for group in place[:-1]:
        inner = inner.setdefault(group, {})
    inner[place[-1]] = value
    return data


def test_a_file_is_read_as_yaml_of_version_1_2(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1e-4\nb: 5:30\nc: no\nd: 'ñ'\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1e-4, "b": "5:30", "c": "no", "d": "ñ"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no experiment file .*: check the path"),
        (b"\xff\xfe\x00", "cannot be read: "),
        (b"a: [", "is not valid YAML: "),
        (b"a: 1\na: 2", "is not valid YAML: .*duplicate"),
        (b"a: !!python/object:os.system []", "is not valid YAML: "),
        (b"[" * 5000, "is not valid YAML: "),
        (b"a: " + b"9" * 5000, "is not valid YAML: "),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    file = tmp_path / "a.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ExperimentError, match=sentence) as caught:
        read_experiment(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


@given(anything)
def test_any_data_are_an_experiment_or_a_sentence_that_says_where(data: object) -> None:
    with pytest.raises(ExperimentError, match=r"^The letter") as caught:
        experiment_of(data, "The letter")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "value"), [("seed", "8"), ("validation", "cv:3"), ("precision", "bfloat16")]
)
def test_an_option_is_the_same_as_its_key_in_the_file(option: str, value: str) -> None:
    overridden = experiment_of(plain(), "it", {option: value})
    written = experiment_of(nested(OVERRIDES[option], value), "it")
    assert overridden == written != experiment_of(plain(), "it")


@pytest.mark.parametrize("option", OVERRIDES)
@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_option_leaves_the_file_alone(option: str, empty: str | None) -> None:
    assert experiment_of(plain(), "it", {option: empty}) == experiment_of(plain(), "it")


def test_a_group_without_keys_has_its_defaults() -> None:
    assert experiment_of(plain() | {"split": None, "gate": {}}, "it") == experiment_of(plain(), "it")


def test_a_key_that_is_misspelt_is_named() -> None:
    with pytest.raises(ExperimentError, match=r"the key search\.regparam is unknown"):
        experiment_of(nested(("search", "regparam"), 1), "it")


# Written and read in one dialect of YAML

quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@quick
@given(plain_data)
@example({word: [word] for word in WORDS})
def test_plain_data_comes_back_equal(tmp_path: Path, data: object) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(yaml_text(data), encoding="utf-8")
    assert read_yaml(file) == data


@quick
@given(experiments)
def test_any_experiment_comes_back_equal(tmp_path: Path, data: dict) -> None:
    experiment = Experiment.model_validate(data)
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml_text(experiment.to_yaml_dict()), encoding="utf-8")
    assert read_experiment(file) == experiment


@pytest.mark.parametrize("word", ["1e4", "0o17", "2024-01-01", "1.", "true"])
def test_text_that_yaml_takes_for_something_else_is_asked_for_in_quotes(tmp_path: Path, word: str) -> None:
    file = tmp_path / "experiment.yaml"
    text = "name: {}\nimages: b\nsearch: {{backbone: VGG16}}\n"
    file.write_text(text.format(word), encoding="utf-8")
    with pytest.raises(ExperimentError, match=r"name is read as .*: put it in quotes, as text\.$"):
        read_experiment(file)
    file.write_text(text.format(f'"{word}"'), encoding="utf-8")
    assert read_experiment(file).name == word


@pytest.mark.parametrize("key", ["name", "images", "search.max_evals"])
@pytest.mark.parametrize("word", ["", "null", "~", "Null"])
def test_a_key_without_a_value_is_told_from_text(tmp_path: Path, key: str, word: str) -> None:
    given = {"name": "a", "images": "b", "search.max_evals": "3"} | {key: word}
    file = tmp_path / "experiment.yaml"
    file.write_text(
        f"name: {given['name']}\nimages: {given['images']}\n"
        f"search:\n  backbone: VGG16\n  max_evals: {given['search.max_evals']}\n",
        encoding="utf-8",
    )
    with pytest.raises(ExperimentError, match=f"the key {key} has no value .null and ~ are none, too.: "):
        read_experiment(file)


def test_a_date_is_shown_as_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("name: 2024-01-01\nimages: b\nsearch: {backbone: VGG16}\n", encoding="utf-8")
    with pytest.raises(ExperimentError, match="name is read as 2024-01-01: put it in quotes"):
        read_experiment(file)
