from pathlib import Path

import pytest

from tests.experiment.test_schema import MINIMAL, read, refusal
from tuner.experiment.schema import Experiment

FOREST = "{name: RandomForest, numTrees: 50:300, maxDepth: [3, 5]}"
KNOWN = "  classifier: [LogisticRegression, " + FOREST + ", sklearn.Ridge-0.01]\n"


def test_a_search_over_several_classifiers_is_read_with_their_spaces(tmp_path: Path) -> None:
    search = read(tmp_path, MINIMAL + KNOWN + "  regParam: 0.1\n").search
    spaces = {label: str(space) for label, space in search.spaces.items()}
    assert spaces == {
        "LogisticRegression.regParam": "0.1",
        "LogisticRegression.elasticNetParam": "0:1:linear",
        "LogisticRegression.maxIter": "5:30:linear",
        "LogisticRegression.prestep": "none",
        "RandomForest.numTrees": "50:300:linear",
        "RandomForest.maxDepth": "3,5",
        "RandomForest.prestep": "none",
        "sklearn.Ridge.alpha": "0.01",
        "sklearn.Ridge.prestep": "none",
    }


def test_without_classifiers_the_space_is_what_it_was(tmp_path: Path) -> None:
    search = read(tmp_path).search
    assert search.classifier is None
    assert list(search.spaces) == ["regParam", "elasticNetParam", "maxIter"]


POINT = "  points: [{backbone: InceptionV3, classifier: RandomForest, numTrees: 60, maxDepth: 5}]\n"


@pytest.mark.parametrize("more", ["", "  class_weight: [none, balanced]\n", POINT])
def test_plain_data_gives_classifiers_back(tmp_path: Path, more: str) -> None:
    experiment = read(tmp_path, MINIMAL + KNOWN + more)
    again = Experiment.model_validate(experiment.to_yaml_dict())
    assert again == experiment
    assert again.search.spaces == experiment.search.spaces


def test_classifiers_named_in_an_option_keep_what_the_file_says_of_them(tmp_path: Path) -> None:
    search = read(tmp_path, MINIMAL + KNOWN, classifier="RandomForest, sklearn.SGD").search
    assert [spec.name for spec in search.classifier or ()] == ["RandomForest", "sklearn.SGD"]
    assert str(search.spaces["RandomForest.numTrees"]) == "50:300:linear"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("classifier: RandomForrest", "there is no classifier RandomForrest: did you mean RandomForest"),
        ("classifier: sklearn.svm", "there is no classifier sklearn.svm: did you mean "),
        ("classifier: [{name: RandomForest, numTree: 3}]", "no parameter 'numTree': did you mean numTrees"),
        (
            "classifier: [{name: RandomForest, numTrees: 0}]",
            "numTrees is 0, and RandomForest wants it 1 or",
        ),
        ("classifier: [{name: RandomForest, maxDepth: 31}]", "RandomForest wants it within [0, 30]"),
        ("classifier: [{name: RandomForest, maxDepth: 2.5}]", "must be made of whole numbers"),
        ("classifier: [{name: DecisionTree, impurity: ginny}]", "impurity is 'ginny': did you mean gini"),
        ("classifier: [{numTrees: 3}]", "a classifier is a name, or {name: …} with its parameters"),
        ("classifier: []", "is no list of classifiers: there are LogisticRegression"),
        ("classifier: [FM, FM]", "the classifier FM is listed twice: name it once"),
        (
            "classifier: [sklearn.KNeighbors-3, sklearn.KNeighbors-5]",
            "sklearn.KNeighbors is listed twice: name it once",
        ),
        (
            "classifier: [{name: sklearn.SGD, k: 5}]",
            "k of sklearn.SGD goes with prestep PCA only: give prestep",
        ),
        (
            "classifier: [{name: NaiveBayes, modelType: 'gaussian,multinomial', prestep: 'none,PCA'}]",
            "NaiveBayes with modelType multinomial takes features for counts, which PCA does not leave",
        ),
        (
            "classifier: FM\n  regParam: 0.5",
            "regParam is set, and is LogisticRegression's, which is not in",
        ),
        (
            "classifier: sklearn.SGD\n  metric: logLoss",
            "logLoss needs probabilities, and sklearn.SGD gives none",
        ),
        ("classifier: sklearn.SGD\n  fit: spark", "fit is spark, and sklearn.SGD fits in the worker only"),
        ("classifier: GBT\n  fit: worker", "fit is worker, and GBT fits on Spark only"),
        ("classifier: FM\n  class_weight: balanced", "class_weight is balanced, and FM knows no weights"),
        ("class_weight: [none, heavy]", "class_weight is 'none,heavy'"),
        (
            "classifier: FM\ngate: {metric: logLoss}",
            "gate.metric is logLoss, which needs probabilities, and FM",
        ),
        (
            "classifier: [FM, GBT]\n  select: one-standard-error",
            "which of two classifiers is simpler is not known",
        ),
    ],
)
def test_classifiers_that_cannot_work_are_refused_in_a_sentence(
    tmp_path: Path, said: str, sentence: str
) -> None:
    assert sentence in refusal(tmp_path, f"{MINIMAL}  {said}\n", validation="cv:3")


@pytest.mark.parametrize(
    ("classifier", "point", "sentence"),
    [
        (
            "",
            "regParam: 1, elasticNetParam: a, maxIter: 1",
            "point 1 has elasticNetParam 'a', which is not a number",
        ),
        (
            "",
            "regParam: 1, elasticNetParam: 0, maxIter: 5.5",
            "point 1 has maxIter 5.5, which is not a whole number",
        ),
        (
            "",
            "regParam: 1, elasticNetParam: 0, depth: 5",
            "point 1 has depth, which is no parameter of LogisticRegression here",
        ),
        ("", "regParam: 1, elasticNetParam: 0", "point 1 lacks maxIter: state it"),
        ("FM", "regParam: 1", "point 1 has no classifier; in search.classifier: FM"),
        (
            "DecisionTree",
            "classifier: DecisionTree, maxDepth: 5",
            "point 1 lacks minInstancesPerNode: state it",
        ),
        (
            "sklearn.KNeighbors",
            "classifier: sklearn.KNeighbors",
            "point 1 lacks n_neighbors: state it",
        ),
        (
            "NaiveBayes",
            "classifier: NaiveBayes, modelType: complement",
            "has modelType complement, which is not in gaussian",
        ),
        (
            "",
            "regParam: 1, elasticNetParam: 0, maxIter: 5, class_weight: none",
            "give class_weight in a point where it is searched",
        ),
    ],
)
def test_points_that_are_not_in_the_space_are_refused_in_a_sentence(
    tmp_path: Path, classifier: str, point: str, sentence: str
) -> None:
    text = f"{MINIMAL}  classifier: {classifier}\n  points: [{{backbone: InceptionV3, {point}}}]\n"
    assert sentence in refusal(tmp_path, text)


def test_roc_auc_is_made_of_decision_values(tmp_path: Path) -> None:
    text = MINIMAL + "  classifier: sklearn.SGD\n  metric: roc_auc\n"
    assert read(tmp_path, text).search.metric == "roc_auc"
