"""What a search makes of its winner's network, and what it says of it."""

import re
from pathlib import Path

import mlflow
import pytest

from tests.conftest import FinishedSearch, tuner
from tests.helpers.models import CHAMPION


def test_the_winner_carries_its_network_as_onnx_and_that_is_said(
    finished_search: FinishedSearch, search_store: Path
) -> None:
    parent = finished_search.parent()
    said = f"{parent.data.params['best_backbone']} is served as ONNX: "
    (line,) = [line for line in finished_search.output.splitlines() if line.startswith(said)]
    assert re.search(r"\b0 of \d+ images get another class than by TensorFlow\.$", line)
    assert parent.data.metrics["onnx_other_classes"] == 0
    folder = Path(mlflow.artifacts.download_artifacts(CHAMPION))
    assert len(list(folder.rglob("*.onnx"))) == 1
    assert "tensorflow" not in (folder / "requirements.txt").read_text()


@pytest.mark.long
def test_the_winner_of_a_search_in_bfloat16_stays_with_tensorflow(letters: Path, tmp_path: Path) -> None:
    (tmp_path / "half.yaml").write_text(
        f"name: half\nimages: {letters}\nprecision: bfloat16\n"
        "search: {backbone: [GlyphNet], max_evals: 1}\n"
    )
    done = tuner(tmp_path, "search", "--experiment", "half.yaml")
    assert done.returncode == 0, done.stderr
    said = "GlyphNet is served by TensorFlow, not as ONNX: it computes in bfloat16, in which"
    assert any(line.startswith(said) for line in done.stdout.splitlines())
