import base64
import importlib
import json
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mlflow.exceptions import MlflowException
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.linalg import DenseVector, Vectors
from pyspark.sql import SparkSession

from tests.helpers.models import NO_IMAGES, ODD_IMAGES, embedded, random_head, scorer_of
from tuner.base.errors import ModelError, NetworkError
from tuner.classifiers.linear import LinearHead
from tuner.models.scorer import Scorer, _hidden, write_scorer

LABELS = ("A", "ñandú <b>", "")
WIDTH = 3
FEATURES = arrays(np.float32, (4, WIDTH), elements=st.floats(-1e6, 1e6, width=32))


# The head


@pytest.fixture(scope="module")
def fitted(spark: SparkSession) -> list[LogisticRegressionModel]:
    """MLlib's models of two classes in both families, and of four classes."""
    models = []
    for classes, family in ((2, "binomial"), (2, "multinomial"), (4, "multinomial")):
        rng = np.random.default_rng(classes)
        rows = [
            (Vectors.dense(rng.normal(label, 1, WIDTH).tolist()), float(label))
            for label in range(classes)
            for _ in range(15)
        ]
        table = spark.createDataFrame(rows, ["features", "label"]).coalesce(1)
        models.append(LogisticRegression(family=family, maxIter=5).fit(table))
    return models


@given(features=FEATURES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_head_computes_what_mllib_computes(
    fitted: list[LogisticRegressionModel], features: np.ndarray
) -> None:
    for model in fitted:
        head = LinearHead(model.coefficientMatrix.toArray(), model.interceptVector.toArray())
        expected = [model.predictProbability(DenseVector(row)).toArray() for row in features.tolist()]
        np.testing.assert_allclose(head.probability(features), expected, rtol=1e-9, atol=1e-12)


@given(
    st.sampled_from([1, 3, 5]).flatmap(
        lambda rows: st.tuples(
            arrays(np.float64, (rows, WIDTH), elements=st.floats(-1e150, 1e150)),
            arrays(np.float64, rows, elements=st.floats(-1e150, 1e150)),
        )
    ),
    arrays(np.float32, (2, WIDTH), elements=st.floats(-(2.0**90), 2.0**90, width=32)),
)
def test_probabilities_sum_to_one_whatever_the_margins(given_head, features: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = LinearHead(*given_head).probability(features)
    assert found.shape == (2, max(2, len(given_head[1])))
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)


# Images


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return scorer_of(embedded(tmp_path_factory.mktemp("store")), LABELS)


def ask(scorer: Scorer, *contents: object, **params: object) -> list[dict]:
    return scorer.predict(pd.DataFrame({"content": list(contents)}), params).to_dict("records")


def test_bytes_and_their_base64_are_answered_alike(scorer: Scorer) -> None:
    for content in ODD_IMAGES.values():
        text = base64.b64encode(content)
        lines = base64.encodebytes(content).decode()
        raw, encoded, as_text, broken = ask(scorer, content, text, text.decode(), lines)
        assert raw["error"] is None
        assert raw == encoded == as_text == broken
        assert raw["prediction"] == LABELS[int(np.argmax(raw["probability"]))]


def test_what_is_no_image_has_its_reason_and_spoils_no_other(scorer: Scorer) -> None:
    good = ODD_IMAGES["PNG RGB"]
    answers = ask(scorer, good, *NO_IMAGES.values(), float("nan"), good)
    assert answers[0] == answers[-1]
    assert answers[0]["error"] is None
    for answer in answers[1:-1]:
        assert answer["prediction"] is answer["probability"] is None
    assert [answer["error"] for answer in answers[1:-1]] == [
        "not an image of a known format",
        "empty file",
        "truncated",
        "empty file",
        "empty file",
    ]


def test_the_answer_keeps_the_index_and_an_empty_table_is_answered(scorer: Scorer) -> None:
    table = pd.DataFrame({"content": [b"", ODD_IMAGES["GIF"]]}, index=[7, 3])
    assert scorer.predict(table).index.tolist() == [7, 3]
    empty = scorer.predict(pd.DataFrame({"content": []}))
    assert empty.columns.tolist() == ["prediction", "probability", "error"]
    assert len(empty) == 0


@pytest.mark.parametrize("top_k", [1, 2, 3, 50])
def test_top_k_lists_the_likeliest_first(scorer: Scorer, top_k: int) -> None:
    answer, bad = ask(scorer, ODD_IMAGES["BMP"], b"", top_k=top_k)
    expected = sorted(zip(answer["probability"], LABELS, strict=True), reverse=True)[:top_k]
    assert [(one["probability"], one["label"]) for one in answer["top_k"]] == expected
    assert answer["top_k"][0]["label"] == answer["prediction"]
    assert bad["top_k"] is None


def test_a_negative_top_k_is_the_client_s_mistake(scorer: Scorer) -> None:
    with pytest.raises(MlflowException, match=r"top_k is -1: it must be 0 or more\.") as caught:
        ask(scorer, b"", top_k=-1)
    assert caught.value.get_http_status_code() == 400


def test_threads_get_their_own_answers(scorer: Scorer) -> None:
    contents = list(ODD_IMAGES.values())
    expected = [scorer.score([content])[0] for content in contents]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda content: scorer.score([content])[0], contents * 4))
    for one, other in zip(found, expected * 4, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_values_that_are_not_numbers_are_an_error_and_no_class(scorer: Scorer) -> None:
    head = LinearHead(np.full((3, scorer.network.width), np.nan), np.zeros(3))
    (answer,) = ask(Scorer(scorer.network, head, LABELS), ODD_IMAGES["GIF"])
    assert answer["prediction"] is None
    assert answer["error"] == "the network gives values that are not numbers"


# Folders


def test_a_written_scorer_is_read_again(scorer: Scorer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_scorer(tmp_path / "scorer", scorer.network, scorer.head, LABELS, None)
    with pytest.raises(NetworkError, match="The network GlyphNet"):
        Scorer.load(tmp_path)
    carried = tmp_path / "sparkml" / "stages" / "0_x" / "network"
    carried.mkdir(parents=True)
    file = Path(scorer.network.file)
    (carried / file.name).write_bytes(file.read_bytes())
    again = Scorer.load(tmp_path)
    assert again.labels == LABELS
    content = [ODD_IMAGES["TIFF CMYK"]]
    np.testing.assert_array_equal(again.score(content)[0], scorer.score(content)[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "scorer.json").unlink(),
        lambda folder: (folder / "head.npz").write_bytes(b"cut"),
        lambda folder: (folder / "scorer.json").write_text("{"),
        lambda folder: (folder / "scorer.json").write_text(
            json.dumps(json.loads((folder / "scorer.json").read_text()) | {"format": 1})
        ),
        lambda folder: np.savez(folder / "head.npz", coefficients=np.zeros(1)),
    ],
    ids=["no description", "no arrays", "no JSON", "another format", "no intercepts"],
)
def test_a_folder_that_is_none_is_a_sentence(scorer: Scorer, tmp_path: Path, change) -> None:
    write_scorer(tmp_path / "scorer", scorer.network, random_head(3, 4), LABELS, None)
    change(tmp_path / "scorer")
    with pytest.raises(
        ModelError,
        match=r"^The model .* (cannot be read by this version of tuner: .*\.|is of format 1, and .*)$",
    ) as it:
        Scorer.load(tmp_path)
    assert "\n" not in str(it.value)


def test_hidden_modules_cannot_be_imported_until_they_are_shown_again() -> None:
    sys.modules.pop("wave", None)
    with _hidden(["wave", "json"]):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("wave")
        assert importlib.import_module("json") is json
    assert importlib.import_module("wave").open
