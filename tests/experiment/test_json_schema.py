import copy
import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from tests.helpers.json_schema import fits
from tests.product.test_project import EXPERIMENTS, ROOT
from tuner.base.errors import ExperimentError
from tuner.experiment.file import experiment_of, read_experiment, read_yaml
from tuner.experiment.json_schema import experiment_schema, meanings, schema_text, written_schema

SCHEMA = experiment_schema()
LEAST: dict[str, Any] = {"name": "a", "images": "b", "search": {"backbone": "GlyphNet"}}


def with_key(place: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(LEAST)
    *groups, key = place.split(".")
    holder = data
    for group in groups:
        holder = holder.setdefault(group, {})
    holder[key] = value
    return data


def is_read(data: dict[str, Any]) -> bool:
    try:
        experiment_of(copy.deepcopy(data), "a file")
    except ExperimentError:
        return False
    return True


def test_the_file_for_editors_is_what_the_command_prints() -> None:
    """After a change of the schema: tuner schema --to experiments/experiment.schema.json."""
    file = ROOT / "experiments" / "experiment.schema.json"
    assert file.read_text(encoding="utf-8") == schema_text()
    assert json.loads(schema_text()) == SCHEMA


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_shipped_experiments_fit_and_so_does_what_a_run_keeps_of_them(path: Path) -> None:
    assert fits(read_yaml(path), SCHEMA)
    assert fits(read_experiment(path).to_yaml_dict(), SCHEMA)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("search.backbone", "VGG16,ResNet50"),
        ("search.backbone", ["VGG16", {"name": "ResNet50", "weights": "random", "seed": 7}]),
        (
            "search.backbone",
            {"name": "a", "file": "a.keras", "input_size": [32, 48], "preprocessing": "tf"},
        ),
        ("search.backbone", [{"name": "VGG16", "input_size": 64, "pooling": "max"}]),
        ("search.regParam", "1e-4:1:log"),
        ("search.regParam", 0.1),
        ("search.regParam", [0.1, "0.3"]),
        ("search.maxIter", "5:30"),
        ("search.maxIter", 5),
        ("split.test", "1/3"),
        ("split.test", "20%"),
        ("split.test", 0.2),
        ("cache", "hdfs://host/cache"),
        ("max_value", 4095),
        ("search.timeout", None),
        ("gate.max_p_value", 0.05),
        ("search.points", [{"backbone": "GlyphNet", "regParam": 0.1, "elasticNetParam": 0, "maxIter": 9}]),
    ],
)
def test_what_may_be_written_fits(place: str, value: Any) -> None:
    data = with_key(place, value)
    assert is_read(data)
    assert fits(data, SCHEMA)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("search.regparam", "0.1"),
        ("images", ""),
        ("name", None),
        ("search.metric", "accurate"),
        ("search.max_evals", 0),
        ("search.parallelism", 1000),
        ("search.regParam", {"low": 0, "high": 1}),
        ("split.test", [0.2]),
        ("search.backbone", []),
        ("search.backbone", [{"name": "VGG16", "wights": "random"}]),
        ("search.backbone", [{"name": "VGG16", "input_size": [1, 2, 3]}]),
        ("registry.stage", "Done"),
        ("gate.max_p_value", 2),
    ],
)
def test_what_an_editor_can_tell_is_wrong_does_not_fit(place: str, value: Any) -> None:
    data = with_key(place, value)
    assert not is_read(data)
    assert not fits(data, SCHEMA)


odd = st.none() | st.booleans() | st.integers(-2, 300) | st.floats(0, 2)
values = odd | st.sampled_from(["cv:5", "1:2", "a", "0.5", "10"]) | st.lists(odd, max_size=3)


@given(place=st.sampled_from(sorted(meanings())), value=values)
def test_whatever_is_read_fits_as_it_is_kept(place: str, value: Any) -> None:
    """As it was given it need not: pydantic takes 1 for true and "16" for 16."""
    data = with_key(place, value)
    if is_read(data):
        assert fits(experiment_of(data, "a file").to_yaml_dict(), SCHEMA)


class Described(BaseModel):
    """A name, and keys that only its own function knows."""

    model_config = ConfigDict(extra="forbid")
    name: str
    values: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        return {"name": data.pop("name"), "values": data}


class Listed(BaseModel):
    """What is read from text, too; and what a function reads that says itself what it takes."""

    described: Annotated[tuple[Described, ...], BeforeValidator(lambda value: value)] = ()
    stated: Annotated[int, BeforeValidator(int, json_schema_input_type=bool)] = 0


def test_keys_that_only_a_function_knows_are_no_mistakes() -> None:
    schema = written_schema(Listed)
    for value in ([{"name": "a", "other": "b"}], {"name": "a"}, "a,b", ["a", {"name": "b"}]):
        assert fits({"described": value}, schema)
    for value in ([{"other": "b"}], [1], 1):
        assert not fits({"described": value}, schema)
    assert fits({"stated": True}, schema)
    assert not fits({"stated": 1}, schema)


def test_editors_get_the_meanings_and_the_defaults() -> None:
    search = SCHEMA["$defs"]["SearchSettings"]["properties"]
    assert search["metric"]["description"] == meanings()["search.metric"]
    assert search["regParam"]["default"] == "0.0001:1:log"
    assert SCHEMA["properties"]["cache"]["default"] == ".tuner"
    assert all("title" not in field for field in search.values())
