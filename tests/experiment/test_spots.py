import pytest
from pydantic import ValidationError

from tuner.experiment.schema import Experiment
from tuner.experiment.spots import SpotCheck


def test_all_of_scikit_learn_s_are_tried_unless_some_are_named() -> None:
    spots = SpotCheck().spots
    assert len(spots) == 41
    assert all(spot.startswith("sklearn.") for spot in spots)


def test_a_name_stands_for_all_that_is_tried_of_it() -> None:
    named = SpotCheck(classifiers="sklearn.KNeighbors, RandomForest,sklearn.Ridge-1,sklearn.KNeighbors-3")
    assert named.spots == (
        "RandomForest-100",
        *(f"sklearn.KNeighbors-{k}" for k in range(3, 25)),
        "sklearn.Ridge-1",
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["sklearn.Ridge-2"], "no classifier sklearn.Ridge-2: did you mean sklearn.Ridge-"),
        ([], "is no list of classifiers"),
        (7, "is no list of classifiers"),
    ],
)
def test_what_is_not_there_cannot_be_tried(given: object, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        SpotCheck.model_validate({"classifiers": given})


def test_plain_data_gives_it_back() -> None:
    data = {"name": "a", "images": "b", "search": {"backbone": "VGG16"}}
    experiment = Experiment.model_validate(
        data | {"spot_check": {"classifiers": "FM", "keep_models": True}}
    )
    assert Experiment.model_validate(experiment.to_yaml_dict()) == experiment
