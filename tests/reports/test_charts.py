import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import plotly.io
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.evaluation.metrics import Evaluation, evaluate
from tuner.reports import charts, pages

EVIL = "<script>alert(1)</script>"
URL = "get-artifact?path=charts/plotly.mjs&run_uuid=0123456789abcdef"
PICTURE = "get-artifact?path=matrix.png&run_uuid=0"


def evaluation_of(labels, rows=200, seed=0) -> Evaluation:
    generator = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(len(labels)), generator.integers(0, len(labels), rows)])
    raw = np.exp(generator.normal(size=(len(truth), len(labels))) + 2.5 * np.eye(len(labels))[truth])
    return evaluate(truth, raw / raw.sum(axis=1, keepdims=True), labels)


def some_trials(**columns) -> pd.DataFrame:
    """Six trials, of which the fourth failed."""
    table = {
        "trial": [1, 2, 3, 4, 5, 6],
        "run_id": list("abcdef"),
        "backbone": ["GlyphNet", "Gabor", "GlyphNet", "Gabor", "GlyphNet", EVIL],
        "regParam": [0.1, 0.0, 0.01, 0.001, 1.0, 0.1],
        "elasticNetParam": [0.0, 0.5, 1.0, 0.5, 0.2, 0.1],
        "maxIter": [10, 20, 30, 10, 20, 30],
        "status": ["FINISHED"] * 3 + ["FAILED"] + ["FINISHED"] * 2,
        "accuracy": [0.8, 0.7, 0.9, np.nan, 0.9, 0.6],
        "logLoss": [0.5, 0.6, 0.4, np.nan, 0.3, 0.9],
        "seconds": [1.0] * 6,
    }
    return pd.DataFrame(table | columns)


ALL_FAILED = some_trials(status="FAILED").drop(columns=["accuracy", "logLoss"])


class Scripts(HTMLParser):
    """The attributes of each script element of a page, and the names of its other elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.others: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "script":
            self.scripts.append(dict(attrs))
        else:
            self.others.add(tag)


def trace_named(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def test_the_confusion_figure_shows_counts_coloured_by_the_shares_of_rows():
    truth, predicted = [0, 0, 0, 0, 1], [0, 0, 0, 1, 1]
    figure = charts.confusion_figure(evaluate(np.array(truth), np.eye(2)[predicted], ("cat", "dog")))
    heatmap = figure.data[0]
    assert np.array(heatmap.z).tolist() == [[0.75, 0.25], [0, 1]]
    assert np.array(heatmap.text).tolist() == [[3, 1], [0, 1]]
    assert list(heatmap.y) == ["cat", "dog"]
    assert "0.8000 on 5 images" in figure.layout.title.text
    assert figure.layout.xaxis.type == "category"  # classes named 0 to 9 are names, not numbers


def test_a_class_without_images_has_a_row_of_zeros():
    evaluation = evaluate(np.array([0, 0]), np.array([[0.9, 0.1], [0.1, 0.9]]), ("cat", "dog"))
    assert np.array(charts.confusion_figure(evaluation).data[0].z).tolist() == [[0.5, 0.5], [0, 0]]


@pytest.mark.parametrize("classes", [2, 10, 17, 60])
def test_a_trial_page_is_small_whole_and_holds_the_plotly_figure(classes):
    evaluation = evaluation_of([f"class {index}" for index in range(classes)])
    figure = charts.confusion_figure(evaluation)
    page = pages.light_figure_html(figure, "matrix.png", library=URL, picture=PICTURE)
    assert len(page.encode()) < 60_000
    assert 'src="matrix.png"' in page
    shown = re.search(r"^const figure = (.*);$", page, re.MULTILINE)[1]
    assert plotly.io.from_json(shown) == figure


@pytest.mark.parametrize("name", [EVIL, "</script><img src=x onerror=alert(1)>", '"><b>', "$title"])
def test_class_names_cannot_add_elements_to_a_page(name):
    evaluation = evaluation_of([name, "plain"])
    figure = charts.confusion_figure(evaluation)
    figure.update_layout(title_text=name)
    light = Scripts(pages.light_figure_html(figure, "matrix.png", library=URL, picture=PICTURE))
    assert light.scripts == [{}]
    assert light.others == {"html", "head", "meta", "title", "body", "div", "img"}
    roc = charts.roc_figure(np.array([0, 1]), np.eye(2), ("plain", name))
    assert not {"b", "img"} & Scripts(pages.figure_html(figure, roc)).others


def test_plotly_is_told_that_names_are_text_and_not_markup():
    figure = charts.confusion_figure(evaluation_of([EVIL, "plain"]))
    assert figure.data[0].x[0] == "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert charts.score_by_backbone(some_trials(), "accuracy").data[-1].name == figure.data[0].x[0]


def test_a_search_page_carries_plotly_once_and_loads_nothing():
    trials = some_trials()
    figures = charts.optimisation_history(trials, "accuracy"), charts.score_by_backbone(trials, "accuracy")
    page = pages.figure_html(*figures)
    assert all("src" not in script for script in Scripts(page).scripts)
    assert page.count(pages.plotly_js()) == 1
    assert page.count("Plotly.newPlot(") >= 2


@pytest.mark.parametrize("classes", [2, 10, 17, 60, 200])
def test_the_confusion_image_has_a_cell_for_each_pair_with_room_for_its_text(classes):
    evaluation = evaluation_of([f"class {index}" for index in range(classes)], rows=20 * classes)
    image = charts.confusion_image(evaluation)
    assert max(image.size) < 1000
    pixels = np.asarray(image.convert("L")).astype(int)
    cell = max(4, min(64, 560 // classes))
    start = image.width - 14 - cell * classes
    shares = evaluation.confusion / evaluation.confusion.sum(axis=1, keepdims=True)
    corners = [start + cell * index + 1 for index in range(classes)]  # beside the counts
    shade = pixels[np.ix_(corners, corners)]
    assert np.corrcoef(shade.ravel(), shares.ravel())[0, 1] < -0.95
    assert pixels[start : start + cell * classes, :start].min() < 100  # the names are there
    assert pixels[:start, start:].min() < 100


def test_names_in_the_image_are_told_apart_whatever_their_script():
    counts = [0, 1], np.eye(2)

    def image(*names):
        return np.asarray(
            charts.confusion_image(evaluate(np.array(counts[0]), counts[1], names)).convert("L")
        )

    assert not np.array_equal(image("Löwe", "cat"), image("Lowe", "cat"))
    assert not np.array_equal(image("Лев", "cat"), image("Кот", "cat"))
    assert np.array_equal(image("日本", "cat"), image("#0", "cat"))
    assert max(image("x" * 200, "y").shape) < 700


def test_roc_curves_bear_their_areas():
    truth, probability = (
        np.array([0, 0, 1, 1]),
        np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]]),
    )
    figure = charts.roc_figure(truth, probability, ("cat", "dog"))
    expected = evaluate(truth, probability, ("cat", "dog")).metrics["roc_auc"]
    assert [trace.name for trace in figure.data] == [f"dog ({expected:.3f})", "chance (0.500)"]
    three = charts.roc_figure(np.array([0, 2]), np.eye(3)[[0, 2]], ("cat", "dog", "<i>"))
    assert [trace.name for trace in three.data[:-1]] == ["cat (1.000)", "&lt;i&gt; (1.000)"]
    assert len(charts.roc_figure(np.array([1, 1]), np.eye(2), ("cat", "dog")).data) == 1


@pytest.mark.parametrize(
    ("metric", "best"),
    [("accuracy", [0.8, 0.8, 0.9, 0.9, 0.9]), ("logLoss", [0.5, 0.5, 0.4, 0.3, 0.3])],
)
def test_the_history_follows_the_best_score_in_the_order_of_trials(metric, best):
    shuffled = some_trials().sample(frac=1, random_state=3)
    figure = charts.optimisation_history(shuffled, metric)
    line = trace_named(figure, "best so far")
    assert list(line.x) == [1, 2, 3, 5, 6]
    assert list(line.y) == best
    assert list(trace_named(figure, "failed").x) == [4]


def test_parallel_coordinates_put_zero_below_the_smallest_regparam():
    axes = {
        axis.label: axis
        for axis in charts.parallel_coordinates(some_trials(), "accuracy").data[0].dimensions
    }
    assert list(axes) == ["backbone", "regParam", "elasticNetParam", "maxIter", "accuracy"]
    assert axes["regParam"]["values"] == pytest.approx((-1, -3, -2, 0, -1))
    ticks = dict(zip(axes["regParam"].ticktext, axes["regParam"].tickvals, strict=True))
    assert ticks == pytest.approx({"0": -3, "0.01": -2, "0.1": -1, "1": 0})
    assert EVIL in axes["backbone"].ticktext  # plotly writes these as text, not as markup


@settings(deadline=None, max_examples=40)
@given(
    values=st.lists(
        st.tuples(
            st.sampled_from([0.0, 1e-8, 1e-4, 0.02, 1.0, 300.0]),
            st.sampled_from([0.0, 0.3, 1.0]),
            st.integers(0, 30),
            st.floats(0, 1),
            st.sampled_from(["FINISHED", "FAILED"]),
        ),
        min_size=1,
        max_size=8,
    ),
    metric=st.sampled_from(["accuracy", "logLoss"]),
)
def test_any_trials_can_be_drawn(values, metric):
    columns = ("regParam", "elasticNetParam", "maxIter", metric, "status")
    trials = pd.DataFrame(values, columns=columns).assign(
        backbone="GlyphNet", trial=range(1, len(values) + 1)
    )
    trials.loc[trials["status"] == "FAILED", metric] = np.nan
    for draw in (charts.optimisation_history, charts.parallel_coordinates, charts.score_by_backbone):
        json.loads(draw(trials, metric).to_json())
    finished = (trials["status"] == "FINISHED").sum()
    for parcoords in charts.parallel_coordinates(trials, metric).data:
        for axis in parcoords.dimensions:
            low, high = axis.range
            assert low < high
            assert all(low <= value <= high for value in (*axis["values"], *(axis.tickvals or ())))
            assert len(axis["values"]) == finished


@pytest.mark.parametrize(
    "draw", [charts.optimisation_history, charts.parallel_coordinates, charts.score_by_backbone]
)
def test_a_search_in_which_all_trials_failed_can_be_drawn(draw):
    assert draw(ALL_FAILED, "accuracy").layout.title.text


def test_backbones_stand_in_the_order_of_their_best_scores():
    names = [
        box.name for box in charts.score_by_backbone(some_trials(backbone=list("abcabc")), "accuracy").data
    ]
    assert names == ["c", "b", "a"]
    names = [
        box.name for box in charts.score_by_backbone(some_trials(backbone=list("abcabc")), "logLoss").data
    ]
    assert names == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("metric", "order"), [("accuracy", [3, 5, 1, 2, 6, 4]), ("logLoss", [5, 3, 1, 2, 6, 4])]
)
def test_the_leaderboard_lists_best_first_equals_by_number_failed_last(metric, order):
    table = charts.leaderboard(some_trials(), metric)
    assert table["trial"].tolist() == order
    assert table["rank"].tolist()[:5] == [1, 2, 3, 4, 5]
    assert table["rank"].isna().tolist() == [False] * 5 + [True]
    assert list(table.columns[:4]) == ["rank", "trial", metric, "backbone"]
    assert set(table.columns) == {"rank", *some_trials().columns}


def test_the_leaderboard_of_failures_has_no_ranks():
    table = charts.leaderboard(ALL_FAILED, "accuracy")
    assert table["trial"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["rank"].isna().all()


@pytest.fixture
def server(tmp_path, unused_port):
    """A real MLflow server with nothing in it."""
    address = f"http://127.0.0.1:{unused_port}"
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts"), "--port", str(unused_port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2)
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, "the MLflow server ended"
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.long
def test_the_mlflow_server_sends_plotly_as_javascript_and_shows_the_leaderboard(server):
    client = mlflow.MlflowClient(server)
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, pages.plotly_js(), "charts/plotly.mjs")
    client.log_table(run_id, charts.leaderboard(some_trials(), "accuracy"), "leaderboard.json")
    query = urllib.parse.urlencode({"path": "charts/plotly.mjs", "run_uuid": run_id})
    with urllib.request.urlopen(f"{server}/get-artifact?{query}") as answer:
        assert answer.headers.get_content_type() in ("text/javascript", "application/javascript")
        assert answer.read().decode() == pages.plotly_js()
    query = urllib.parse.urlencode({"path": "leaderboard.json", "run_uuid": run_id})
    with urllib.request.urlopen(f"{server}/get-artifact?{query}") as answer:
        assert [row[0] for row in json.load(answer)["data"]] == [1, 2, 3, 4, 5, None]


@pytest.mark.long
def test_pages_draw_in_a_browser_without_a_network(tmp_path: Path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    evaluation = evaluation_of([EVIL, "plain"])
    figure = charts.confusion_figure(evaluation)
    charts.confusion_image(evaluation).save(tmp_path / "m.png")
    (tmp_path / "plotly.mjs").write_text(pages.plotly_js(), encoding="utf-8")
    documents = {
        "light": pages.light_figure_html(figure, "m.png", library="plotly.mjs", picture="m.png"),
        "without": pages.light_figure_html(figure, "m.png", library="missing.mjs", picture="m.png"),
        "whole": pages.figure_html(figure, charts.parallel_coordinates(some_trials(), "accuracy")),
    }
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-sync --dump-dom"
    )
    shown = {}
    for number, (name, page) in enumerate(documents.items()):
        (tmp_path / f"{name}.html").write_text(page, encoding="utf-8")
        command = [
            browser,
            *flags.split(),
            "--virtual-time-budget=10000",
            f"--user-data-dir={tmp_path / str(number)}",
        ]
        done = subprocess.run(
            [*command, (tmp_path / f"{name}.html").as_uri()],
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
        shown[name] = done.stdout
    assert 'class="main-svg"' in shown["light"]
    assert "<img" not in shown["light"]  # plotly took the place of the image
    assert "<img" in shown["without"]
    assert 'class="main-svg"' not in shown["without"]
    assert shown["whole"].count('class="main-svg"') >= 2
    assert "parcoords" in shown["whole"]
