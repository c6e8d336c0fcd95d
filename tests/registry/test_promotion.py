"""`tuner promote | rollback | registry` as their user runs them, on a copy of a finished registry."""

import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from tests.conftest import FinishedSearch, glyph, tuner
from tests.helpers.searches import aliases_of, tracking
from tuner.cli.main import main
from tuner.registry import promotion
from tuner.registry.champion_challenger import compare_versions, search_experiment
from tuner.registry.promotion import place_version
from tuner.registry.versions import RegisteredVersion, holder_of
from tuner.tracking.names import SEARCH_RUN
from tuner.tracking.run_log import RunLog
from tuner.tracking.store import Tracking


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


def letter_pictures(folder: Path, first: int) -> Path:
    """Pictures of the same letters as those of the finished search, and none of the same content."""
    for label, letter in (("A", "A"), ("ñandú <b>", "X"), ("o", "o")):
        (folder / label).mkdir(parents=True)
        for number in range(first, first + 20):
            glyph(letter, number).save(folder / label / f"{number:02d}.png")
    return folder


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
    assert held.returncode == 3, held.stderr
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


@pytest.mark.long
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
    one = tuner(folder, "registry", "letters")
    assert one.stdout.startswith(done.stdout)
    (move,) = one.stdout.removeprefix(done.stdout).splitlines()
    assert move.endswith("  champion: none to 1, promotion: no version held the alias champion")


@pytest.mark.parametrize("name", ['it\'s "odd"', "ends in \\", "100% -- x", "[red]ñ"])
def test_a_model_with_an_odd_name_is_listed_with_the_others(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    client = client_of(folder)
    client.create_registered_model(name)
    client.create_model_version(name, "somewhere")
    for arguments, count in (((), 4), ((name,), 2)):
        assert run(folder, monkeypatch, "registry", *arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == count
        assert any(line.startswith(name) for line in lines)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process; gives its exit code."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    monkeypatch.setattr(sys, "argv", ["tuner", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.fixture
def cached(folder: Path, finished_search: FinishedSearch) -> Path:
    """With the features of the search: nothing needs Spark."""
    (folder / ".tuner").symlink_to(finished_search.folder / ".tuner")
    return folder


def test_the_exit_code_says_whether_it_moved(
    cached: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """3: the gate said no. 2: the input is bad. 0: it moved."""
    monkeypatch.setattr(promotion, "driver_session", None)  # it cannot be started
    assert run(cached, monkeypatch, "promote", "letters") == 3
    told = capsys.readouterr().out
    assert "gate       not passed: only 15 images to compare on, fewer than min_images 20" in told
    assert "letters version 2 was not promoted (--force overrides the gate)" in told
    assert champion_of(cached) == "1"
    assert run(cached, monkeypatch, "promote", "letters", "--version", "7") == 2
    assert run(cached, monkeypatch, "promote", "letters", "--nonsense") == 2
    assert run(cached, monkeypatch, "promote", "letters", "--force") == 0
    assert champion_of(cached) == "2"
    moved = client_of(cached).get_model_version("letters", "2")
    assert moved.tags["tuner.promotion.why"].startswith("forced, against: only 15 images")


def test_a_champion_that_came_meanwhile_is_compared_with(
    cached: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """While 2 is compared with 1, version 3, the same model as 1, becomes champion by another's hand."""
    client = client_of(cached)
    first = client.get_model_version("letters", "1")
    client.create_model_version("letters", first.source, tags=first.tags)
    pairs: list[tuple[str, str]] = []

    def compare(session, store, champion, challenger, *arguments, **options):
        compared = compare_versions(session, store, champion, challenger, *arguments, **options)
        pairs.append((compared.champion, compared.challenger))
        if len(pairs) == 1:
            client.set_registered_model_alias("letters", "champion", "3")
        return compared

    monkeypatch.setattr(promotion, "compare_versions", compare)
    assert run(cached, monkeypatch, "promote", "letters", "--force") == 0
    assert pairs == [("1", "2"), ("3", "2")]
    told = " ".join(capsys.readouterr().out.split())
    assert "The alias champion of letters was held by version 1 and is held by version 3 now" in told
    assert client.get_model_version("letters", "2").tags["tuner.promotion.from"] == "3"


@pytest.mark.timeout(900)
def test_two_first_searches_that_end_together_leave_one_champion_and_a_challenger(
    cached: Path, finished_search: FinishedSearch, monkeypatch: pytest.MonkeyPatch
):
    """Neither finds a champion; who comes second is compared with the first."""
    monkeypatch.chdir(cached)
    store = Tracking(f"sqlite:///{cached / 'mlflow.db'}", finished_search.parent().info.experiment_id)
    client = store.client()
    made = client.get_model_version("letters", "1")
    client.create_registered_model("pair")
    with tracking(store.uri):
        pair = [client.create_model_version("pair", made.source, tags=made.tags) for _ in range(2)]
        experiment = search_experiment(store, made)
        start, found = threading.Barrier(2), threading.Barrier(2)
        placed: dict[str, RegisteredVersion] = {}

        def first_look(store, name, alias):
            holder = holder_of(store, name, alias)
            if holder is None:
                found.wait()  # both have looked before one of them moves
            return holder

        def place(version: ModelVersion) -> None:
            made_run = client.create_run(store.experiment_id)
            run = RunLog(client, made_run.info.run_id, store.experiment_id)
            start.wait()
            placed[version.version] = place_version(None, store, run, version, experiment, {})

        monkeypatch.setattr(promotion, "holder_of", first_look)
        threads = [threading.Thread(target=place, args=(version,)) for version in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    by_alias = {version.alias: version for version in placed.values()}
    assert set(by_alias) == {"champion", "challenger"}
    challenger, champion = by_alias["challenger"], by_alias["champion"]
    assert challenger.notes[0].startswith(
        "The alias champion of pair was held by no version and is held by"
    )
    assert challenger.notes[-1].startswith(f"Version {challenger.version} stays challenger: only 15 images")
    assert champion.notes == ()
    numbers = {"champion": int(champion.version), "challenger": int(challenger.version)}
    assert aliases_of(client, "pair") == numbers


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


@pytest.mark.long
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
def test_a_better_search_takes_the_place_and_without_common_images_it_challenges(
    letters: Path, tmp_path: Path
):
    images = tmp_path / "images"
    shutil.copytree(letters, images)
    for name, source, settings in (
        ("weak", images, "backbone: [GaborNet], regParam: 3, elasticNetParam: 0.9, maxIter: 2"),
        ("good", letters, "backbone: [GlyphNet], regParam: 0.01, elasticNetParam: 0, maxIter: 12"),
    ):
        (tmp_path / f"{name}.yaml").write_text(
            f"name: letters\nimages: {source}\n"
            f"search: {{{settings}, max_evals: 1, parallelism: 1}}\n"
            "gate: {min_gain: 0.1, min_images: 10, max_regression_per_class: 0.5}\n",
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
    shutil.rmtree(images)  # its pictures are still in the other folder, and their features in the cache
    third = tuner(tmp_path, "search", "--experiment", "good.yaml")
    assert "Version 3 takes the place of version 1: better: accuracy" in third.stdout, third.stderr
    back = tuner(tmp_path, "rollback", "letters")
    assert "letters version 1 is champion again" in back.stdout, back.stderr
    others = letter_pictures(tmp_path / "others", first=100)
    fourth = tuner(tmp_path, "search", "--experiment", "good.yaml", "--images", others, "--cache", "new")
    assert fourth.returncode == 0, fourth.stderr
    assert "Version 4 stays challenger, for it could not be compared" in fourth.stdout
    assert f"There is no folder {images}" in fourth.stdout
    assert aliases_of(client_of(tmp_path), "letters") == {"champion": 1, "challenger": 4}
