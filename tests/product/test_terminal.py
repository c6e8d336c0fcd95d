"""A search at a terminal: what a person sees while it runs and at its end, on a screen of its own."""

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyte", reason="the tools of development are not installed")
from tests.helpers.terminal import Terminal

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

COMMAND = (sys.executable, "-m", "tuner", "search")
TRIALS = r"(\d+)/(\d+) trials"


def test_a_search_shows_what_it_is_at_and_ends_with_what_comes_next(tmp_path: Path, letters: Path) -> None:
    options = ["--images", str(letters), "--backbone", "GlyphNet,GaborNet", "--max_evals", "60"]
    with Terminal([*COMMAND, *options], tmp_path) as terminal:
        extracting = terminal.wait_for(lambda text: "images/s" in text and "GlyphNet" in text)
        assert re.search(r"GlyphNet +\S+ +\d+/62 images · \d+\.\d images/s", extracting), extracting
        mid = terminal.wait_for(re.compile(TRIALS + r" .*running .* left").search)
        assert re.search(r"^accuracy +trial +backbone +parameters +seconds$", mid, re.MULTILINE), mid
        scores = [float(score) for score in re.findall(r"^(\d\.\d{4}) +\d{3}-g", mid, re.MULTILINE)]
        assert scores
        assert scores == sorted(scores, reverse=True)
        assert len(re.findall(TRIALS, mid)) == 1  # drawn over, not again and again
        assert terminal.end() == 0
        said = terminal.text()
    assert re.search(r"^60/60 trials · best accuracy", said, re.MULTILINE), said
    assert re.search(r"^winner +\d{3}-g", said, re.MULTILINE)
    assert re.search(r"\d+ of \d+ test images are called right: 95 % interval 0\.\d+ to [01]\.\d+", said)
    assert re.search(r"^next +tuner predict models:/digits@champion FOLDER$", said, re.MULTILINE), said
    assert "tuner ui: http://127.0.0.1:5000/#/experiments/" in said
    with Terminal([*COMMAND, "--resume", "last", "--max_evals", "120"], tmp_path) as terminal:
        first = terminal.wait_for(re.compile(TRIALS + r" .*running").search)
        (done, wanted) = re.search(TRIALS, first).groups()
        assert int(done) >= 60
        assert wanted == "120"
        if done == "60":
            assert "left" not in first  # nothing is known yet of how long a trial takes
        assert terminal.end() == 0
        assert "120/120 trials" in terminal.text()
