import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.cli.options import complete_file, completing
from tuner.experiment.file import OVERRIDES


def test_networks_are_completed_one_after_the_other() -> None:
    complete = completing("backbone")
    assert complete("Effici")[-2:] == ["EfficientNetLite0", "EfficientNetLite2"]
    assert complete("VGG16,glyph") == ["VGG16,GlyphNet"]
    assert len(complete("")) > 40
    assert complete("Nothing") == []
    assert completing("classifier")("randomfor") == ["RandomForest"]


@pytest.mark.parametrize(
    ("name", "begin", "values"),
    [
        ("algorithm", "", ["tpe", "random", "anneal"]),
        ("metric", "weighted", ["weightedPrecision", "weightedRecall"]),
        ("deterministic", "t", ["true"]),
        ("precision", "b", ["bfloat16"]),
        ("max_evals", "", []),
    ],
)
def test_values_are_those_of_the_schema(name: str, begin: str, values: list[str]) -> None:
    assert completing(name)(begin) == values


@pytest.mark.parametrize("name", OVERRIDES)
def test_every_option_can_be_asked(name: str) -> None:
    assert all(isinstance(value, str) for value in completing(name)(""))


def test_experiment_files_are_offered_and_folders_that_may_hold_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / ".tuner").mkdir()
    for name in ("experiments/digits.yaml", "a.yaml", "a.txt", ".hidden.yaml"):
        (tmp_path / name).touch()
    assert complete_file("") == [".hidden.yaml", "a.yaml", "experiments/"]
    assert complete_file("ex") == ["experiments/"]
    assert complete_file("experiments/") == complete_file("experiments/dig") == ["experiments/digits.yaml"]
    assert complete_file("nowhere/a") == []


def test_a_shell_is_answered(tmp_path: Path) -> None:
    """As bash asks: what was typed, and the word that is to be completed."""
    done = subprocess.run(
        [Path(sys.executable).with_name("tuner")],
        cwd=tmp_path,
        env={
            **os.environ,
            "_TUNER_COMPLETE": "complete_bash",
            "COMP_WORDS": "tuner search --metric acc",
            "COMP_CWORD": "3",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout.split(), done.stderr) == (["accuracy"], "")
