from typing import Any

import pytest

from tuner.api.given import given_tuning
from tuner.base.errors import ExperimentError
from tuner.experiment.file import experiment_of
from tuner.experiment.schema import Experiment
from tuner.experiment.training.fine_tuning import PRESETS, Augment, FineTune

GIVEN: dict[str, Any] = {"name": "a", "images": "b", "search": {"backbone": "VGG16"}}


def read(**keys: Any) -> FineTune:
    return experiment_of({**GIVEN, "fine_tune": keys}, "it").fine_tune


def test_strong_has_the_values_of_the_source() -> None:
    assert read(augment="strong").augment == Augment(
        rotation=30, flip=True, shift=0.1, shear=0.2, zoom=0.2, fill="nearest"
    )


def test_strength_multiplies_the_ranges() -> None:
    strong = PRESETS["strong"]
    assert strong.times(0.5) == Augment(rotation=15, flip=True, shift=0.05, shear=0.1, zoom=0.1)
    assert strong.times(0) == Augment()
    assert strong.times(1) == strong


def test_a_small_cnn_begins_with_nothing() -> None:
    small = read(base="small-cnn")
    assert small.base is not None
    assert (small.base.input_size, small.base.preprocessing) == ((32, 32), "unit")
    assert (small.units, small.warm_up_epochs, small.unfreeze) == (128, 0, ("all",))
    assert (small.optimizer, small.batch_normalization) == ("adam", False)
    assert read(base={"name": "small-cnn", "input_size": 16}, units=9).units == 9


@pytest.mark.parametrize(
    ("given", "layers"),
    [
        (15, (15,)),
        ("-15", (-15,)),
        ("15,block5_conv1, all", (15, "block5_conv1", "all")),
        (["all", "none"], ("all", "none")),
    ],
)
def test_layers_are_numbers_or_names(given: object, layers: tuple[object, ...]) -> None:
    assert read(unfreeze=given).unfreeze == layers


def test_what_has_several_values_is_searched() -> None:
    assert read().searched == ()
    searched = read(learning_rate="1e-4:1e-2", dropout=[0.3, 0.5], unfreeze="all,none").searched
    assert searched == ("learning_rate", "dropout", "unfreeze")
    assert read(learning_rate="1e-4:1e-2").learning_rate.log
    assert not read(dropout="0.1:0.5").dropout.log


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"learning_rate": 0}, "the learning rate is 0, and must be above 0"),
        ({"warm_up_learning_rate": "-1"}, "the learning rate is -1"),
        ({"dropout": 1}, "dropout is 1: it must be 0 or more, and less than 1"),
        ({"augment_strength": "0:2"}, "augment_strength is 0:2:linear: it must lie between 0 and 1"),
        ({"augment": "wild"}, "augment is 'wild': write none or strong, or its ranges"),
        ({"augment": {"rotation": 200}}, "rotation"),
        ({"unfreeze": True}, "unfreeze is True: write a number of layers"),
        ({"unfreeze": 1.5}, "unfreeze is 1.5: write a number of layers"),
        ({"epochs": 0, "warm_up_epochs": 0}, "are both 0, so nothing would be trained"),
        ({"base": "small-cnn", "warm_up_epochs": 3}, "small-cnn has learned nothing that could be kept"),
        ({"base": "small-cnn", "unfreeze": 2}, "small-cnn has learned nothing that could be kept"),
        ({"base": {"name": "small-cnn", "weights": "imagenet"}}, "small-cnn is trained from nothing"),
        ({"base": {"name": "mine", "file": "a.keras"}}, "must be stated"),
    ],
)
def test_what_cannot_be_trained_is_refused(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ExperimentError, match=sentence):
        read(**keys)


def test_plain_data_gives_it_back() -> None:
    keys = {"base": "small-cnn", "augment": "strong", "learning_rate": "1e-4:1e-2", "unfreeze": "all"}
    experiment = Experiment.model_validate({**GIVEN, "fine_tune": keys})
    assert Experiment.model_validate(experiment.to_yaml_dict()) == experiment


def test_a_search_may_be_absent_where_a_base_is_named() -> None:
    data = {"name": "a", "images": "b", "fine_tune": {"base": "small-cnn", "metric": "f1", "seed": 7}}
    experiment = experiment_of(data, "it")
    tuned = experiment.for_tuning()
    assert (tuned.search.metric, tuned.search.seed, tuned.search.parallelism) == ("f1", 7, 2)
    assert tuned.search.backbone == (experiment.fine_tune.base,)
    assert Experiment(**tuned.to_yaml_dict()) == tuned == tuned.for_tuning()
    with pytest.raises(ExperimentError, match="it: the key search is missing"):
        experiment_of({**data, "fine_tune": {"epochs": 2}}, "it")
    learner = experiment_of({"name": "a", "images": "b", "learn": {"backbone": "VGG16"}}, "it")
    with pytest.raises(ValueError, match=r"fine_tune\.base is not given, and there is no search"):
        learner.for_tuning()


def test_what_it_leaves_out_is_the_search_s() -> None:
    own = {"name": "mine", "file": "/n.keras", "input_size": 32, "preprocessing": "tf"}
    search = {"backbone": ["VGG16", own], "seed": 7, "metric": "f1", "parallelism": 3}
    for keys, base in (({}, "VGG16"), ({"base": "VGG16"}, "VGG16"), ({"base": "mine"}, "mine")):
        found = experiment_of({**GIVEN, "search": search, "fine_tune": keys}, "it").for_tuning()
        assert found.fine_tune.base is not None
        assert found.fine_tune.base.name == base
        assert (found.fine_tune.base.file is not None) == (base == "mine")
        assert (found.search.seed, found.fine_tune.metric, found.search.parallelism) == (7, "f1", 3)


def test_another_base_has_defaults_of_its_own_in_a_call() -> None:
    given = experiment_of({**GIVEN, "fine_tune": {"base": "VGG16", "batch_size": 9}}, "it")
    assert given.fine_tune.units == 256
    small = given_tuning(given, base="small-cnn").fine_tune
    assert (small.units, small.batch_size, small.unfreeze) == (128, 9, ("all",))
