"""Make the pictures of the documentation, docs/img/*.png: a search in a terminal, a notebook, MLflow's UI.

usage: make screenshots      It needs Chromium (Debian: apt-get install chromium), and takes some minutes.
"""

from __future__ import annotations

import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import nbformat
from mlflow import MlflowClient
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from PIL import Image
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.helpers.browser import browsing  # noqa: E402
from tests.helpers.searches import free_port, kill_tree, wait_until  # noqa: E402
from tests.helpers.terminal import Terminal  # noqa: E402

PICTURES = ROOT / "docs" / "img"
_COLOURS = 96  # of a picture: it is of text and lines
_TUNER = (sys.executable, "-m", "tuner")
_NAMED = {"brown": "#e0af68", "green": "#9ece6a", "magenta": "#bb9af7", "cyan": "#7dcfff", "red": "#f7768e"}
_TRAINING = "workflowType=machine_learning"
_DRAWN_MS = 2500  # until a page that is there has drawn itself


def keep(name: str, picture: bytes) -> None:
    """Write a picture with few colours, which makes it small."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(_COLOURS, dither=Image.Dither.NONE).save(PICTURES / f"{name}.png", optimize=True)
    print(f"docs/img/{name}.png: {(PICTURES / f'{name}.png').stat().st_size // 1024} KiB")


def terminal_page(terminal: Terminal) -> str:
    """The screen of a terminal, as a page; empty lines at its end are left out."""
    lines = []
    for row in range(terminal.screen.lines):
        cells = [terminal.screen.buffer[row][column] for column in range(terminal.screen.columns)]
        lines.append("".join(_cell(cell.data, cell.fg, bold=cell.bold) for cell in cells).rstrip())
    text = "\n".join(lines).rstrip()
    return (
        "<body style='margin:0'><pre style='display:inline-block;margin:0;padding:14px 18px;"
        "background:#1e1e2e;color:#dcdce4;font:14px/1.35 DejaVu Sans Mono,monospace'>"
        f"{text}</pre></body>"
    )


def _cell(letter: str, colour: str, *, bold: bool) -> str:
    style = "" if colour == "default" else f"color:{_css(colour)};"
    style += "font-weight:bold" if bold else ""
    return f"<span style='{style}'>{html.escape(letter)}</span>" if style else html.escape(letter)


def _css(colour: str) -> str:
    """A colour of a terminal as CSS has it: pyte gives names, or six digits of its 256."""
    return f"#{colour}" if re.fullmatch("[0-9a-f]{6}", colour) else _NAMED.get(colour, colour)


def search_in_a_terminal(page: Page, folder: Path) -> None:
    """Search the digits, and take pictures amid the trials and at the end."""
    shutil.copy(ROOT / "experiments" / "digits.yaml", folder)
    command = [*_TUNER, "search", "--experiment", "digits.yaml", "--max_evals", "40"]
    with Terminal(command, folder, columns=120, lines=34) as terminal:
        terminal.wait_for(
            lambda text: (found := re.search(r"(\d+)/40 trials", text)) and int(found[1]) > 12
        )
        for name in ("terminal-search", "terminal-end"):
            page.set_content(terminal_page(terminal))
            keep(name, page.locator("pre").screenshot())
            if terminal.end():
                raise SystemExit(terminal.text())


def notebook(page: Page, folder: Path) -> None:
    """Run the notebook, and take a picture of its search and its figures."""
    os.environ["PLOTLY_RENDERER"] = "notebook"
    read = nbformat.read(ROOT / "examples" / "first_search.ipynb", as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(read, timeout=900, kernel_name="python3", resources=resources).execute()
    written, _ = HTMLExporter(template_name="lab").from_notebook_node(read)
    (folder / "notebook.html").write_text(written, encoding="utf-8")
    page.goto((folder / "notebook.html").as_uri())
    page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
    page.wait_for_timeout(_DRAWN_MS)
    keep("notebook", page.screenshot())


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve MLflow's UI of a folder; gives the link that `tuner ui` writes."""
    log = folder / "ui.log"
    with log.open("w") as out:
        command = [*_TUNER, "ui", "--port", str(free_port())]
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_until(lambda: "startup complete" in log.read_text(), 300)
        yield re.findall(r"(http://\S+/#/\S+)", log.read_text())[0]
    finally:
        kill_tree(process)


def mlflow_pages(page: Page, folder: Path) -> None:
    """Take pictures of the run list, the compare page and the registered model."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits").experiment_id
    trials = client.search_runs([experiment], "tags.`tuner.kind` = 'trial'", max_results=40)
    runs = quote(json.dumps([run.info.run_id for run in trials]))
    with served(folder) as link:
        page.goto(link)
        page.get_by_text("001-g").first.wait_for()
        page.get_by_label("Close").last.click()  # MLflow's assistant
        page.wait_for_timeout(_DRAWN_MS)
        keep("mlflow-runs", page.screenshot())
        server = f"http://{urlsplit(link).netloc}"
        compared = f"runs={runs}&experiments={quote(json.dumps([experiment]))}&{_TRAINING}"
        page.goto(f"{server}/#/compare-runs?{compared}")
        page.locator(".parcoords").first.wait_for()
        page.wait_for_timeout(_DRAWN_MS)
        keep("mlflow-compare", page.screenshot())
        page.goto(f"{server}/#/models/digits/versions/1?{_TRAINING}")
        page.get_by_text("An image classifier of").wait_for()
        page.wait_for_timeout(_DRAWN_MS)
        keep("mlflow-model", page.screenshot())


def main() -> None:
    """Make them all."""
    PICTURES.mkdir(exist_ok=True)
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with tempfile.TemporaryDirectory() as folder, browsing(width=1500, height=820) as seen:
        search_in_a_terminal(seen.page, Path(folder))
        mlflow_pages(seen.page, Path(folder))
        notebook(seen.page, Path(folder))


if __name__ == "__main__":
    main()
