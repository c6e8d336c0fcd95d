"""What a call is given becomes the experiment that a file would be: the same words, tuples as ranges."""

import inspect
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tuner
from tests.helpers.experiments import experiments
from tuner.api.given import given_experiment, given_learning
from tuner.base.errors import ExperimentError, ImageSourceError
from tuner.experiment.file import OVERRIDES, experiment_of
from tuner.experiment.schema import Experiment

DATA: dict[str, Any] = {"name": "e", "images": "builtin:digits", "search": {"backbone": ["GlyphNet"]}}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of gray pictures, of very different number."""
    folder = tmp_path_factory.mktemp("images") / "my photos!"
    for label, count in (("a", 12), ("b", 48)):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            Image.new("L", (40, 40), number * 5).save(folder / label / f"{number}.png")
    return folder


def test_a_search_takes_every_option_of_the_command_line() -> None:
    taken = inspect.signature(tuner.search).parameters
    assert set(OVERRIDES) <= set(taken)
    for name in ("spot_check", "features"):
        own = set(inspect.signature(getattr(tuner, name)).parameters)
        assert {"images", "backbone", "precision", "cache"} <= own


def test_of_a_folder_alone_the_first_network_that_fits_is_learned_on(photos: Path) -> None:
    made = given_learning(photos, batch=8)
    searched = given_experiment(photos).search.backbone
    assert len(searched) > 1
    assert (made.learn.backbone, made.learn.batch) == (searched[0], 8)
    assert "search" not in made.to_yaml_dict()
    made.for_learning()
    with pytest.raises(ExperimentError, match=r"the key search is missing \(for tuner learn alone"):
        given_learning("builtin:digits")


def test_a_tuple_is_a_range_and_a_list_is_values() -> None:
    made = given_experiment(
        "builtin:digits", backbone=["GlyphNet"], regParam=(1e-4, 1), elasticNetParam=[0, 0.5], maxIter=7
    )
    assert {name: str(space) for name, space in made.search.spaces.items()} == {
        "regParam": "0.0001:1:log",
        "elasticNetParam": "0,0.5",
        "maxIter": "7",
    }
    linear = given_experiment("builtin:digits", backbone="GlyphNet", regParam=(0.1, 1, "linear"))
    assert str(linear.search.regParam) == "0.1:1:linear"


@given(
    st.tuples(st.floats(1e-9, 1e3), st.floats(1e-9, 1e3)).map(sorted).filter(lambda ends: ends[0] < ends[1])
)
def test_the_ends_of_a_range_are_those_that_were_given(ends: list[float]) -> None:
    low, high = ends
    made = given_experiment(DATA, regParam=(low, high))
    assert made.search.regParam.bounds == (low, high)
    assert made == given_experiment({**DATA, "search": {**DATA["search"], "regParam": (low, high)}})


def test_a_dict_may_have_ranges_in_its_search_and_in_its_classifiers() -> None:
    search = {"backbone": ["GlyphNet"], "classifier": [{"name": "RandomForest", "numTrees": (5, 20)}]}
    data = {**DATA, "search": search}
    (choice,) = given_experiment(data).search.choices
    assert {d.label: d.space for d in choice.dimensions}["numTrees"].bounds == (5, 20)
    assert search["classifier"] == [{"name": "RandomForest", "numTrees": (5, 20)}]  # the caller's own stays


@pytest.mark.parametrize("bad", [(1,), (1, 2, 3), (1, 2, "log", 4), ("a", "b"), (True, 2), ()])
def test_a_tuple_that_is_no_range_is_refused(bad: tuple[Any, ...]) -> None:
    with pytest.raises(ExperimentError, match=r"regParam is .* and a tuple is a range: give \(low, high\)"):
        given_experiment(DATA, regParam=bad)


def test_names_in_a_tuple_are_refused() -> None:
    with pytest.raises(ExperimentError, match=r"backbone is .* a tuple is a range"):
        given_experiment("builtin:digits", backbone=("GlyphNet", "GaborNet"))


@given(experiments)
def test_a_dict_an_experiment_and_a_file_are_the_same(data: dict[str, Any]) -> None:
    made = experiment_of({**data, "search": dict(data["search"])}, "here")
    assert given_experiment(data) == made
    assert given_experiment(made) is made
    assert given_experiment(made, max_evals=3) == experiment_of(made.to_yaml_dict(), "", {"max_evals": "3"})


def test_a_file_keeps_what_it_says_of_networks_that_are_named(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(
        "name: e\nimages: builtin:digits\nsearch: {backbone: [{name: VGG16, seed: 7}, GlyphNet], seed: 3}\n"
    )
    for given_file in (file, str(file)):
        made = given_experiment(given_file, backbone=["VGG16"], max_evals=4, name="other")
        (network,) = made.search.backbone
        assert (network.name, network.seed) == ("VGG16", 7)
        assert (made.name, made.search.max_evals, made.search.seed) == ("other", 4, 3)


def test_a_folder_has_its_name_its_split_and_networks_that_fit(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    made = given_experiment(photos.name)
    assert isinstance(made, Experiment)
    assert made.name == "my photos"
    assert made.images == str(photos)  # whatever the working folder is later
    assert [spec.name for spec in made.search.backbone] == ["GlyphNet", "GaborNet"]
    assert made.split.folds
    assert made.search.class_weight == "balanced"
    assert made.search.max_evals == 16
    named = given_experiment(photos, name="mine", backbone=["ResNet50"], validation="holdout")
    assert (named.name, named.split.validation) == ("mine", "holdout")
    assert [spec.name for spec in named.search.backbone] == ["ResNet50"]
    assert given_experiment(os.fspath(photos) + "/").name == "my photos"


@pytest.mark.parametrize(
    ("images", "name"),
    [
        ("builtin:digits", "digits"),
        ("table:db.photos", "db.photos"),
        ("hdfs://host:9000/a/photos/", "photos"),
    ],
)
def test_other_images_are_named_after_what_they_are(images: str, name: str) -> None:
    made = given_experiment(images, backbone="GlyphNet")
    assert (made.name, made.images) == (name, images)
    with pytest.raises(ExperimentError, match=r"The search of .*: the key search\.backbone is missing"):
        given_experiment(images)


def test_a_folder_without_classes_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ImageSourceError):
        given_experiment(tmp_path)
