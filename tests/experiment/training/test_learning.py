import pytest

from tuner.base.errors import ExperimentError
from tuner.experiment.file import LEARN_OVERRIDES, experiment_of
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.schema import Experiment
from tuner.networks.table import check_names


def read(learn: dict | None, search: dict | None = None, **more) -> Experiment:
    data = {"name": "e", "images": "photos", **more}
    data |= {} if learn is None else {"learn": learn}
    data |= {} if search is None else {"search": search}
    return experiment_of(data, "here")


def test_a_search_may_be_absent_and_then_is_not_made_up() -> None:
    experiment = read({"backbone": "VGG16", "classifier": {"name": "sklearn.SGD", "alpha": 0.01}})
    assert experiment.learn.values == {"alpha": 0.01}
    assert "search" not in experiment.to_yaml_dict()
    assert Experiment(**experiment.to_yaml_dict()) == experiment
    with pytest.raises(ExperimentError, match="The experiment e has no search: add search"):
        check_names(experiment)
    learned = experiment.for_learning()
    check_names(learned)
    assert (learned.search.seed, learned.search.metric) == (42, "accuracy")
    assert [spec.name for spec in learned.search.backbone] == ["VGG16"]
    assert Experiment(**learned.to_yaml_dict()) == learned == learned.for_learning()


def test_without_both_the_search_is_missing() -> None:
    for learn, more in ((None, ""), ({"epochs": 2}, r" \(for tuner learn alone: learn\.backbone\)")):
        with pytest.raises(ExperimentError, match=f"here: the key search is missing{more}\\W*$"):
            read(learn)


def test_what_learn_leaves_out_is_the_search_s() -> None:
    own = {"name": "mine", "file": "/n.keras", "input_size": 32, "preprocessing": "tf"}
    search = {"backbone": [own], "seed": 7, "metric": "f1"}
    for learn in (None, {}, {"backbone": "mine"}):
        found = read(learn, search).for_learning()
        assert (found.search.seed, found.learn.seed, found.gate_metric) == (7, 7, "f1")
        assert found.search.backbone == (NetworkSpec.model_validate(own | {"input_size": (32, 32)}),)
    found = read({"backbone": "VGG16", "seed": 1, "metric": "accuracy"}, search).for_learning()
    assert (found.search.seed, found.search.metric, found.search.backbone[0].name) == (
        1,
        "accuracy",
        "VGG16",
    )


def test_of_several_networks_one_is_to_be_named() -> None:
    experiment = read(None, {"backbone": ["VGG16", "VGG19"]})
    with pytest.raises(ValueError, match=r"learn\.backbone is not given, and the search has VGG16, VGG19"):
        experiment.for_learning()


@pytest.mark.parametrize(
    ("learn", "said"),
    [
        (
            {"classifier": "RandomForest"},
            "RandomForest fits on all images at once, and cannot",
        ),
        ({"classifier": "sklearn.SDG"}, "no classifier sklearn.SDG: did you mean sklearn.SGD"),
        ({"classifier": ["sklearn.SGD", "sklearn.MLP"]}, "is not one classifier, and one learns"),
        ({"classifier": {"name": "sklearn.SGD", "alpha": "1e-4:1"}}, "nothing is searched: give one value"),
        (
            {"classifier": {"name": "sklearn.SGD", "prestep": "PCA"}},
            "prestep of sklearn.SGD is for a",
        ),
        ({"classifier": {"name": "river.LogisticRegression", "lr": 0}}, "lr is 0, and river.Log"),
        (
            {"classifier": "sklearn.SGD", "step": "row"},
            "step is row, which is River's, and sklearn.SGD",
        ),
        ({"backbone": ["VGG16", "VGG19"]}, "is not one network, and one is learned on"),
        ({"batch": 0}, "learn.batch is 0"),
        ({"epochs": 1.5}, "learn.epochs is 1.5"),
        ({"batches": 3}, "the key learn.batches is unknown"),
        ([], "learn must hold keys and values"),
    ],
)
def test_what_cannot_work_is_a_sentence(learn, said: str) -> None:
    given = {"backbone": "VGG16"} | learn if isinstance(learn, dict) else learn
    with pytest.raises(ExperimentError) as error:
        read(given)
    assert said in str(error.value)


def test_a_metric_that_needs_probabilities_needs_them_of_what_learns() -> None:
    for more in ({"metric": "logLoss"}, {}):
        experiment = read(
            {"backbone": "VGG16", "classifier": "sklearn.SGD"} | more,
            gate={} if more else {"metric": "logLoss"},
        )
        with pytest.raises(ValueError, match=r"logLoss needs probabilities, and sklearn\.SGD gives none"):
            experiment.for_learning()


def test_options_stand_for_the_keys_of_learn_and_keep_what_is_described() -> None:
    described = {"name": "sklearn.SGD", "alpha": 0.01}
    data = {"name": "e", "images": "i", "learn": {"backbone": "VGG16", "classifier": described}}
    given = {"classifier": "sklearn.SGD", "batch": "8", "seed": "3", "validation": "cv:3", "epochs": ""}
    found = experiment_of(data, "here", given, LEARN_OVERRIDES)
    assert found.learn.values == {"alpha": 0.01}
    assert (found.learn.batch, found.learn.seed, found.learn.epochs, found.split.folds) == (8, 3, 1, 3)
    other = experiment_of(found.to_yaml_dict(), "here", {"classifier": "sklearn.MLP"}, LEARN_OVERRIDES)
    assert (other.learn.classifier.name, other.learn.values) == ("sklearn.MLP", {})
