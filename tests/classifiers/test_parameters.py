from dataclasses import fields
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pyspark.ml.classification import LogisticRegression

from tuner.classifiers.parameters import PARAMETERS, TrialParams, described, searched
from tuner.classifiers.space import Space

params = st.builds(
    TrialParams,
    backbone=st.text(min_size=1),
    regParam=st.floats(0, 1e6),
    elasticNetParam=st.floats(0, 1),
    maxIter=st.integers(0, 2**31 - 1),
)


def test_the_table_has_mllib_s_own_parameters() -> None:
    for name in PARAMETERS:
        assert hasattr(LogisticRegression, name)
    assert [field.name for field in fields(TrialParams)] == ["backbone", *PARAMETERS]


@pytest.mark.parametrize("row", PARAMETERS.values(), ids=list(PARAMETERS))
def test_a_default_is_what_its_row_allows(row) -> None:
    low, high = row.default.bounds
    assert row.lowest <= low < high <= row.highest
    assert row.default.log == row.log
    assert not row.whole or low == int(low)
    field = TypeAdapter(Annotated[Space, searched(row.name)])
    assert field.validate_python(str(row.default)) == row.default


@given(params)
def test_parameters_are_read_back_from_what_is_logged(trial: TrialParams) -> None:
    """MLflow keeps text, hyperopt floats."""
    assert TrialParams(**trial.to_dict()) == trial
    assert TrialParams.from_point({name: str(value) for name, value in trial.to_dict().items()}) == trial
    loose = {name: float(value) for name, value in trial.values.items()}
    assert TrialParams.from_point({"backbone": trial.backbone, "other": 1, **loose}) == trial


@given(params, params)
def test_more_regularization_comes_first_then_sparsity_then_fewer_iterations(
    one: TrialParams, other: TrialParams
) -> None:
    simpler = (-one.regParam, -one.elasticNetParam, one.maxIter) < (
        -other.regParam,
        -other.elasticNetParam,
        other.maxIter,
    )
    assert (one.simplicity() < other.simplicity()) == simpler


def test_values_are_described_for_a_person() -> None:
    values = {"regParam": 0.0123456, "elasticNetParam": 0.5, "maxIter": 20.0}
    assert described(values) == "regParam 0.01235, elasticNetParam 0.5, maxIter 20"
