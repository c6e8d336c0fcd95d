import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import mlflow
import numpy as np
import plotly.io
import pytest

from tests.helpers.searches import TrackingServer
from tests.reports.test_charts import EVIL, evaluation_of, some_trials
from tuner.reports import charts, pages
from tuner.reports.confusion_image import confusion_image

URL = "get-artifact?path=charts/plotly.mjs&run_uuid=0123456789abcdef"
PICTURE = "get-artifact?path=matrix.png&run_uuid=0"


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


def test_a_search_page_carries_plotly_once_and_loads_nothing():
    trials = some_trials()
    figures = charts.optimisation_history(trials, "accuracy"), charts.score_by_backbone(trials, "accuracy")
    page = pages.figure_html(*figures)
    assert all("src" not in script for script in Scripts(page).scripts)
    assert page.count(pages.plotly_js()) == 1
    assert page.count("Plotly.newPlot(") >= 2


@pytest.mark.long
def test_the_mlflow_server_sends_plotly_as_javascript_and_shows_the_leaderboard(server: TrackingServer):
    client = mlflow.MlflowClient(server.uri)
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, pages.plotly_js(), "charts/plotly.mjs")
    client.log_table(run_id, charts.leaderboard(some_trials(), "accuracy"), "leaderboard.json")
    query = urllib.parse.urlencode({"path": "charts/plotly.mjs", "run_uuid": run_id})
    with urllib.request.urlopen(f"{server.uri}/get-artifact?{query}") as answer:
        assert answer.headers.get_content_type() in ("text/javascript", "application/javascript")
        assert answer.read().decode() == pages.plotly_js()
    query = urllib.parse.urlencode({"path": "leaderboard.json", "run_uuid": run_id})
    with urllib.request.urlopen(f"{server.uri}/get-artifact?{query}") as answer:
        assert [row[0] for row in json.load(answer)["data"]] == [1, 2, 3, 4, 5, None]


@pytest.mark.long
def test_pages_draw_in_a_browser_without_a_network(tmp_path: Path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    evaluation = evaluation_of([EVIL, "plain"])
    figure = charts.confusion_figure(evaluation)
    confusion_image(evaluation).save(tmp_path / "m.png")
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
