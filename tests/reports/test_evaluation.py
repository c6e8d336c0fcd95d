import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tuner.evaluation.metrics import evaluate
from tuner.evaluation.predictions import Scored
from tuner.reports.evaluation import log_evaluated_model, log_evaluation
from tuner.tracking.run_log import RunLog
from tuner.tracking.store import Tracking


@pytest.fixture
def run(store: Tracking) -> RunLog:
    client = store.client()
    return RunLog(client, client.create_run(store.experiment_id).info.run_id, store.experiment_id)


def scored(classes: int, images: int) -> tuple[Scored, list[str]]:
    """Answers of a model that is right three times of four, of classes with awkward names."""
    rng = np.random.default_rng(0)
    label = np.arange(images) % classes
    guess = np.where(rng.random(images) < 0.75, label, rng.integers(0, classes, images))
    probability = np.full((images, classes), 0.1 / classes)
    probability[np.arange(images), guess] += 0.9
    names = [f"ñ <{number}>" for number in range(classes)]
    return Scored([f"{number}.png" for number in range(images)], label, probability), names


def log(run: RunLog, classes: int, images: int, **written) -> np.ndarray:
    """Log an evaluation; gives its confusion matrix."""
    found, names = scored(classes, images)
    evaluation = evaluate(found.label_index, found.scores, names)
    log_evaluation(run, evaluation, found, plotly_run="the-search", **written)
    return evaluation.confusion


@pytest.fixture
def read(store: Tracking, run: RunLog, tmp_path: Path):
    def artifact(file: str) -> Path:
        uri = f"runs:/{run.run_id}/{file}"
        return Path(
            mlflow.artifacts.download_artifacts(uri, tracking_uri=store.uri, dst_path=tmp_path / "got")
        )

    return artifact


def files(store: Tracking, run: RunLog) -> set[str]:
    return {item.path for item in store.client().list_artifacts(run.run_id)}


def tags(store: Tracking, run: RunLog) -> dict[str, str]:
    return store.client().get_run(run.run_id).data.tags


SMALL = {
    "classification_report.json",
    "confusion_matrix.html",
    "confusion_matrix.json",
    "confusion_matrix.png",
    "images",
    "predictions.json",
}


def test_an_evaluation_shows_metrics_matrix_report_and_each_prediction(
    store: Tracking, run: RunLog, read
) -> None:
    matrix = log(
        run, 3, 60, metrics={"accuracy": 0.5}, params={"p": 1}, tags={"t": 2}, histories={"h": [2, 1]}
    )
    assert files(store, run) == SMALL
    assert json.loads(read("confusion_matrix.json").read_text()) == {
        "labels": ["ñ <0>", "ñ <1>", "ñ <2>"],
        "matrix": matrix.tolist(),
    }
    assert json.loads(read("classification_report.json").read_text())["ñ <1>"]["support"] == 20
    predictions = store.client().load_table(store.experiment_id, "predictions.json", [run.run_id])
    assert predictions["correct"].sum() == np.trace(matrix)
    data = store.client().get_run(run.run_id).data
    assert data.params == {"p": "1"}
    assert data.metrics == {"accuracy": 0.5, "h": 1}
    assert data.tags["t"] == "2"
    assert json.loads(data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "predictions.json", "type": "table"}
    ]


def test_a_page_names_the_picture_beside_it(store: Tracking, run: RunLog, read) -> None:
    """By its name where both were downloaded, by its address where MLflow's server shows the page."""
    log(run, 3, 60)
    page = read("confusion_matrix.html").read_text(encoding="utf-8")
    assert "data:image" not in page
    assert 'src="confusion_matrix.png"' in page
    with Image.open(read("confusion_matrix.png")) as picture:
        assert picture.width > 100
    asked = [parse_qs(urlsplit(address).query) for address in re.findall(r'new URL\("([^"]*)"', page)]
    assert asked == [
        {"path": ["confusion_matrix.png"], "run_uuid": [run.run_id]},
        {"path": ["charts/plotly.mjs"], "run_uuid": ["the-search"]},
    ]


@pytest.mark.parametrize(("classes", "many"), [(60, False), (61, True)])
def test_of_many_classes_there_is_no_page_and_a_table_of_the_cells_that_are_not_0(
    store: Tracking, run: RunLog, read, classes: int, many: bool
) -> None:
    matrix = log(run, classes, 400)
    assert files(store, run) == SMALL - ({"confusion_matrix.html"} if many else set())
    data = json.loads(read("confusion_matrix.json").read_text(encoding="utf-8"))
    if many:
        again = np.zeros_like(matrix)
        for row, column, count in data["cells"]:
            assert count > 0
            again[row, column] = count
        np.testing.assert_array_equal(again, matrix)
        assert "matrix" not in data
        assert len(data["cells"]) < classes**2 / 10
    else:
        assert data["matrix"] == matrix.tolist()
    assert len(data["labels"]) == classes


@pytest.mark.parametrize(("images", "many"), [(10_000, False), (10_001, True)])
def test_predictions_of_many_images_are_parquet(
    store: Tracking, run: RunLog, read, images: int, many: bool
) -> None:
    log(run, 3, images)
    written = {"predictions.parquet"} if many else {"predictions.json"}
    assert files(store, run) == SMALL - {"predictions.json"} | written
    assert ("mlflow.loggedArtifacts" in tags(store, run)) != many  # the UI shows only JSON as a table
    if many:
        table = pd.read_parquet(read("predictions.parquet"))
        assert list(table.columns) == ["path", "label", "prediction", "probability", "correct"]
        assert len(table) == images
        assert 0.7 < table["correct"].mean() < 0.9


def test_an_evaluated_model_s_run_says_on_what_and_what_was_left_out(
    store: Tracking, run: RunLog, read
) -> None:
    found, names = scored(3, 30)
    left_out = pd.DataFrame({"path": ["bad.png"], "label": ["ñ <0>"], "reason": ["truncated"]})
    evaluation = evaluate(found.label_index, found.scores, names)
    log_evaluated_model(run, evaluation, found, left_out, model_uri="models:/m/1", images="photos")
    assert files(store, run) == SMALL | {"quarantine.csv", "charts"}
    pd.testing.assert_frame_equal(pd.read_csv(read("quarantine.csv")), left_out)
    data = store.client().get_run(run.run_id).data
    assert data.params == {"model_uri": "models:/m/1", "evaluated_images": "photos"}
    assert data.metrics == evaluation.metrics | {"images": 30, "quarantined": 1}
    page = read("confusion_matrix.html").read_text(encoding="utf-8")
    assert f"path=charts%2Fplotly.mjs&run_uuid={run.run_id}" in page
