"""README and the documentation: they say all that there is, name nothing else, and their commands run."""

import copy
import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

import tuner
from tests.helpers.blocks import Block, blocks_of, run_blocks
from tests.helpers.scripts import ROOT, load_script
from tuner.base.choices import LOWER_IS_BETTER, NEEDS_PROBABILITY, Metric
from tuner.classifiers.table import CLASSIFIERS, SPOTS
from tuner.cli.main import commands
from tuner.experiment.file import LEARN_OVERRIDES, OVERRIDES
from tuner.experiment.json_schema import written_meanings
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.schema import Experiment
from tuner.networks.table import NETWORKS
from tuner.tracking import names

REFERENCE = load_script("scripts/reference.py")
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = {str(file.relative_to(ROOT)): REFERENCE.filled(file.read_text(encoding="utf-8")) for file in FILES}
COMMANDS: dict[str, Any] = typer.main.get_command(commands).commands  # type: ignore[attr-defined]
CODE = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in (ROOT / "tuner").rglob("*")
    if file.suffix in (".py", ".csv")
}


def rows(page: str, head: str) -> list[list[str]]:
    """The cells of the Markdown table of a page whose first column has this head."""
    found = []
    for line in PAGES[page].split(f"| {head} |", 1)[1].splitlines()[2:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))])
    return found


def section(page: str, head: str) -> str:
    level = head.partition(" ")[0]
    return re.split(rf"^#{{1,{len(level)}}} ", PAGES[page].split(f"\n{head}\n", 1)[1], flags=re.M)[0]


# All that there is --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_of_a_command_has_its_meaning(name: str) -> None:
    told = section("docs/reference/command-line.md", f"### tuner {name}")
    cells = dict(re.findall(r"^\| (.+?) \| (.*) \|$", told, re.M))
    for param in COMMANDS[name].params:
        shown = [cell for cell in cells if set(param.opts) <= set(re.findall(r"`(.+?)`", cell))]
        if param.param_type_name == "argument":
            shown = [cell for cell in cells if re.fullmatch(rf"`\[?{param.name.upper()}…?\]?`", cell)]
        assert shown, f"tuner {name} {param.opts}"
        assert len(cells[shown[0]].removesuffix("Must be given.").strip()) > 5, f"tuner {name} {param.opts}"


def schema_keys() -> set[str]:
    keys: set[str] = set()
    for name, field in Experiment.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= {f"{name}.{inner}" for inner in field.annotation.model_fields}
        else:
            keys.add(name)
    return keys


def key_rows() -> dict[str, list[str]]:
    found = rows("docs/reference/experiment.md", "key")
    return {row[0].rstrip(" *").strip("`"): row for row in found}


def test_each_key_of_an_experiment_and_of_a_network_has_its_meaning() -> None:
    """After a change of a key: change tuner/experiment/keys.csv, too."""
    assert set(key_rows()) == schema_keys()
    described = rows("docs/how-to/own-network.md", "key of a network")
    assert {row[0].strip("`") for row in described} == set(NetworkSpec.model_fields)
    assert all(row[-1] for row in [*key_rows().values(), *described])
    with (ROOT / "tuner/experiment/keys.csv").open(encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == len(written_meanings())


def test_keys_that_are_options_have_a_star() -> None:
    starred = {key for key, row in key_rows().items() if row[0].endswith("*")}
    places = {*OVERRIDES.values(), *LEARN_OVERRIDES.values()}
    assert starred == {".".join(place) for place in places}


def test_the_defaults_that_are_stated_are_those_of_the_schema() -> None:
    given: dict[str, Any] = {"name": "x", "images": "x", "search": {"backbone": "ResNet50"}}
    stated = copy.deepcopy(given)
    for key, (_, default, _) in key_rows().items():
        if default.startswith("`"):
            *groups, name = key.split(".")
            place = stated
            for group in groups:
                place = place.setdefault(group, {})
            place[name] = default.strip("`")
    assert len(stated["search"]) > 10
    assert Experiment.model_validate(stated) == Experiment.model_validate(given)


def test_each_metric_has_its_meaning() -> None:
    told = {row[0].strip("`"): row[1:] for row in rows("docs/reference/metrics.md", "metric")}
    assert set(told) == set(get_args(Metric))
    assert {name for name, (_, better) in told.items() if better == "lower"} == LOWER_IS_BETTER
    assert {name for name, (about, _) in told.items() if "probabilities" in about} == NEEDS_PROBABILITY


def test_each_network_and_classifier_has_a_row() -> None:
    listed = [row[0].strip("`") for row in rows("docs/reference/networks.md", "network")]
    assert listed == list(NETWORKS)
    fitted = [row[0].strip("`") for row in rows("docs/reference/classifiers.md", "classifier")]
    assert fitted == list(CLASSIFIERS)
    tried = {
        name.strip("`… ")
        for row in rows("docs/reference/classifiers.md", "tried")
        for name in row[0].split()
    }
    assert tried - {""} <= set(SPOTS)
    of = {row[1].strip("`") for row in rows("docs/reference/classifiers.md", "tried")}
    assert of == {row.name for row in CLASSIFIERS.values() if row.spots}


def test_each_tag_and_artifact_has_its_meaning() -> None:
    made = {value for name, value in vars(names).items() if name.isupper()}
    told = dict(
        re.findall(r"^\| `(.+?)` \| (.*) \|$", section("docs/reference/mlflow.md", "## Names"), re.M)
    )
    assert set(told) == made
    assert {name for name, meaning in told.items() if len(meaning) < 5} == set()


def test_each_public_name_is_in_the_reference() -> None:
    """What is said of it is its docstring, which `test_public.py` looks at."""
    listed = re.findall(r"^::: tuner\.(\w+)$", PAGES["docs/reference/python.md"], re.M)
    assert sorted(listed) == sorted(tuner.__all__)


# Nothing that there is not ------------------------------------------------------------------------


def shell_lines() -> list[tuple[str, str]]:
    """The commands of tuner in the blocks of all pages."""
    return [
        (page, line)
        for page, text in PAGES.items()
        for block in blocks_of(text)
        if block.language == "sh"
        for line in block.text.replace("\\\n", " ").splitlines()
        if re.match(r"([A-Z_]+=\S+ )*tuner ", line)
    ]


@pytest.mark.parametrize(("page", "line"), shell_lines())
def test_a_command_that_is_written_is_one(page: str, line: str) -> None:
    words = shlex.split(re.split(r"[|>]", line)[0], comments=True)
    words = words[words.index("tuner") + 1 :]
    if words[0].startswith("-"):
        return
    command = COMMANDS[words[0]]
    known = {one for param in command.params for one in param.opts}
    used = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
    assert used <= known


def test_pages_and_code_name_pages_that_there_are() -> None:
    named = [
        (place, found)
        for place, text in (PAGES | CODE).items()
        for found in re.findall(r"(?<![\w/])docs/[\w/-]+\.md", text)
    ]
    assert len(named) > 10
    assert [(place, found) for place, found in named if not (ROOT / found).is_file()] == []


def test_links_of_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGES["README.md"])
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).is_file()] == []


# It runs ------------------------------------------------------------------------------------------

RUN = [*blocks_of(PAGES["docs/tutorial.md"]), *blocks_of(PAGES["README.md"])]


def test_each_block_is_run_or_says_why_not() -> None:
    assert sum(not block.reason for block in RUN) >= 8
    assert all(block.reason or block.port or not block.said for block in RUN)
    made = blocks_of("<!-- not run: why -->\n```sh\na\n```\n```yaml\nb\n```\n\n```python\nc\n```\n")
    assert made == [Block("sh", "a\n", "not run: why"), Block("python", "c\n", "")]
    assert [block.reason for block in made] == ["why", ""]


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_the_commands_of_the_tutorial_and_of_readme_run(tmp_path: Path) -> None:
    wrote = {block.text.splitlines()[0]: out for block, out in run_blocks(RUN, tmp_path)}
    (search,) = (out for first, out in wrote.items() if first.startswith("tuner search --experiment"))
    assert "models:/photos" in search
    assert '"prediction": "temple"' in wrote["image=$(base64 photos/temple/0-0.jpg | tr -d '\\n')"]
    answers = (tmp_path / "answers.csv").read_text().splitlines()
    assert len(answers) == 1 + 54
    assert sum(",temple," in line for line in answers) > 48


@pytest.mark.long
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the tools of the documentation are not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    api = (tmp_path / "reference/python.html").read_text(encoding="utf-8")
    assert {name for name in tuner.__all__ if f'id="tuner.{name}"' not in api} == set()
    fetched = r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=\"?https?://[^\s\">]+"
    pages = {page: page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")}
    assert len(pages) > 25
    assert {str(page): found for page, text in pages.items() if (found := re.findall(fetched, text))} == {}
