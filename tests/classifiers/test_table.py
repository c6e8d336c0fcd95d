import importlib
import importlib.util
import inspect
import math

import pytest
from pydantic import ValidationError

from tuner.classifiers.rows.row import PRESTEPS, Classifier
from tuner.classifiers.space import ParamSpace
from tuner.classifiers.table import CLASSIFIERS, DEFAULT, SPOTS, find_classifier
from tuner.experiment.search import SearchSettings
from tuner.experiment.spots import SpotCheck

ROWS = list(CLASSIFIERS.values())
OWN = {"hiddenSize", "prestep", "k", "lr"}  # not the class's: of a layer, the step before, the optimizer


def made_of(row: Classifier) -> type:
    module, _, name = row.implementation.rpartition(".")
    package = {"mllib": "pyspark.ml"}.get(row.library, row.library)
    return getattr(importlib.import_module(f"{package}.{module}"), name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_table_has_the_library_s_own_parameters(row: Classifier) -> None:
    known = inspect.signature(made_of(row)).parameters if row.library != "mllib" else dir(made_of(row))
    assert {*row.by_name, *row.fixed} - OWN <= set(known)
    assert (
        row.seeded == bool({"seed", "random_state"} & set(known))
        or row.name == "sklearn.LogisticRegression"
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_defaults_and_spots_are_what_their_rows_allow(row: Classifier) -> None:
    for column in row.parameters:
        column.check(column.default, row.name)
        assert ParamSpace.model_validate(column.read(str(column.default))) == column.default
        assert column.default.values or column.default.log == column.log
    for values in row.spots.values():
        for name, value in values.items():
            assert row.by_name[name].typed(value) == value
            row.by_name[name].check(ParamSpace(values=(value,)), row.name)


def test_the_table_begins_with_mllib_s_logistic_regression_as_it_was() -> None:
    row = ROWS[0]
    assert row.name == DEFAULT
    assert [(c.name, str(c.default)) for c in row.parameters] == [
        ("regParam", "0.0001:1:log"),
        ("elasticNetParam", "0:1:linear"),
        ("maxIter", "5:30:linear"),
    ]
    assert [(c.lowest, c.highest, c.simpler) for c in row.parameters] == [
        (0, math.inf, "larger"),
        (0, 1, "larger"),
        (0, 2**31 - 1, "smaller"),
    ]


def test_forty_classifiers_of_scikit_learn_and_the_one_that_its_users_take_today_fit_in_the_worker() -> (
    None
):
    spots = [spot for spot, (name, _) in SPOTS.items() if CLASSIFIERS[name].library == "sklearn"]
    assert len(spots) == 41
    assert sum(spot.startswith("sklearn.KNeighbors-") for spot in spots) == 22
    assert all(CLASSIFIERS[SPOTS[spot][0]].fits == ("worker",) for spot in spots)


def test_what_has_no_probabilities_says_so() -> None:
    without = {row.name for row in ROWS if row.gives == "decision"}
    assert without == {
        *("LinearSVC", "GBT", "FM"),
        *("sklearn.SGD", "sklearn.PassiveAggressive", "sklearn.Perceptron"),
        *("sklearn.LinearSVC", "sklearn.Ridge"),
    }


def test_what_learns_a_batch_at_a_time_has_a_method_for_it() -> None:
    for row in ROWS:
        known = {"partial_fit", "learn_many"} & set(dir(made_of(row)))
        assert row.incremental == (row.library != "mllib" and bool(known)), row.name


def test_what_a_search_cannot_fit_is_refused_by_it_and_by_a_spot_check() -> None:
    backbone = [{"name": "GlyphNet"}]
    with pytest.raises(ValidationError, match=r"river\.LogisticRegression learns a batch at a time"):
        SearchSettings(backbone=backbone, classifier="river.LogisticRegression")
    with pytest.raises(ValidationError, match=r"a spot-check tries nothing of river\.LogisticRegression"):
        SpotCheck(classifiers="sklearn.Ridge,river.LogisticRegression")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no classifier RandomForrest: did you mean RandomForest or"):
        find_classifier("RandomForrest")
    assert PRESTEPS == ("none", "StandardScaler", "Normalizer", "PCA")
