import pandas as pd
import pytest

from tuner.base.errors import ExperimentError
from tuner.classifiers.parameters import TrialParams
from tuner.experiment.schema import Experiment
from tuner.networks.resolution import Network
from tuner.preparation.classifiers import check_sizes

HOLDOUT = pd.Series(["train"] * 20 + ["validation"] * 7 + ["test"] * 40)
FOLDS = pd.Series(["fold-0"] * 8 + ["fold-1"] * 9 + ["fold-2"] * 10 + ["test"] * 40)


def network(width: int) -> Network:
    described = {
        "digest": "",
        "file": "",
        "input_size": (8, 8),
        "preprocessing": "tf",
        "precision": "float32",
    }
    return Network(name="A", width=width, file_digest="", **described)  # type: ignore[arg-type]


def asks(parts: pd.Series, width: int, **of: object) -> None:
    search = {"backbone": "A", "classifier": {"name": "sklearn.KNeighbors", **of}}
    experiment = Experiment.model_validate({"name": "a", "images": "b", "search": search})
    check_sizes(experiment, parts, [network(width), network(width + 9)])


@pytest.mark.parametrize("parts", [HOLDOUT, FOLDS], ids=["holdout", "folds"])
def test_more_neighbours_or_components_than_the_smallest_fit_has_images_are_refused(
    parts: pd.Series,
) -> None:
    most = 20 if parts is HOLDOUT else 17
    asks(parts, 99, n_neighbors=most, prestep="PCA", k=most)
    with pytest.raises(ExperimentError, match=f"n_neighbors of sklearn.KNeighbors goes up to {most + 1}, "):
        asks(parts, 99, n_neighbors=f"3:{most + 1}")
    with pytest.raises(ExperimentError, match=f"there are {most} images to fit on: lower it"):
        asks(parts, 99, n_neighbors=3, prestep="none,PCA", k=f"3:{most + 1}")


def test_more_components_than_features_are_refused() -> None:
    with pytest.raises(
        ExperimentError, match="goes up to 9, and there are 8 features of an image: lower it"
    ):
        asks(HOLDOUT, 8, n_neighbors=3, prestep="PCA", k=9)


def test_of_a_spot_check_what_it_tries_is_looked_at_and_not_the_spaces() -> None:
    experiment = Experiment.model_validate(
        {"name": "a", "images": "b", "search": {"backbone": "A", "classifier": "sklearn.KNeighbors"}}
    )
    few = [TrialParams.of("A", "sklearn.KNeighbors", n_neighbors=3)]
    check_sizes(experiment, HOLDOUT, [network(9)], few)
    with pytest.raises(ExperimentError, match="goes up to 21"):
        check_sizes(
            experiment, HOLDOUT, [network(9)], [TrialParams.of("A", "sklearn.KNeighbors", n_neighbors=21)]
        )
