from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.training import pictures, training_images
from tuner.base.errors import CacheError
from tuner.images.preprocessing import preprocess
from tuner.training.images import PIXELS_FILE, TrainingImages, write_rows


def test_batches_are_preprocessed_images_in_the_order_asked_for(tmp_path: Path) -> None:
    images = training_images(tmp_path, count=12)
    pixels, labels = pictures(12)
    part = images.part("tf", validates=False)
    assert list(part.rows) == [2, 3, 4, 5, 8, 9, 10, 11]
    order = np.array([7, 0, 3])
    batches = [(np.asarray(x), np.asarray(y)) for x, y in part.batches(2, order)]
    assert [len(x) for x, _ in batches] == [2, 1]
    rows = part.rows[order]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), preprocess(pixels[rows], "tf"))
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), labels[rows])
    assert list(images.part("tf", validates=True).rows) == [0, 1, 6, 7]
    values = np.random.default_rng(5).normal(size=(8, 3)).astype(np.float32)
    found = list(part.computed(values).batches(2, order))
    np.testing.assert_array_equal(np.concatenate([np.asarray(x) for x, _ in found]), values[order])
    np.testing.assert_array_equal(np.concatenate([np.asarray(y) for _, y in found]), labels[rows])


@pytest.mark.parametrize("validates", ["validation", "fold-0"])
def test_nobody_is_told_of_the_test_part(tmp_path: Path, validates: str) -> None:
    np.save(tmp_path / PIXELS_FILE, pictures(4)[0])
    others = "train" if validates == "validation" else "fold-1"
    index = pd.DataFrame(
        {
            "path": list("abcd"),
            "label_index": [0, 1, 0, 1],
            "row": [3, 2, 1, 0],
            "part": ["test", validates, others, others],
        }
    )
    images = write_rows(tmp_path, index)
    assert images.validation == validates
    assert images.part("unit", validates=True).path == ["b"]
    assert list(images.part("unit", validates=False).rows) == [1, 0]


def test_images_that_are_not_here_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="cannot be read by this worker"):
        TrainingImages(tmp_path / "gone", "validation").part("unit", validates=True)
