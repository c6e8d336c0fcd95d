"""MLflow's UI in a real browser, without a network, on what a search logged."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import pytest
from mlflow import MlflowClient

from tests.conftest import FinishedSearch
from tests.helpers.searches import free_port, kill_tree, wait_until

pytest.importorskip("playwright", reason="the tools of development are not installed")
from tests.helpers.browser import Watched, browsing

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Shown:
    """What `tuner ui` shows, and the link that it wrote."""

    search: FinishedSearch
    link: str

    @property
    def server(self) -> str:
        return f"http://{urlsplit(self.link).netloc}"


@pytest.fixture(scope="module")
def shown(finished_search: FinishedSearch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    written = tmp_path_factory.mktemp("ui") / "output.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with written.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tuner", "ui", "--port", str(free_port())],
            cwd=finished_search.folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_until(lambda: "startup complete" in written.read_text(), 500)
            (link,) = re.findall(r"^The runs, best first: (http\S+)$", written.read_text(), re.MULTILINE)
            yield Shown(finished_search, link)
        finally:
            kill_tree(process)


@pytest.fixture
def seen() -> Iterator[Watched]:
    with browsing(width=2200) as watched:
        yield watched
        assert watched.elsewhere == []
        assert watched.errors == []


def test_the_link_opens_trials_and_their_parameters_best_first(shown: Shown, seen: Watched) -> None:
    seen.page.goto(shown.link)
    seen.page.get_by_text("001-glyphnet").or_(seen.page.get_by_text("001-gabornet")).wait_for()
    heads = set(seen.page.get_by_role("columnheader").all_inner_texts())
    assert {"backbone", "regParam", "elasticNetParam", "maxIter", "accuracy", "f1", "Models"} <= heads
    scores = {run.info.run_name: run.data.metrics["accuracy"] for run in shown.search.trials()}
    search = shown.search.parent()
    assert re.fullmatch(r"letters · 5 trials · G\w+ \d\.\d{3}", search.info.run_name)
    scores[search.info.run_name] = search.data.metrics["accuracy"]
    listed = [name for name in seen.page.get_by_role("link").all_inner_texts() if name in scores]
    assert sorted(listed) == sorted(scores)
    assert [scores[name] for name in listed] == sorted(scores.values(), reverse=True)


def test_charts_draw_parameters_scores_and_confusion_matrices(shown: Shown, seen: Watched) -> None:
    seen.page.goto(f"{shown.link}&compareRunsMode=CHART")
    for title in ("Parallel Coordinates", "accuracy", "confusion_matrix"):
        seen.page.get_by_test_id("experiment-view-compare-runs-card").filter(
            has_text=title
        ).first.wait_for()
    pictures = seen.page.locator("img[src*=confusion_matrix]")
    pictures.first.wait_for()


def test_the_compare_page_draws(shown: Shown, seen: Watched) -> None:
    runs = quote(json.dumps([run.info.run_id for run in shown.search.trials()]))
    experiments = quote(json.dumps([shown.search.parent().info.experiment_id]))
    seen.page.goto(f"{shown.server}/#/compare-runs?runs={runs}&experiments={experiments}")
    seen.page.locator(".parcoords").first.wait_for()
    axes = seen.page.locator(".axis-title").all_text_contents()
    assert {"backbone", "accuracy"} <= {axis.strip() for axis in axes}
    seen.page.get_by_role("tab", name="Box Plot").click()
    for name in ("backbone", "accuracy"):
        seen.page.get_by_text("Select parameter or metric").first.click()
        seen.page.get_by_role("option", name=name, exact=True).click()
    seen.page.locator(".boxlayer .trace").first.wait_for()


def test_every_artifact_of_a_search_draws(shown: Shown, seen: Watched) -> None:
    run, page = shown.search.parent(), seen.page
    page.goto(
        f"{shown.server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts"
        "?workflowType=machine_learning"
    )
    looked_at = 0
    for path in _artifacts(shown.search.client(), run.info.run_id):
        *folders, name = path.split("/")
        for folder in folders:
            if not page.get_by_text(name, exact=True).count():
                page.get_by_text(folder, exact=True).first.click()
        page.get_by_text(name, exact=True).first.click()
        page.get_by_text(f"/{path}").first.wait_for()  # where it lies
        if name.endswith(".html"):
            page.frame_locator("iframe").locator(".js-plotly-plot .main-svg").first.wait_for()
        elif name.endswith(".png"):
            assert page.locator("img").last.evaluate(
                "image => image.decode().then(() => image.naturalWidth)"
            )
        looked_at += 1
    assert looked_at > 12


def _artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    for found in client.list_artifacts(run_id, folder):
        if found.is_dir:
            yield from _artifacts(client, run_id, found.path)
        else:
            yield found.path


def test_a_registered_model_says_who_is_champion_and_shows_its_card(shown: Shown, seen: Watched) -> None:
    seen.page.goto(f"{shown.server}/#/models/letters?workflowType=machine_learning")
    seen.page.get_by_text("champion").first.wait_for()
    seen.page.goto(f"{shown.server}/#/models/letters/versions/1?workflowType=machine_learning")
    seen.page.get_by_text("An image classifier of 3 classes").wait_for()
    assert seen.page.get_by_role("cell", name="accuracy", exact=True).count() == 1
    assert seen.page.get_by_text("champion").count()
