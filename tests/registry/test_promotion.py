"""`tuner promote | rollback | registry` as their user runs them, on a copy of a finished registry."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from tests.conftest import FinishedSearch, tuner
from tests.helpers.searches import aliases_of, tracking
from tuner.cli.main import main
from tuner.tracking.names import SEARCH_RUN


@pytest.fixture
def folder(finished_search: FinishedSearch, tmp_path: Path) -> Iterator[Path]:
    """Version 1, the champion, and version 2, the challenger: the model of the worst trial."""
    shutil.copy(finished_search.folder / "mlflow.db", tmp_path)
    shutil.copy(finished_search.folder / "letters.yaml", tmp_path)
    worst = min(finished_search.trials(), key=lambda run: (run.data.metrics["accuracy"], run.info.run_id))
    client = client_of(tmp_path)
    (model,) = client.search_logged_models(
        [worst.info.experiment_id], f"source_run_id = '{worst.info.run_id}'"
    )
    tags = {SEARCH_RUN: finished_search.parent().info.run_id}
    with tracking(f"sqlite:///{tmp_path / 'mlflow.db'}"):  # where `models:/m-…` is looked up
        client.create_model_version("letters", model.model_uri, tags=tags)
        client.set_registered_model_alias("letters", "challenger", "2")
        yield tmp_path


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def champion_of(folder: Path) -> str:
    return str(client_of(folder).get_model_version_by_alias("letters", "champion").version)


def make_gate(folder: Path, gate: str) -> None:
    with (folder / "letters.yaml").open("a", encoding="utf-8") as file:
        file.write(f"gate: {gate}\n")


def refused(folder: Path, *arguments: object) -> str:
    done = tuner(folder, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("tuner: ")]
    assert len(sentences) == 1
    assert "Traceback" not in done.stderr
    assert champion_of(folder) == "1"
    return sentences[0]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_gate_holds_the_override_moves_and_the_rollback_brings_back(folder: Path):
    make_gate(folder, "{min_gain: 1}")
    held = tuner(folder, "promote", "letters", "--experiment", "letters.yaml")
    assert held.returncode == 1, held.stderr
    assert "images     15 test images of version 1, the champion" in held.stdout
    assert "McNemar's exact test p = " in held.stdout
    assert "gate       not passed: " in held.stdout
    assert champion_of(folder) == "1"

    moved = tuner(
        folder, "promote", "letters", "--experiment", "letters.yaml", "--force", "--why", "a test"
    )
    assert moved.returncode == 0, moved.stderr
    assert "letters version 2 is now champion, stage Staging: models:/letters@champion" in moved.stdout
    client = client_of(folder)
    new = client.get_model_version_by_alias("letters", "champion")
    assert (str(new.version), new.current_stage) == ("2", "Staging")
    assert new.tags["tuner.promotion.why"] == "a test"
    assert new.tags["tuner.promotion.by"]
    assert aliases_of(client, "letters") == {"champion": 2}
    assert client.get_model_version("letters", "1").current_stage == "Archived"

    run_id = new.tags["tuner.promotion.run"]
    report = Path(client.download_artifacts(run_id, "comparison/report.md")).read_text(encoding="utf-8")
    assert report.startswith("# Version 2 against version 1\n\n**Not passed**: ")
    assert client.get_run(run_id).data.tags["tuner.kind"] == "promote"
    assert {"gain", "mcnemar_p", "champion_accuracy"} <= set(client.get_run(run_id).data.metrics)

    back = tuner(folder, "rollback", "letters", "--why", "a mistake")
    assert back.returncode == 0, back.stderr
    assert "letters version 1 is champion again, stage Staging" in back.stdout
    assert champion_of(folder) == "1"
    assert "FutureWarning" not in moved.stderr + back.stderr


def test_the_registry_is_listed_with_what_counts(folder: Path):
    done = tuner(folder, "registry")
    assert done.returncode == 0, done.stderr
    head, new, old = (line.split() for line in done.stdout.splitlines())
    assert head == ["model", "version", "stage", "alias", "backbone", "accuracy", "f1", "logLoss", "data"]
    assert new == ["letters", "2", "None", "challenger"]
    tags = client_of(folder).get_model_version("letters", "1").tags
    shown = [tags[f"test_{metric}"] for metric in ("accuracy", "f1", "logLoss")]
    assert old[:4] == ["letters", "1", "Staging", "champion"]
    assert old[5:] == [*shown, tags["tuner.data_digest"]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(
            ("promote", "nobody"),
            "There is no registered model nobody: there are letters.",
            marks=pytest.mark.long,
        ),
        pytest.param(
            ("promote", "letters", "--version", "9"),
            "has no version 9: it has 2 (challenger), 1 (champion).",
            marks=pytest.mark.long,
        ),
        pytest.param(("promote", "letters", "--version", "best"), "no alias best", marks=pytest.mark.long),
        pytest.param(
            ("promote", "letters", "--version", "1"), "is the champion already", marks=pytest.mark.long
        ),
        pytest.param(("rollback", "letters"), "there is nothing to roll back to", marks=pytest.mark.long),
        pytest.param(("registry", "nobody"), "no registered model nobody", marks=pytest.mark.long),
    ],
)
def test_what_is_not_there_is_one_sentence(folder: Path, arguments: tuple[str, ...], expected: str):
    assert expected in refused(folder, *arguments)


def test_a_metric_that_does_not_exist_is_one_sentence(folder: Path):
    make_gate(folder, "{metric: precision}")
    error = refused(folder, "promote", "letters", "--experiment", "letters.yaml")
    assert "gate.metric is 'precision'" in error


@pytest.mark.long
def test_a_model_of_another_tool_takes_no_place_not_even_by_force(folder: Path):
    client = client_of(folder)
    source = folder / "other"
    mlflow.pyfunc.save_model(str(source), python_model=lambda model_input: model_input, pip_requirements=[])
    client.create_model_version("letters", str(source))
    error = refused(folder, "promote", "letters", "--version", "3", "--force")
    assert "was not made by a search of tuner: its flavors are python_function" in error


@pytest.mark.parametrize("command", [("registry",), ("search", "--experiment", "letters.yaml")])
def test_a_registry_that_is_away_is_said_before_anything_starts(
    folder: Path,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(sys, "argv", ["tuner", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("tuner: The model registry cannot be read: ")
    assert len(error.splitlines()) == 1


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_better_search_takes_the_place_and_without_images_it_challenges(letters: Path, tmp_path: Path):
    images = tmp_path / "images"
    shutil.copytree(letters, images)
    for name, source, settings in (
        ("weak", images, "backbone: [GaborNet], regParam: 3, elasticNetParam: 0.9, maxIter: 2"),
        ("good", letters, "backbone: [GlyphNet], regParam: 0.01, elasticNetParam: 0, maxIter: 12"),
    ):
        (tmp_path / f"{name}.yaml").write_text(
            f"name: letters\nimages: {source}\n"
            f"search: {{{settings}, max_evals: 1, parallelism: 1}}\n"
            "gate: {min_gain: 0.1, max_regression_per_class: 0.5}\n",
            encoding="utf-8",
        )
    first = tuner(tmp_path, "search", "--experiment", "weak.yaml")
    assert "letters version 1, champion, stage Staging" in first.stdout, first.stderr
    second = tuner(tmp_path, "search", "--experiment", "good.yaml")
    assert "letters version 2, champion, stage Staging" in second.stdout, second.stderr
    assert "Version 2 takes the place of version 1: better: accuracy" in second.stdout
    assert client_of(tmp_path).get_model_version("letters", "2").tags["tuner.promotion.from"] == "1"
    back = tuner(tmp_path, "rollback", "letters")
    assert "letters version 1 is champion again" in back.stdout, back.stderr
    shutil.rmtree(images)
    third = tuner(tmp_path, "search", "--experiment", "good.yaml")
    assert third.returncode == 0, third.stderr
    assert "Version 3 stays challenger, for it could not be compared" in third.stdout
    assert f"There is no folder {images}" in third.stdout
    assert aliases_of(client_of(tmp_path), "letters") == {"champion": 1, "challenger": 3}
