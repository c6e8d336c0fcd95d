import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests.conftest import FinishedSearch, tuner
from tuner.api.results import SearchResult
from tuner.classifiers.parameters import TrialParams
from tuner.cli.results import result_json, show_result
from tuner.evaluation.metrics import Evaluation
from tuner.registry.versions import RegisteredVersion
from tuner.searches.winner import Winner
from tuner.tracking.store import Tracking


@pytest.fixture
def result() -> SearchResult:
    params = TrialParams.of("GlyphNet", regParam=0.01, elasticNetParam=0.5, maxIter=20)
    test = Evaluation(("a", "b"), {"accuracy": 0.75, "logLoss": math.inf}, np.array([[5, 1], [2, 4]]), {})
    version = RegisteredVersion("letters ñ", "3", "Staging", "champion", ("It is better.",))
    winner = Winner(2, "run-2", "002-glyphnet", params, {"accuracy": np.float64(0.9)}, test, version)
    trials = pd.DataFrame(
        [
            {"trial": 1, "run_id": None, "status": "FAILED", "accuracy": math.nan},
            {"trial": 2, "run_id": "run-2", "status": "FINISHED", "accuracy": 1 / 3},
        ]
    )
    tracking = Tracking("sqlite:////nowhere.db", "7")
    return SearchResult("letters ñ", "accuracy", "run", trials, winner, 62, tracking)


def test_people_read_the_winner_its_test_and_its_model(result: SearchResult) -> None:
    console = Console(file=io.StringIO(), width=200)
    show_result(result, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for said in (
        "winner   002-glyphnet: GlyphNet, regParam 0.01",
        "test     accuracy 0.7500",
        "9 of 12 test images are called right: 95 % interval 0.4677 to 0.9111",
        "It is better.",
        "next     tuner predict 'models:/letters ñ@champion' FOLDER",
        "tuner ui: http://127.0.0.1:5000/#/experiments/7/runs?viewStateShareKey=search",
    ):
        assert said in shown
    assert "models:/letters ñ@champion" in shown


def test_scripts_read_the_same_and_every_trial(result: SearchResult) -> None:
    (line,) = result_json(result).splitlines()
    document = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert document["winner"]["params"] == {
        "backbone": "GlyphNet",
        "regParam": 0.01,
        "elasticNetParam": 0.5,
        "maxIter": 20,
    }
    assert document["winner"]["test"] == {"accuracy": 0.75, "logLoss": None}
    assert document["winner"]["validation"] == {"accuracy": 0.9}
    assert document["model"]["uri"] == "models:/letters ñ@champion"
    assert document["model"]["notes"] == ["It is better."]
    assert [trial["accuracy"] for trial in document["trials"]] == [None, pytest.approx(1 / 3, abs=1e-12)]
    assert (document["run_id"], document["images_extracted"]) == ("run", 62)


@pytest.mark.long
def test_a_search_writes_json_alone_to_standard_output_or_nothing(
    finished_search: FinishedSearch, tmp_path: Path
) -> None:
    shutil.copy(finished_search.folder / "letters.yaml", tmp_path)
    shutil.copytree(finished_search.folder / ".tuner", tmp_path / ".tuner")
    arguments = ("search", "--experiment", "letters.yaml", "--max_evals", "2")
    done = tuner(tmp_path, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    document = json.loads(line)
    assert len(document["trials"]) == 2
    assert "2/2 trials" in done.stderr
    for noise in ("incubator", "netlib", "absl", "Successfully registered", "Created version"):
        assert noise not in done.stderr
    quiet = tuner(tmp_path, *arguments, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
