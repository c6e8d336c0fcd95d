"""What holds for every value: of the search space's words and of the feature cache's key."""

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tuner.base.errors import ExperimentError
from tuner.experiment.file import OVERRIDES, read_experiment
from tuner.experiment.schema import Experiment
from tuner.experiment.search import SearchSettings
from tuner.networks.resolution import Network

# The search space --------------------------------------------------------------------------------

NAMES = st.sampled_from(["regParam", "elasticNetParam", "maxIter"])
BASE = "name: a\nimages: photos\nsearch: {backbone: GlyphNet}\n"
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

# Numbers of few digits: what people write.
shares = st.integers(0, 1000).map(lambda number: number / 1000)
written = st.one_of(
    st.lists(shares, min_size=1, max_size=4, unique=True).map(lambda values: ",".join(map(str, values))),
    st.tuples(shares, shares, st.sampled_from(["", ":linear"]))
    .filter(lambda ends: ends[0] < ends[1])
    .map(lambda ends: f"{ends[0]}:{ends[1]}{ends[2]}"),
    st.tuples(shares, shares)
    .filter(lambda ends: 0 < ends[0] < ends[1])
    .map(lambda ends: f"{ends[0]}:{ends[1]}:log"),
)


@given(st.sampled_from(["regParam", "elasticNetParam"]), written)
def test_a_space_is_written_as_it_is_read(name: str, text: str):
    if name == "regParam" and text.startswith("0.0:") and not text.endswith("linear"):
        text += ":linear"  # log by default, and 0 has no logarithm
    space = getattr(SearchSettings(backbone="VGG16", **{name: text}), name)
    again = getattr(SearchSettings(backbone="VGG16", **{name: str(space)}), name)
    assert again == space
    numbers = [float(part) for part in text.replace(":", ",").split(",") if part[0].isdecimal()]
    assert space.bounds == (min(numbers), max(numbers))
    assert space.log == (text.endswith("log") or (name == "regParam" and text.count(":") == 1))


@given(st.floats(1e-9, 1), st.floats(1.001, 100))
def test_a_space_is_written_with_all_its_digits(low: float, factor: float):
    space = SearchSettings(backbone="VGG16", regParam=f"{low!r}:{low * factor!r}").regParam
    assert SearchSettings(backbone="VGG16", regParam=str(space)).regParam == space


@given(st.integers(0, 2**31 - 2), st.integers(1, 1000))
def test_a_range_of_whole_numbers_is_written_as_it_is_read(low: int, width: int):
    high = min(low + width, 2**31 - 1)
    space = SearchSettings(backbone="VGG16", maxIter=f"{low}:{high}").maxIter
    assert space.bounds == (low, high)


# Pieces of the syntax, put together at random, and text of any kind.
garbage = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(
            [
                "0",
                "1",
                "-1",
                "1e400",
                "1e-4",
                "nan",
                "inf",
                ":",
                ",",
                "log",
                "linear",
                " ",
                "_",
                "²",
                "٣",
                "0x1",
                "9" * 400,
            ]
        ),
        max_size=7,
    ).map("".join),
)


@quick
@given(name=NAMES, text=garbage)
def test_any_text_for_a_space_is_a_space_or_one_sentence(tmp_path: Path, name: str, text: str):
    file = tmp_path / "experiment.yaml"
    file.write_text(BASE, encoding="utf-8")
    try:
        space = getattr(read_experiment(file, {name: text}).search, name)
    except ExperimentError as error:
        assert name in str(error)  # noqa: PT017
        return
    low, high = space.bounds
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert 0 <= low <= high


@quick
@given(option=st.sampled_from(sorted(OVERRIDES)), text=garbage)
def test_any_text_for_any_option_is_an_experiment_or_one_sentence(tmp_path: Path, option: str, text: str):
    file = tmp_path / "experiment.yaml"
    file.write_text(BASE, encoding="utf-8")
    try:
        assert isinstance(read_experiment(file, {option: text}), Experiment)
    except ExperimentError as error:
        assert str(file) in str(error)  # noqa: PT017


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text("ab:,01-", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)


@quick
@given(
    place=st.sampled_from(
        [(name,) for name in Experiment.model_fields]
        + [("search", name) for name in SearchSettings.model_fields if name != "backbone"]
    ),
    value=values,
)
def test_any_value_in_a_file_is_an_experiment_or_one_sentence(
    tmp_path: Path, place: tuple[str, ...], value
):

    data = {"name": "a", "images": "photos", "search": {"backbone": "GlyphNet"}}
    inner = data
    for group in place[:-1]:
        inner = inner[group]  # type: ignore[assignment]
    inner[place[-1]] = value
    file = tmp_path / "experiment.yaml"
    YAML(typ="safe", pure=True).dump(data, file)
    try:
        assert isinstance(read_experiment(file), Experiment)
    except ExperimentError as error:
        assert str(file) in str(error)  # noqa: PT017


# The cache's key ---------------------------------------------------------------------------------

networks = st.builds(
    Network,
    name=st.sampled_from(["VGG16", "mine"]),
    digest=st.sampled_from(["0" * 64, "1" * 64]),
    file=st.sampled_from(["a.keras", "b.keras"]),
    input_size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    preprocessing=st.sampled_from(["tf", "caffe", "torch", "unit", "none"]),
    width=st.integers(1, 2),
    precision=st.sampled_from(["float32", "bfloat16"]),
    transparent=st.sampled_from(["white", "black"]),
    max_value=st.sampled_from([None, 4095.0]),
    file_digest=st.sampled_from(["0" * 64, "1" * 64]),
    pooling=st.sampled_from(["avg", "max", "none"]),
)
# `transparent` and `max_value` decide some images' features, beside which they stand in the cache.
DECIDING = ("digest", "input_size", "preprocessing", "precision", "pooling")


@given(networks, networks)
def test_two_keys_are_equal_exactly_if_all_that_decides_a_feature_is(one: Network, other: Network):
    same = all(getattr(one, name) == getattr(other, name) for name in DECIDING)
    assert (one.key == other.key) == same


@given(networks, networks, st.data())
def test_one_field_changes_the_key_exactly_if_it_decides_a_feature(one: Network, other: Network, data):
    """Over all fields: a new one must be put on one of the two sides."""
    fields = {field.name for field in dataclasses.fields(Network)}
    assert fields == {*DECIDING, "name", "file", "width", "file_digest", "transparent", "max_value"}
    name = data.draw(st.sampled_from(sorted(fields)))
    changed = dataclasses.replace(one, **{name: getattr(other, name)})
    assert (changed.key != one.key) == (name in DECIDING and changed != one)
    assert len(changed.key) == 64


def test_another_way_of_decoding_is_another_key(monkeypatch: pytest.MonkeyPatch):
    network = Network("VGG16", "0" * 64, "a.keras", (9, 9), "tf", 2, "float32", "1" * 64)
    before = network.key
    monkeypatch.setattr("tuner.networks.resolution._KEY_VERSION", 10**6)
    assert network.key != before


def test_keys_of_the_feature_cache_stay_from_version_to_version():
    """Or everybody's features would be extracted again: changed on purpose only, where every pixel is."""
    network = Network("VGG16", "0" * 64, "a.keras", (9, 9), "tf", 2, "float32", "1" * 64)
    assert network.key.startswith("847f323d826a6b90")
