import json
from pathlib import Path

import mlflow
import pytest

from tests.conftest import FinishedSearch, tuner
from tuner.base.errors import ExperimentError
from tuner.classifiers.table import CLASSIFIERS
from tuner.experiment.schema import Experiment
from tuner.reports.spot_check import ranked_table
from tuner.searches.spot_check import check_then_search, combinations_of, search_of_best, within
from tuner.tracking.results import TrialResult


def experiment(**search: object) -> Experiment:
    spots = search.pop("spots", None)
    data = {"name": "a", "images": "b", "search": {"backbone": "VGG16,VGG19", **search}}
    return Experiment.model_validate(data | ({"spot_check": {"classifiers": spots}} if spots else {}))


def test_every_network_meets_every_classifier_the_slow_ones_first() -> None:
    spots, params = combinations_of(experiment())
    assert len(spots) == len(params) == len(set(params)) == 41 * 2
    costs = [CLASSIFIERS[one.classifier or ""].cost for one in params]
    assert costs == sorted(costs, reverse=True)
    assert spots[0] == "sklearn.GradientBoosting-100"
    assert params[0].values == {"n_estimators": 100, "max_depth": 3, "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ({"metric": "logLoss"}, "logLoss needs probabilities, and sklearn.SGD gives none"),
        ({"class_weight": "balanced"}, "class_weight is balanced, and sklearn.KNeighbors knows no weights"),
        ({"fit": "spark"}, "fit is spark, and sklearn.LogisticRegression does not fit there"),
        ({"class_weight": "none,balanced", "spots": "sklearn.Ridge"}, "tries one class_weight"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_a_sentence(search: dict, sentence: str) -> None:
    with pytest.raises(ExperimentError, match=sentence):
        combinations_of(experiment(**search))


def test_named_ones_that_give_probabilities_may_be_ranked_by_log_loss() -> None:
    spots, _ = combinations_of(experiment(metric="logLoss", spots="sklearn.RandomForest"))
    assert spots == ["sklearn.RandomForest-100"] * 2


MANY = {"images": 1_000, "features": 512}


def test_what_is_searched_after_a_spot_check_is_no_more_than_there_are_images() -> None:
    row = CLASSIFIERS["sklearn.KNeighbors"]
    assert within(row, MANY) == {"name": row.name}
    for images, expected in ((10, "3:10"), (3, "3"), (2, "2")):
        described = within(row, {"images": images, "features": 4})
        assert described == {"name": row.name, "n_neighbors": expected}
        (choice,) = experiment(classifier=[described]).search.choices
        assert choice.dimensions[0].space.bounds[1] == images


def test_the_best_combinations_become_a_search_over_their_networks_and_classifiers() -> None:
    """A classifier that the experiment describes keeps its values."""
    described = [{"name": "sklearn.Ridge", "alpha": "1,10", "prestep": "none,StandardScaler"}]
    one = experiment(classifier=described, spots="sklearn.Ridge,RandomForest,sklearn.SGD")
    spots, params = combinations_of(one)
    scores = {"sklearn.Ridge-1": 0.9, "sklearn.Ridge-10": 0.8, "RandomForest-100": 0.7}
    results = [
        TrialResult(
            number, p, str(number), "id", {"accuracy": scores[spot] if p.backbone == "VGG19" else 0.1}, 1.0
        )
        if spot in scores
        else TrialResult(number, p, str(number), "id", reason="failed")
        for number, (spot, p) in enumerate(zip(spots, params, strict=True), start=1)
    ]
    table = ranked_table(results, spots, "accuracy")
    search = search_of_best(one, table, 3, MANY).search
    assert [spec.name for spec in search.backbone] == ["VGG19"]
    assert [spec.name for spec in search.classifier or ()] == ["sklearn.Ridge", "RandomForest"]
    assert str(search.spaces["sklearn.Ridge.alpha"]) == "1,10"
    expected = [
        {"backbone": "VGG19", "classifier": "sklearn.Ridge", "alpha": 1.0},
        {"backbone": "VGG19", "classifier": "sklearn.Ridge", "alpha": 10.0},
        {"backbone": "VGG19", "classifier": "RandomForest", "numTrees": 100, "maxDepth": 5},
    ]
    assert [point.params().to_dict() for point in search.points] == [
        point | {"prestep": "none"} for point in expected
    ]
    assert [spec.name for spec in search_of_best(one, table, 1, MANY).search.classifier or ()] == [
        "sklearn.Ridge"
    ]


def test_a_search_after_a_spot_check_has_nothing_of_classifiers_that_are_not_in_it() -> None:
    point = {"backbone": "VGG16", "regParam": 0.1, "elasticNetParam": 0, "maxIter": 9}
    one = experiment(spots="sklearn.Ridge-1,LogisticRegression", regParam="0.1,0.2", points=[point])
    spots, params = combinations_of(one)
    for best in ("sklearn.Ridge-1", "LogisticRegression"):
        results = [
            TrialResult(number, p, str(number), "id", {"accuracy": float(spot == best)}, 1.0)
            for number, (spot, p) in enumerate(zip(spots, params, strict=True), start=1)
        ]
        search = search_of_best(one, ranked_table(results, spots, "accuracy"), 1, MANY).search
        assert [point.classifier for point in search.points] == (
            [] if best == "LogisticRegression" else [best[:-2]]
        )
        assert ("regParam" in search.spaces) == (best == "LogisticRegression")
    assert str(search.spaces["regParam"]) == "0.1,0.2"


def test_the_simplest_of_several_classifiers_is_refused_before_anything_is_tried() -> None:
    data = {"name": "a", "images": "b", "search": {"backbone": "VGG16", "select": "one-standard-error"}}
    with pytest.raises(ExperimentError, match="set select to best for a search after a spot-check"):
        check_then_search(Experiment.model_validate(data | {"split": {"validation": "cv:3"}}))


@pytest.mark.long
def test_a_spot_check_from_the_command_line_to_the_search_of_its_best(
    finished_search: FinishedSearch, tmp_path: Path
) -> None:
    """Of 18 images no 19 neighbours are found: these combinations fail, and the rest goes on."""
    (tmp_path / "letters.yaml").write_text(
        f"name: letters\nimages: {finished_search.images}\ncache: {finished_search.folder / '.tuner'}\n"
        "split: {test: 1/4, validation: holdout, validation_ratio: 3/5}\n"
        "search: {backbone: [GlyphNet, GaborNet], max_evals: 3, parallelism: 2}\n",
        encoding="utf-8",
    )
    done = tuner(tmp_path, "spot-check", "--experiment", "letters.yaml", "--then-search", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(store)
    ids = [found.experiment_id for found in client.search_experiments()]
    (parent,) = client.search_runs(ids, "tags.`tuner.kind` = 'spot-check'")
    children = client.search_runs(
        ids, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", max_results=200
    )
    assert len(children) == 82
    failed = [run for run in children if run.info.status == "FAILED"]
    assert {run.data.params["n_neighbors"] for run in failed} == {"19", "20", "21", "22", "23", "24"}
    folder = Path(client.download_artifacts(parent.info.run_id, ".", str(tmp_path)))
    report = json.loads((folder / "final_report.json").read_text())
    assert len(report["features-GlyphNet.h5"]) == 1 + 41 - len(failed) // 2
    assert report["best_accuracy"] == parent.data.metrics["best_accuracy"]
    assert (folder / "charts/spot_check.html").exists()
    (search,) = client.search_runs(ids, "tags.`tuner.kind` = 'search'")
    assert search.info.status == "FINISHED"
    assert client.search_registered_models()[0].name == "letters"
