"""CONTRIBUTING names places of the code, in the tree, in what follows an image or a trial, in recipes."""

import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FOLDERS = {file.parent.name for file in (ROOT / "tuner").glob("*/__init__.py")}
QUOTED = sorted(
    set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)))
)
PATHS = [
    place
    for place in QUOTED
    if re.fullmatch(r"[\w./-]*/[\w./-]*|\w+\.(py|md|toml|ya?ml)|MLproject|Makefile", place)
    and not place.startswith("../")  # beside the project: not everybody has it
]
DOTTED = [name for name in QUOTED if re.fullmatch(r"\w+(\.\w+)+", name) and name.split(".")[0] in FOLDERS]


def part(head: str) -> str:
    """What stands under a head, up to the next one of its level."""
    level = head.partition(" ")[0]
    return re.split(rf"^#{{1,{len(level)}}} ", TEXT.split(f"{head}\n", 1)[1], flags=re.MULTILINE)[0]


def steps(text: str) -> list[str]:
    """The items of numbered lists."""
    return re.findall(r"^\d+\. (.*(?:\n   .*)*)", text, re.MULTILINE)


def named_in_modules() -> list[tuple[str, str]]:
    """In a recipe's step, the names that follow a module of the package: it has them."""
    found = []
    for step in steps(part("## Recipes")):
        module = ""
        for word in re.findall(r"`([^`]+)`", step):
            if word in PATHS or not word.isidentifier():
                inside = re.fullmatch(r"(tuner/[\w/]+)\.py", word)
                module = inside[1].replace("/", ".") if inside else ""
            elif module:
                found.append((module, word))
    return found


def test_there_is_something_to_look_at() -> None:
    assert {"tuner/networks/table.py", "MLproject", "tests/cli/"} <= set(PATHS)
    assert "extraction.cache.FeatureCache.missing" in DOTTED
    assert ("tuner.networks.table", "NETWORKS") in named_in_modules()


def test_the_tree_is_that_of_the_folders_in_the_order_of_the_layers() -> None:
    drawn = re.findall(r"^  (\w+)/ +\S", part("## The house"), re.MULTILINE)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = [rule["layers"] for rule in contracts["contracts"] if rule["type"] == "layers"]
    assert drawn == layers
    assert set(drawn) == FOLDERS


@pytest.mark.parametrize("place", PATHS)
def test_a_path_that_is_named_exists(place: str) -> None:
    """A file's name alone is that of a test or a benchmark, whose folder the sentence names."""
    named = [*(ROOT / "tests").rglob(place), *(ROOT / "bench").glob(place)] if "/" not in place else []
    assert (ROOT / place).exists() or named


@pytest.mark.parametrize("name", DOTTED)
def test_a_name_of_the_package_that_is_named_exists(name: str) -> None:
    assert pkgutil.resolve_name(f"tuner.{name}") is not None


@pytest.mark.parametrize(("module", "name"), named_in_modules())
def test_what_a_recipe_wants_changed_in_a_module_is_there(module: str, name: str) -> None:
    assert hasattr(pkgutil.resolve_name(module), name)


@pytest.mark.parametrize("head", ["### Follow an image", "### Follow a trial"])
def test_what_is_followed_is_followed_from_end_to_end(head: str) -> None:
    """Each step names where in the code it happens."""
    followed = steps(part(head))
    assert len(followed) > 4
    assert all(set(re.findall(r"`([^`\n]+)`", step)) & set(DOTTED) for step in followed)


def test_each_recipe_has_its_places() -> None:
    recipes = re.split(r"^### ", part("## Recipes"), flags=re.MULTILINE)[1:]
    wanted = {"network", "metric", "chart", "key to the experiment", "command"}
    assert wanted <= {recipe.partition("\n")[0].removeprefix("Add a ") for recipe in recipes}
    for recipe in recipes:
        assert {place for place in PATHS if f"`{place}`" in recipe}
