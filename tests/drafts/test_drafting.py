from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drafts.test_survey import fill
from tuner.drafts.drafting import draft_experiment, experiment_name
from tuner.experiment.file import experiment_of, parse_yaml
from tuner.experiment.schema import Experiment


def read(text: str) -> Experiment:
    return experiment_of(parse_yaml(text), "the draft")


def test_a_draft_says_what_was_found_and_is_an_experiment(tmp_path: Path) -> None:
    folder = fill(tmp_path / "my photos #1 é", {"cat": 80, "dog": 20, "a: # b": 20})
    draft = draft_experiment(str(folder))
    experiment = read(draft.text)
    assert experiment.name == draft.name == "my photos -1 é"
    assert draft.file_name == "my_photos_-1_é"
    assert experiment.images == str(folder)
    assert (experiment.split.validation, experiment.search.class_weight) == ("cv:5", "balanced")
    for said in (
        "120 images of 3 classes",
        "#   cat: 80",
        "#   a: # b: 20",
        "# Noticed: Classes differ in size",
    ):
        assert said in draft.text
    assert draft.summary.startswith("120 images of 3 classes, ")


def test_a_split_that_is_there_is_kept(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"cat": 10, "dog": 10})
    fill(tmp_path / "test", {"cat": 3, "dog": 4})
    assert read(draft_experiment(str(tmp_path)).text).split.given == "folders"


def test_an_even_folder_is_not_weighted_and_a_relative_path_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "photos", {f"class {number}": 4 for number in range(25)})
    monkeypatch.chdir(tmp_path)
    draft = draft_experiment("photos/")
    assert read(draft.text).images == str(tmp_path / "photos")
    assert read(draft.text).search.class_weight == "none"
    assert "#   and 5 more" in draft.text


@given(st.text(min_size=1, max_size=300))
def test_any_folder_gives_a_name_that_is_taken(name: str) -> None:
    found = experiment_name(Path("/", name))
    assert Experiment.model_validate({"name": found, "images": "a", "search": {"backbone": "GlyphNet"}})
    assert found == found.strip()


@pytest.mark.parametrize(
    ("folder", "name"),
    [("/data/photos", "photos"), ("/a/b:c?d", "b-c-d"), ("/", "images"), ("/...", "images")],
)
def test_a_name_is_the_folder_s_where_it_can_be(folder: str, name: str) -> None:
    assert experiment_name(Path(folder)) == name
