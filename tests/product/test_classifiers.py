"""A search over several classifiers as its user runs it, and what becomes of its winner."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from tests.conftest import FinishedSearch, tuner
from tests.helpers.models import contents_frame
from tests.serving.test_export import keras_user
from tuner.classifiers.table import CLASSIFIERS
from tuner.images.decoding import decode_image
from tuner.models.scorer import Scorer

FOUR = """
  classifier:
    - {name: LogisticRegression, prestep: Normalizer}
    - {name: RandomForest, numTrees: 3:9, maxDepth: 2:4, prestep: [none, StandardScaler, PCA], k: 4:8}
    - {name: sklearn.Ridge, prestep: "none,PCA", k: 4:8}
    - {name: sklearn.KNeighbors, n_neighbors: 1:5}
  points:
    - {backbone: GlyphNet, classifier: RandomForest, numTrees: 5, maxDepth: 3, prestep: PCA, k: 5}
    - {backbone: GlyphNet, classifier: sklearn.Ridge, alpha: 1, prestep: PCA, k: 5}
    - {backbone: GlyphNet, classifier: sklearn.KNeighbors, n_neighbors: 3}
    - {backbone: GlyphNet, classifier: LogisticRegression, regParam: 0.01, elasticNetParam: 0, maxIter: 9}
"""
DECIDED = {
    "stepped": "{name: LinearSVC, prestep: PCA, k: 6:16}",
    "sklearn": "{name: sklearn.Ridge, prestep: StandardScaler}",
}


def experiment(search: FinishedSearch, folder: Path, classifiers: str, max_evals: int) -> None:
    (folder / "letters.yaml").write_text(
        f"name: letters\nimages: {search.images}\ncache: {search.folder / '.tuner'}\n"
        "split: {test: 1/4, validation: holdout, validation_ratio: 1/3}\n"
        f"search:\n  backbone: [GlyphNet]\n  max_evals: {max_evals}\n  parallelism: 2{classifiers}",
        encoding="utf-8",
    )


def runs_of(folder: Path, kind: str) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    ids = [found.experiment_id for found in client.search_experiments()]
    return client.search_runs(ids, f"tags.`tuner.kind` = '{kind}'", order_by=["start_time ASC"])


def succeeds(folder: Path, *arguments: object) -> str:
    done = tuner(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_trials_have_their_classifier_s_parameters_and_a_resumed_search_counts_them(
    finished_search: FinishedSearch, tmp_path: Path
) -> None:
    experiment(finished_search, tmp_path, FOUR, 4)
    succeeds(tmp_path, "search", "--experiment", "letters.yaml")
    told = succeeds(
        tmp_path, "search", "--resume", "last", "--experiment", "letters.yaml", "--max_evals", 6
    )
    assert "4 trials ended before and count" in told
    trials = runs_of(tmp_path, "trial")
    assert len(trials) == 6
    assert {run.data.params["classifier"] for run in trials[:4]} == {
        "LogisticRegression",
        "RandomForest",
        "sklearn.Ridge",
        "sklearn.KNeighbors",
    }
    for run in trials:
        assert run.info.status == "FINISHED"
        own = {"backbone", "classifier", *CLASSIFIERS[run.data.params["classifier"]].by_name}
        assert set(run.data.params) <= own
        assert "None" not in run.data.params.values()
    (parent,) = runs_of(tmp_path, "search")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    version = client.get_model_version_by_alias("letters", "champion")
    assert version.tags["classifier"] in CLASSIFIERS
    card = Path(client.download_artifacts(parent.info.run_id, "model_card.md", str(tmp_path)))
    assert CLASSIFIERS[version.tags["classifier"]].title in card.read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("kind", DECIDED)
def test_a_winner_without_probabilities_answers_with_decision_values_everywhere(
    kind: str, finished_search: FinishedSearch, tmp_path: Path, spark: SparkSession
) -> None:
    experiment(finished_search, tmp_path, f"\n  classifier: {DECIDED[kind]}\n", 2)
    succeeds(tmp_path, "search", "--experiment", "letters.yaml")
    images = sorted((finished_search.images / "A").glob("*.png"))[:3]
    told = succeeds(tmp_path, "predict", "models:/letters@champion", *images, "--output", "json")
    table = pd.DataFrame(json.loads(told))
    assert list(table.columns) == ["path", "prediction", "decision", "error"]
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    folder = Path(mlflow.artifacts.download_artifacts("models:/letters@champion", dst_path=str(tmp_path)))
    assert json.loads((folder / "scorer/scorer.json").read_text())["head"] == kind
    contents = [image.read_bytes() for image in images]
    answers = Scorer.load(folder).answer(contents)
    np.testing.assert_allclose(list(answers["decision"]), list(table["decision"]), atol=1e-6)
    rows = mlflow.spark.load_model(str(folder)).transform(contents_frame(spark, contents)).collect()
    found = [row.decision.toArray() for row in sorted(rows, key=lambda row: row.number)]
    np.testing.assert_allclose(found, list(answers["decision"]), atol=1e-5)
    options = ("--to", "letters.keras", "--format", "keras", "--images", finished_search.images / "A")
    told = succeeds(tmp_path, "export", "models:/letters@champion", *options)
    assert told.startswith("letters.keras: ")
    assert "compared with the model, 0 of another class" in told
    answer = keras_user(tmp_path / "letters.keras")(
        np.stack([decode_image(content) for content in contents])
    )
    assert [name.decode() for name in answer["prediction"].tolist()] == list(answers["prediction"])
    size = np.abs(np.stack(list(answers["decision"]))).max()
    np.testing.assert_allclose(answer["decision"], list(answers["decision"]), atol=1e-5 * size)
