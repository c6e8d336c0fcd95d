"""The public names of tuner: listed once, found when first used, and documented."""

import ast
import builtins
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import tuner
from tuner.base import errors, interrupts

NAMES = tuner.__all__
PUBLIC = {name: getattr(tuner, name) for name in NAMES}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
METHODS = {
    f"{name}.{key}": getattr(owner, key)
    for name, owner in CLASSES.items()
    for key, value in vars(owner).items()
    if not key.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod))
}


def sections(documented: object) -> dict[str, str]:
    """The sections of a NumPy docstring by their heads; what comes before them has the head ""."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.getdoc(documented) or "", flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def items(section: str) -> list[str]:
    """The names that a section explains: ``a, b : int`` gives a and b."""
    heads = re.findall(r"^(\S.*)$", section, re.MULTILINE)
    return [name.strip() for head in heads for name in head.partition(" : ")[0].split(",")]


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


# The list ------------------------------------------------------------------------------------------


def test_the_names_are_in_alphabetical_order_and_once() -> None:
    assert sorted(set(NAMES)) == NAMES


def test_a_name_is_found_where_the_table_and_the_type_checker_look() -> None:
    assert sorted(tuner._MODULES) == NAMES
    tree = ast.parse(Path(tuner.__file__).read_text(encoding="utf-8"))
    (checked,) = [
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imported = {
        alias.name: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == tuner._MODULES
    assert {name: value.__module__ for name, value in PUBLIC.items()} == tuner._MODULES


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        tuner.nothing  # noqa: B018


# The docstrings ------------------------------------------------------------------------------------


def test_there_is_something_to_look_at() -> None:
    assert "search" in FUNCTIONS
    assert "Scorer.score" in METHODS
    assert items("a, b : int\n    Of both.\nc\n    Of c.") == ["a", "b", "c"]


@pytest.mark.parametrize("name", [*PUBLIC, *METHODS])
def test_a_public_name_says_what_it_is_in_its_first_line(name: str) -> None:
    first, _, rest = sections((PUBLIC | METHODS)[name])[""].partition("\n")
    assert first.endswith(".")
    assert not rest or rest.startswith("\n")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_explains_its_parameters_its_answer_and_its_errors(name: str) -> None:
    function = FUNCTIONS[name]
    found = sections(function)
    assert items(found["Parameters"]) == parameters(function)
    assert "Returns" in found or inspect.signature(function).return_annotation == "None"
    assert items(found["Raises"])


@pytest.mark.parametrize("name", CLASSES)
def test_a_public_class_explains_its_parameters_or_its_fields(name: str) -> None:
    public, found = CLASSES[name], sections(CLASSES[name])
    if issubclass(public, Exception):
        return
    if dataclasses.is_dataclass(public):
        assert items(found["Attributes"]) == [field.name for field in dataclasses.fields(public)]
    elif issubclass(public, BaseModel):
        assert items(found["Attributes"]) == list(public.model_fields)
    else:
        assert items(found["Parameters"]) == parameters(public.__init__)


@pytest.mark.parametrize("name", METHODS)
def test_a_public_method_explains_its_parameters(name: str) -> None:
    assert items(sections(METHODS[name]).get("Parameters", "")) == parameters(METHODS[name])


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_the_errors_that_a_public_name_raises_exist(name: str) -> None:
    known = vars(errors) | vars(interrupts) | vars(builtins) | {"MlflowException": Exception}
    for error in items(sections((FUNCTIONS | METHODS)[name]).get("Raises", "")):
        assert issubclass(known[error], BaseException)


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_an_array_has_its_shape_and_type_said(name: str) -> None:
    documented = (FUNCTIONS | METHODS)[name]
    if any("ndarray" in str(kind) for kind in documented.__annotations__.values()):
        text = inspect.getdoc(documented) or ""
        assert re.search(r"shape \([\w, ]+\)", text)
        assert re.search(r"float\d\d|int\d\d", text)
