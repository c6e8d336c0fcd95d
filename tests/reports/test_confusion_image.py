import numpy as np
import pytest

from tests.reports.test_charts import evaluation_of
from tuner.evaluation.metrics import evaluate
from tuner.reports.confusion_image import confusion_image


@pytest.mark.parametrize("classes", [2, 10, 17, 60, 200])
def test_the_confusion_image_has_a_cell_for_each_pair_with_room_for_its_text(classes):
    evaluation = evaluation_of([f"class {index}" for index in range(classes)], rows=20 * classes)
    image = confusion_image(evaluation)
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
        return np.asarray(confusion_image(evaluate(np.array(counts[0]), counts[1], names)).convert("L"))

    assert not np.array_equal(image("Löwe", "cat"), image("Lowe", "cat"))
    assert not np.array_equal(image("Лев", "cat"), image("Кот", "cat"))
    assert np.array_equal(image("日本", "cat"), image("#0", "cat"))
    assert max(image("x" * 200, "y").shape) < 700


def test_names_that_look_alike_in_the_image_are_told_apart():
    def image(*names):
        return np.asarray(confusion_image(evaluate(np.array([0, 1]), np.eye(2), names)))

    assert np.array_equal(image("a\n b", "c"), image("a b", "c"))
    assert np.array_equal(image("a\r", "a"), image("#0", "#1"))
    assert np.array_equal(image("x" * 50 + "1", "x" * 50 + "2"), image("#0", "#1"))
