"""Steps as MLlib fits and applies them, and as their files are written without it."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame

from tests.models.fitted.test_saved import CLASSES, FEATURES, LABEL, SMALL, WIDTH, same_answers
from tests.models.fitted.test_saved import table as table  # a fixture
from tuner.base.columns import STEPPED
from tuner.classifiers.heads.steps import fit_step
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.rows.row import NONE, PRESTEPS
from tuner.classifiers.table import DEFAULT
from tuner.models.fitted.estimators import fit_estimator, step_and_model
from tuner.models.fitted.steps import StepStage, step_of
from tuner.models.mllib.files import write_pipeline
from tuner.models.pipeline import head_of
from tuner.trials.fits import class_weights

STEPS = [name for name in PRESTEPS if name != NONE]
LOGISTIC = {"regParam": 0.01, "elasticNetParam": 0.5, "maxIter": 10}


def params_of(name: str, prestep: str, **values: object) -> TrialParams:
    return TrialParams.of("any", name, prestep=prestep, **({"k": 2} if prestep == "PCA" else {}), **values)


def stepped(frame: DataFrame) -> np.ndarray:
    return np.stack([row[STEPPED].toArray() for row in frame.select(STEPPED).collect()])


@pytest.mark.parametrize("prestep", STEPS)
def test_a_step_is_mllib_s_wherever_it_is_fitted_and_however_it_is_saved(
    prestep: str, table: DataFrame, tmp_path: Path
) -> None:
    fitted = fit_estimator(table, params_of(DEFAULT, prestep, **LOGISTIC), classes=CLASSES)
    step, model = step_and_model(fitted)
    assert step is not None
    expected = stepped(fitted.transform(table))
    np.testing.assert_allclose(step.apply(FEATURES), expected, rtol=1e-9, atol=1e-9)
    assert model.getFeaturesCol() == STEPPED

    ours = fit_step(prestep, FEATURES, 2)
    signs = np.sign((ours.apply(FEATURES) * expected).sum(axis=0)) if prestep == "PCA" else 1
    np.testing.assert_allclose(ours.apply(FEATURES) * signs, expected, rtol=1e-9, atol=1e-9)
    assert ours.numbers.keys() == step.numbers.keys()

    write_pipeline(tmp_path / "ours", [StepStage(step)])
    loaded = PipelineModel.load(str(tmp_path / "ours"))
    np.testing.assert_array_equal(stepped(loaded.transform(table)), expected)
    again = step_of(loaded.stages[0])
    assert again.name == prestep
    for name, values in step.numbers.items():
        np.testing.assert_array_equal(again.numbers[name], values)
    fitted.stages[0].write().save(str(tmp_path / "theirs"))
    (mine,) = (tmp_path / "ours" / "stages").iterdir()
    assert described(mine) == described(tmp_path / "theirs")


def described(folder: Path) -> dict:
    """What is saved of a stage, but for ids, times and numbers: parameters, and the schema of the file."""
    (part,) = (folder / "metadata").glob("part-*")
    metadata = json.loads(part.read_text(encoding="utf-8"))
    kept = {name: metadata[name] for name in ("class", "sparkVersion", "paramMap", "defaultParamMap")}
    assert kept["defaultParamMap"].pop("outputCol") == f"{metadata['uid']}__output"
    for file in (folder / "data").glob("*.parquet"):
        notes = pq.read_schema(file).metadata
        schema = json.loads(notes[b"org.apache.spark.sql.parquet.row.metadata"])
        kept["schema"] = sorted(json.dumps(field, sort_keys=True) for field in schema["fields"])
    return kept


@pytest.mark.parametrize("prestep", STEPS)
def test_logistic_regression_after_a_step_is_the_same_in_both_ways_to_fit(
    prestep: str, table: DataFrame
) -> None:
    from tuner.classifiers.logistic_regression import fit
    from tuner.classifiers.standardized import Standardized

    params = params_of(DEFAULT, prestep, **LOGISTIC)
    step, model = step_and_model(fit_estimator(table, params, classes=CLASSES))
    theirs = head_of(model)
    ours = fit_step(prestep, FEATURES, 2)
    values = Standardized(ours.apply(FEATURES), class_weights(LABEL, "none"))
    found = fit(values, LABEL, classes=CLASSES, **params.own)
    assert step is not None
    np.testing.assert_allclose(
        found.score(ours.apply(FEATURES)), theirs.score(step.apply(FEATURES)), atol=1e-9
    )


def test_a_classifier_after_a_step_computes_what_mllib_does(table: DataFrame, tmp_path: Path) -> None:
    same_answers("DecisionTree", SMALL["DecisionTree"], table, tmp_path, step=("PCA", 2))


@pytest.mark.long
@pytest.mark.parametrize("prestep", STEPS)
@pytest.mark.parametrize("name", list(SMALL))
def test_every_classifier_after_every_step_computes_what_mllib_does(
    name: str, prestep: str, table: DataFrame, tmp_path: Path
) -> None:
    same_answers(name, SMALL[name], table, tmp_path, step=(prestep, WIDTH - 2))
