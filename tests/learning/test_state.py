import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.learning.samples import sample, setting
from tuner.base.errors import ModelError
from tuner.learning.state import Course, LearnedState, make_learner, read_learner

IMAGES = pd.DataFrame({"digest": ["a", "b", "c"], "label": ["x", "y", "x"], "run": [False, True, True]})
STATE = LearnedState(
    classifier="sklearn.SGD",
    values={"alpha": 0.01, "penalty": "l1"},
    step="batch",
    network="5eed",
    labels=("ñ", "y", "z", "o"),
    images=IMAGES,
    course=Course(7, 64, 3, epoch=2, learned=1),
)


def written(folder: Path) -> Path:
    learner = make_learner(setting("sklearn.SGD", alpha=0.01))
    learner.learn(*sample(20))
    STATE.write_images(folder)
    STATE.write(folder, learner)
    return folder


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = LearnedState.read(written(tmp_path))
    pd.testing.assert_frame_equal(found.images, IMAGES)
    assert vars(replace(found, images=IMAGES)) == vars(STATE)
    assert not found.course.is_over(2)
    assert replace(found.course, epoch=3, learned=2).is_over(2)


@pytest.mark.parametrize("damage", ["format", "cut", "missing", "images", "key"])
def test_what_cannot_be_read_is_a_sentence(damage: str, tmp_path: Path) -> None:
    file = written(tmp_path) / "state.json"
    data = json.loads(file.read_text())
    if damage == "format":
        file.write_text(json.dumps(data | {"format": 9}))
    elif damage == "cut":
        file.write_text(file.read_text()[:50])
    elif damage == "missing":
        file.unlink()
    elif damage == "images":
        (tmp_path / "images.parquet").write_bytes(b"PAR1")
    else:
        file.write_text(json.dumps(data | {"course": {"seed": 1}}))
    said = "is kept in format 9" if damage == "format" else "What was learned cannot be read: "
    with pytest.raises(ModelError, match=said):
        LearnedState.read(tmp_path)


@pytest.mark.parametrize("name", ["sklearn.SGD", "river.LogisticRegression"])
def test_numbers_that_cannot_be_read_are_a_sentence(name: str, tmp_path: Path) -> None:
    for file in ("river.npz", "head.skops"):
        (tmp_path / file).write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="cannot be read"):
        read_learner(tmp_path, setting(name))
