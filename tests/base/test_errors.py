import inspect
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.base import errors

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value)]


def drawn(text: str) -> dict[str, str]:
    """Each class of the docstring's tree with the class above it."""
    above: list[str] = []
    found = {}
    for branch, name in re.findall(r"^([│├└─ ]*)(\w+) {2,}\S", text, re.MULTILINE):
        depth = len(branch) // 4
        above[depth:] = [name]
        found[name] = above[depth - 1] if depth else "Exception"
    return found


def test_the_tree_that_is_drawn_is_the_tree_of_the_classes() -> None:
    assert drawn(errors.__doc__ or "") == {error.__name__: error.__base__.__name__ for error in CLASSES}
    assert len(CLASSES) > 9


def test_what_the_tree_says_of_a_class_stands_in_one_column() -> None:
    columns = {line.end() for line in re.finditer(r"^[│├└─ ]*\w+ {2,}", errors.__doc__ or "", re.MULTILINE)}
    starts = {end - (errors.__doc__ or "").rfind("\n", 0, end) for end in columns}
    assert len(starts) == 1


@pytest.mark.parametrize("error", CLASSES)
@given(message=st.text())
def test_an_error_travels_between_processes(error: type[Exception], message: str) -> None:
    sent = error(message)
    sent.add_note("Resume it")
    came = pickle.loads(pickle.dumps(sent))
    assert type(came) is error
    assert str(came) == message
    assert came.__notes__ == ["Resume it"]


def test_what_the_user_gave_is_told_from_what_went_wrong() -> None:
    given = {error for error in CLASSES if issubclass(error, errors.InvalidInput)}
    assert {errors.ModelError, errors.NetworkError, errors.SessionError} <= given
    assert not {errors.SearchError, errors.TrialError, errors.ImageError} & given
