import base64
import importlib
import json
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel, scoring_server
from pyspark.ml.classification import LogisticRegression, LogisticRegressionModel
from pyspark.ml.linalg import DenseVector, Vectors
from pyspark.sql import SparkSession

from tests.helpers.models import NO_IMAGES, ODD_IMAGES, embedded, random_head, scorer_of
from tuner.base.choices import Decoding
from tuner.base.errors import ModelError, NetworkError
from tuner.base.machine import machine_cores
from tuner.classifiers.linear import LinearHead
from tuner.models.flavor import FittedModel, save_model, write_model_files
from tuner.models.scorer import Scorer, _hidden, image_bytes, write_scorer

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


def assert_same(one: dict, other: dict) -> None:
    """The same answer; the network's sums depend in their last digits on the place in a batch."""
    assert (one["prediction"], one["error"]) == (other["prediction"], other["error"])
    np.testing.assert_allclose(one["probability"], other["probability"], rtol=0, atol=1e-6)


def ask(scorer: Scorer, *contents: object, **params: object) -> list[dict]:
    return scorer.predict(pd.DataFrame({"content": list(contents)}), params).to_dict("records")


def test_bytes_and_their_base64_are_answered_alike(scorer: Scorer) -> None:
    for content in ODD_IMAGES.values():
        text = base64.b64encode(content)
        lines = base64.encodebytes(content).decode()
        raw, encoded, as_text, broken = ask(scorer, content, text, text.decode(), lines)
        assert raw["error"] is None
        for other in (encoded, as_text, broken):
            assert_same(raw, other)
        assert raw["prediction"] == LABELS[int(np.argmax(raw["probability"]))]


def test_what_is_no_image_has_its_reason_and_spoils_no_other(scorer: Scorer) -> None:
    good = ODD_IMAGES["PNG RGB"]
    answers = ask(scorer, good, *NO_IMAGES.values(), float("nan"), good)
    assert_same(answers[0], answers[-1])
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


@pytest.mark.parametrize(("stated", "threads"), [("3,2", 3), ("2", 2), ("many", None), ("", None)])
def test_the_number_of_threads_is_what_openmp_understands(
    scorer: Scorer, stated: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", stated)
    pool = Scorer(scorer.network, scorer.head, LABELS)._pool
    assert (pool._max_workers if pool else 1) == (threads or machine_cores())


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


# What clients send


@given(st.binary(max_size=200), st.sampled_from(["", "=", "=="]), st.booleans(), st.integers(1, 80))
def test_base64_is_read_however_it_is_written(
    content: bytes, padding: str, url_safe: bool, width: int
) -> None:
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    text = encode(content).decode().rstrip("=") + padding
    lines = "\r\n".join(text[place : place + width] for place in range(0, len(text), width))
    for sent in (text, f" {lines}\n", text.encode(), bytearray(text.encode()), memoryview(text.encode())):
        assert image_bytes(sent) == content
    for kind in ("data:image/png;base64,", "DATA:;base64,", "data:image/svg+xml;charset=x;BASE64,"):
        assert image_bytes(kind + text) == content
    percent = text.replace("+", "%2B").replace("/", "%2F").replace("=", "%3d")
    assert image_bytes(f"data:image/png;base64,{percent}") == content


@given(st.binary(max_size=200))
def test_an_image_file_is_never_taken_for_base64(end: bytes) -> None:
    heads = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF89a\x01\0", b"RIFF\0\0WEBP", b"II*\0", b"MM\0*")
    for head in heads:
        assert image_bytes(head + end) == head + end


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (None, None),
        (float("nan"), None),
        (pd.NA, None),
        (5, None),
        ([1, 2], None),
        ({"a": 1}, None),
        ("", b""),
        ("data:", b""),
        ("data:,a%20b", b"a b"),
        ("A", b"A"),  # no base64 has this length
        ("AA=A", b"AA=A"),
        ("ñ", "ñ".encode()),
        ("\ud83d", b"\xed\xa0\xbd"),
        ("AAAA!", b"AAAA!"),
    ],
)
def test_what_is_no_base64_is_taken_as_it_is(value: object, content: bytes | None) -> None:
    assert image_bytes(value) == content


@pytest.mark.parametrize("sign", [" ", "\n", "A", "=", "-", "A=", "\n!", "data:", "%"])
@pytest.mark.parametrize("end", ["", "!", "="])
def test_reading_takes_time_in_proportion_to_the_length(sign: str, end: str) -> None:
    """Doubled six times, 64 times as long; in quadratic time, 4,096: a request could block a server."""

    def seconds(length: int) -> float:
        text = sign * (length // len(sign)) + end
        taken = []
        for _ in range(5):
            started = time.process_time()
            image_bytes(text)
            taken.append(time.process_time() - started)
        return min(taken)

    assert seconds(2**23) < 640 * seconds(2**17)


@pytest.fixture(scope="module")
def served(scorer: Scorer, tmp_path_factory: pytest.TempPathFactory) -> PyFuncModel:
    """A model's folder, opened by MLflow."""
    folder = tmp_path_factory.mktemp("served")
    write_model_files(folder / "files", ODD_IMAGES["GIF"])
    params = {"regParam": 0.1, "elasticNetParam": 0.0, "maxIter": 1}
    fitted = FittedModel(scorer.network, scorer.head, params, LABELS)
    save_model(str(folder / "model"), Model(), model=fitted, files=folder / "files")
    return mlflow.pyfunc.load_model(str(folder / "model"))


def serve(model: PyFuncModel, body: object) -> list[dict]:
    """What MLflow's scoring server does with a request's body: text as CSV, else JSON."""
    text, kind = (body, "text/csv") if isinstance(body, str) else (json.dumps(body), "application/json")
    schema = model.metadata.get_input_schema()
    answer = scoring_server.invocations(text, kind, model, schema)
    assert answer.status == 200, answer.response
    return json.loads(answer.response)["predictions"]


def forms(*items: object) -> list[dict]:
    """A request in all of MLflow's forms but CSV, which has no nulls and no numbers."""
    rows = [{"content": item} for item in items]
    return [
        {"dataframe_split": {"columns": ["content"], "data": [[item] for item in items]}},
        {"dataframe_records": rows},
        {"inputs": {"content": list(items)}},
        {"inputs": list(items)},
        {"instances": rows},
        {"instances": list(items)},
    ]


def test_every_way_to_write_an_image_is_served_in_every_form(served: PyFuncModel) -> None:
    content = ODD_IMAGES["PNG RGB"]
    text, safe = base64.b64encode(content).decode(), base64.urlsafe_b64encode(content).decode()
    data_url, lines = f"data:image/png;base64,{text}", f"{text[:76]}\n{text[76:]}"
    ways = [text, safe, safe.rstrip("="), data_url, lines]
    csv = "content\n" + "\n".join(f'"{way}"' for way in ways)
    for body in [*forms(*ways), csv]:
        answers = serve(served, body)
        assert [answer["error"] for answer in answers] == [None] * len(ways), body
        for answer in answers[1:]:
            assert_same(answers[0], answer)


@pytest.mark.parametrize(
    "bad", [None, "", "*** no base64 ***", "%%%", "AAAA", "data:image/png;base64,!", 5, "\u2028"]
)
def test_one_bad_item_refuses_no_good_image(
    served: PyFuncModel, bad: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    good = base64.b64encode(ODD_IMAGES["PNG RGB"]).decode()
    for body in forms(good, bad, good):
        first, wrong, last = serve(served, body)
        assert_same(first, last)
        assert (first["error"], wrong["prediction"]) == (None, None)
        assert wrong["error"] in ("empty file", "truncated") or wrong["error"].startswith("not an image")


def test_a_null_is_an_empty_file_in_whatever_form_it_comes(served: PyFuncModel) -> None:
    """Of `inputs` and `instances`, MLflow makes an array, and text of its nulls."""
    good = base64.b64encode(ODD_IMAGES["PNG RGB"]).decode()
    for body in forms(good, None):
        assert serve(served, body)[1]["error"] == "empty file"


def test_a_null_for_top_k_is_none(served: PyFuncModel) -> None:
    good = base64.b64encode(ODD_IMAGES["PNG RGB"]).decode()
    body = {"dataframe_records": [{"content": good}], "params": {"top_k": None}}
    assert "top_k" not in serve(served, body)[0]


@pytest.mark.parametrize("sent", ["dataframe_split", "dataframe_records", "inputs", "instances"])
@pytest.mark.parametrize("column", ["content", "picture"])
def test_a_refusal_does_not_hold_what_was_sent(
    served: PyFuncModel, sent: str, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    secret = base64.b64encode(b"no image but a secret" * 20).decode()
    rows = [{column: secret}]
    body = {
        "dataframe_split": {"columns": [column], "data": [[secret]]},
        "dataframe_records": rows,
        "inputs": {column: [secret]},
        "instances": rows,
    }
    with pytest.raises(MlflowException) as caught:
        serve(served, {sent: body[sent]})
    assert caught.value.get_http_status_code() == 400
    expected = "has no image that can be read" if column == "content" else "has no column content"
    assert expected in caught.value.message
    assert secret[:8] not in caught.value.serialize_as_json()


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


def test_a_scorer_decodes_as_its_model_was_trained(scorer: Scorer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = replace(scorer.network, transparent="black", max_value=4095.0)
    write_scorer(tmp_path / "scorer", network, scorer.head, LABELS, None)
    carried = tmp_path / "sparkml" / "stages" / "0_x" / "network"
    carried.mkdir(parents=True)
    (carried / Path(network.file).name).write_bytes(Path(network.file).read_bytes())
    again = Scorer.load(tmp_path)
    assert again.network.decoding == Decoding("black", 4095.0)
    contents = [ODD_IMAGES["PNG RGBA"], ODD_IMAGES["PNG 16 bits"]]
    found, usual = again.score(contents)[0], scorer.score(contents)[0]
    assert (np.abs(found - usual).max(axis=1) > 1e-4).all()
    np.testing.assert_array_equal(found, Scorer(network, scorer.head, LABELS).score(contents)[0])


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
