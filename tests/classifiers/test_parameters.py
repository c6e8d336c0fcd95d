import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.classifiers.parameters import PARAMETERS, TrialParams, described
from tuner.classifiers.table import CLASSIFIERS

default_params = st.builds(
    TrialParams.of,
    st.text(min_size=1),
    regParam=st.floats(0, 1e6),
    elasticNetParam=st.floats(0, 1),
    maxIter=st.integers(0, 2**31 - 1),
)


@st.composite
def named_params(draw: st.DrawFn) -> TrialParams:
    """Of any classifier: some of its parameters, as a spot-check leaves some to the library."""
    row = CLASSIFIERS[draw(st.sampled_from(sorted(CLASSIFIERS)))]
    values = {
        name: draw(st.sampled_from(column.choices) if column.choices else st.integers(1, 9))
        for name, column in row.by_name.items()
        if draw(st.booleans())
    }
    weight = draw(st.sampled_from([None, "none", "balanced"]))
    return TrialParams.of(draw(st.text(min_size=1)), row.name, weight, **values)


def values_of(trial: TrialParams) -> tuple[float, float, float]:
    return tuple(float(trial.values[name]) for name in PARAMETERS)  # type: ignore[return-value]


@given(default_params | named_params())
def test_parameters_are_read_back_from_what_is_logged(trial: TrialParams) -> None:
    """MLflow keeps text, hyperopt floats; what a trial does not have is absent, not null."""
    logged = trial.to_dict()
    assert None not in logged.values()
    assert TrialParams.from_point(logged) == trial
    assert TrialParams.from_point({name: str(value) for name, value in logged.items()}) == trial
    loose = {name: v if isinstance(v, str) else float(v) for name, v in logged.items()}
    assert TrialParams.from_point({"other": 1, **loose}) == trial


@given(named_params())
def test_what_lies_within_a_choice_is_read_as_what_lies_beside_it(trial: TrialParams) -> None:
    nested = trial.to_dict()
    within = {"classifier": nested.pop("classifier")} | {name: nested.pop(name) for name in trial.values}
    assert TrialParams.from_point({**nested, "classifier": within}) == trial


def test_a_run_that_ended_before_it_said_its_parameters_has_none() -> None:
    for logged in ({}, {"backbone": "VGG16"}, {"backbone": "VGG16", "regParam": "0.1"}):
        with pytest.raises(KeyError):
            TrialParams.from_point(logged)


@given(default_params, default_params)
def test_more_regularization_comes_first_then_sparsity_then_fewer_iterations(
    one: TrialParams, other: TrialParams
) -> None:
    (a, b, c), (d, e, f) = values_of(one), values_of(other)
    assert (one.simplicity() < other.simplicity()) == ((-a, -b, c) < (-d, -e, f))


def test_values_are_described_for_a_person() -> None:
    values = {"regParam": 0.0123456, "elasticNetParam": 0.5, "maxIter": 20.0}
    assert described(values) == "regParam 0.01235, elasticNetParam 0.5, maxIter 20"
    forest = TrialParams.of("VGG16", "RandomForest", "balanced", maxDepth=5, numTrees=50)
    assert described(forest.to_dict()) == "RandomForest, numTrees 50, maxDepth 5, class_weight balanced"
    row = {"classifier": "sklearn.Ridge", "alpha": 1.0, "prestep": None, "numTrees": float("nan")}
    assert described(row) == "sklearn.Ridge, alpha 1"
