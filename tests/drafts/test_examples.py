from pathlib import Path

import pytest

from tests.product.test_project import EXPERIMENTS, ROOT
from tuner.base.errors import ExperimentError
from tuner.drafts.examples import DEFAULT_FILE, examples, experiment_file, find_example, write_new


def test_the_examples_are_the_project_s_experiments_each_with_what_it_is_about() -> None:
    found = examples()
    assert [example.file.resolve() for example in found] == EXPERIMENTS
    for example in found:
        assert example.about.endswith(".")
        assert example.about in example.file.read_text(encoding="utf-8").replace("\n# ", " ")


def test_an_example_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert find_example("digits").name == "digits"
    with pytest.raises(ExperimentError, match="no example digit: there are bengali_digits, digits, "):
        find_example("digit")


def test_the_default_is_the_working_folder_s_or_else_the_package_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("", DEFAULT_FILE, str(DEFAULT_FILE)):
        assert experiment_file(given).resolve() == ROOT / DEFAULT_FILE
    assert experiment_file("other.yaml") == Path("other.yaml")
    DEFAULT_FILE.parent.mkdir()
    DEFAULT_FILE.touch()
    for given in ("", DEFAULT_FILE, str(DEFAULT_FILE)):
        assert experiment_file(given) == DEFAULT_FILE


def test_a_new_file_replaces_none(tmp_path: Path) -> None:
    file = tmp_path / "inner" / "a.yaml"
    write_new(file, "ä")
    assert file.read_text(encoding="utf-8") == "ä"
    with pytest.raises(ExperimentError, match="there already, and stays"):
        write_new(file, "b")
    with pytest.raises(ExperimentError, match="cannot be written"):
        write_new(Path("/proc/nowhere/a.yaml"), "b")
