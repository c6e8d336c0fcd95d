"""The notebook: its outputs are not in git, its words are the API's, and it runs from top to bottom."""

import ast
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tuner

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "first_search.ipynb"


def cells() -> list[dict[str, Any]]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_its_outputs_are_stripped() -> None:
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert len(code) > 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert all(cell["metadata"] == {} for cell in cells())


def test_it_calls_what_there_is() -> None:
    called = set()
    for cell in cells():
        if cell["cell_type"] != "code":
            continue
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("tuner."):
                name = ast.unparse(node.func).removeprefix("tuner.")
                taken = inspect.signature(getattr(tuner, name)).parameters
                assert {keyword.arg for keyword in node.keywords} <= set(taken)
                called.add(name)
    assert {"search", "load", "spot_check", "features"} <= called


def test_it_runs_from_top_to_bottom_and_shows_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient", reason="the tools of development are not installed")
    nbformat = pytest.importorskip("nbformat")
    shutil.copy(NOTEBOOK, tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]), prepend=":")
    notebook = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=500, kernel_name="python3", resources=resources).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error"]
    kinds = [kind for output in shown for kind in output.get("data", {})]
    assert kinds.count("application/vnd.plotly.v1+json") == 3
    pages = "".join("".join(output.get("data", {}).get("text/html", "")) for output in shown)
    assert "models:/digits" in pages
    assert (tmp_path / "mlflow.db").is_file()
