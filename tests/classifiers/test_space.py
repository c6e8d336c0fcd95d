import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.classifiers.space import ParamSpace, parse_space, shown

finite = st.floats(-1e9, 1e9, allow_nan=False)
spaces = st.one_of(
    st.lists(finite, min_size=1, max_size=4, unique=True).map(
        lambda values: ParamSpace(values=tuple(values))
    ),
    st.tuples(finite, st.floats(1e-3, 1e6)).map(lambda ends: ParamSpace(low=ends[0], high=sum(ends))),
    st.tuples(st.floats(1e-9, 1), st.floats(1.001, 1e6)).map(
        lambda ends: ParamSpace(low=ends[0], high=ends[0] * ends[1], log=True)
    ),
).filter(lambda space: bool(space.values) or space.bounds[0] < space.bounds[1])
nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=40,
)


def parse(value: object, log_by_default: bool = False) -> ParamSpace:
    return ParamSpace.model_validate(parse_space(value, log_by_default=log_by_default))


@given(spaces, st.booleans())
def test_a_space_is_written_as_it_is_read(space: ParamSpace, log_by_default: bool) -> None:
    assert parse(str(space), log_by_default) == space
    assert parse(space, log_by_default) == space


@given(spaces, finite)
def test_a_space_holds_its_values_and_nothing_beyond_its_bounds(space: ParamSpace, value: float) -> None:
    low, high = space.bounds
    assert low in space
    assert high in space
    assert (value in space) == (value in space.values if space.values else low <= value <= high)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0.1", ParamSpace(values=(0.1,))),
        (3, ParamSpace(values=(3,))),
        ("1, 2,1", ParamSpace(values=(1, 2))),
        ([1, "2"], ParamSpace(values=(1, 2))),
        ("0:1", ParamSpace(low=0, high=1)),
        ("1e-4:1:log", ParamSpace(low=1e-4, high=1, log=True)),
    ],
)
def test_the_syntax(written: object, expected: ParamSpace) -> None:
    assert parse(written) == expected


@pytest.mark.parametrize(
    "value", ["", "a", "1:", "2:1", "0:1:log", "1:2:3", [], [True], math.inf, None, {}]
)
def test_what_is_no_space_is_refused(value: object) -> None:
    with pytest.raises(
        ValueError, match=r"give a value \(0\.1\)|is not a range|is empty|must start above 0"
    ):
        parse(value)


@given(nested)
def test_any_value_is_shown_short(value: object) -> None:
    assert len(shown(value)) < 1000


def test_aliases_of_yaml_do_not_blow_up_a_sentence() -> None:
    value: list = ["x"]
    for _ in range(60):
        value = [value, value]
    assert len(shown(value)) < 200
