"""What a search came to, in figures and in a notebook."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tuner.api.results import SearchResult
from tuner.base.errors import ExperimentError, ModelError
from tuner.classifiers.parameters import TrialParams
from tuner.evaluation.metrics import evaluate
from tuner.registry.versions import RegisteredVersion
from tuner.searches.winner import Winner
from tuner.tracking.store import Tracking

LABELS = ("cat", "<dog>")


@pytest.fixture
def result(tmp_path: Path) -> SearchResult:
    params = TrialParams.of("GlyphNet", regParam=0.01, elasticNetParam=0.5, maxIter=20)
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    test = evaluate(np.array([0, 1, 1]), scores, LABELS)
    version = RegisteredVersion("<pets>", "3", "Staging", "champion")
    best = Winner(2, "run-2", "002-glyphnet", params, {"accuracy": 0.9}, test, version)
    rows = [
        {
            "trial": n,
            "run_id": f"run-{n}",
            "backbone": "GlyphNet",
            "regParam": 10.0**-n,
            "status": "FINISHED",
        }
        | {"accuracy": 0.5 + n / 50, "seconds": 0.1}
        for n in range(1, 13)
    ]
    rows.append({"trial": 13, "run_id": None, "backbone": "GlyphNet", "regParam": 1.0, "status": "FAILED"})
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}?timeout=60", "7")
    return SearchResult("<pets>", "accuracy", "run", pd.DataFrame(rows), best, 3, tracking)


def test_figures_show_the_trials_and_the_test(result: SearchResult) -> None:
    history = result.plot_history().data
    assert list(history[0].x) == list(range(1, 13))
    assert [trace.name for trace in history] == ["GlyphNet", "best so far", "failed"]
    (confusion,) = result.plot_confusion().data
    assert np.array_equal(confusion.text, [[1, 0], [1, 1]])
    (importance,) = result.plot_importance().data
    assert list(importance.y) == ["regParam"]


def test_a_shell_shows_the_winner_and_what_it_is_worth(result: SearchResult) -> None:
    assert repr(result) == (
        "SearchResult(<pets>: 13 trials, best 002-glyphnet, accuracy 0.9000 in validation and 0.6667 on "
        "the test part, models:/<pets>@champion)"
    )


def test_a_notebook_shows_the_winner_and_the_best_trials(result: SearchResult) -> None:
    page = result._repr_html_()
    for said in ("002-glyphnet: GlyphNet", "accuracy 0.9000", "accuracy 0.6667", "@champion, version 3"):
        assert said in page
    assert "and 3 more: see trials" in page
    assert "&lt;pets&gt;" in page
    assert "<pets>" not in page
    assert "timeout" not in page


def test_it_knows_where_mlflow_has_it(result: SearchResult) -> None:
    assert (result.experiment_id, result.run_id) == ("7", "run")
    assert result.test is result.best.test
    assert dataclasses.is_dataclass(result)


@pytest.mark.parametrize(
    ("name", "how"), [("a/b", {}), ("pets", {"alias": "challenger"}), ("pets", {"stage": "Testing"})]
)
def test_a_name_that_no_model_may_have_is_refused(
    result: SearchResult, name: str, how: dict[str, str]
) -> None:
    with pytest.raises(ExperimentError, match="The model cannot be registered so"):
        result.register(name, **how)


def test_a_model_that_is_gone_is_one_sentence(result: SearchResult) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        _ = result.model
