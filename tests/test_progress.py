import io
import sys
import time

import pytest
from hyperopt import STATUS_FAIL, STATUS_OK
from pyspark import cloudpickle
from rich.console import Console

from tuner.experiment import Search
from tuner.progress import extraction_progress, search_progress
from tuner.sessions import DriverSession
from tuner.spark_trials import make_trials, run_trials

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests


def objective(point: dict) -> dict:
    time.sleep(0.6)
    number = int(point["trial"])
    if number == 2:
        return {"status": STATUS_FAIL}
    return {"status": STATUS_OK, "loss": -number / 10, "name": f"{number:03d}-vgg16"}


@pytest.mark.parametrize("terminal", [pytest.param(False, marks=pytest.mark.long), True])
def test_search_tells_trials_done_the_best_so_far_and_the_time_left(driver: DriverSession, terminal: bool):
    console = Console(
        file=io.StringIO(), force_terminal=terminal, color_system=None, highlight=False, width=120
    )
    search = Search(backbone="VGG16", max_evals=4, parallelism=1)
    alone = search.model_copy(update={"max_evals": 1})
    run_trials(make_trials(driver.spark, alone), objective, alone)  # a worker's start takes seconds
    trials = make_trials(driver.spark, search)
    with search_progress(console, trials, 4, "accuracy"):
        run_trials(trials, objective, search)
    text = console.file.getvalue()
    assert "1/4 trials · best accuracy 0.1000 (001-vgg16) · about 0:0" in text
    assert (
        text.rstrip().splitlines()[-1].endswith("4/4 trials · 1 failed · best accuracy 0.4000 (004-vgg16)")
    )


def test_extraction_tells_images_a_second_where_there_is_no_terminal():
    console = Console(file=io.StringIO(), force_terminal=False)
    with extraction_progress(console, "VGG16", 10) as report:
        report(4, 10)
        time.sleep(0.05)
        report(10, 10)
    assert "VGG16: 10 images, " in console.file.getvalue()
    assert "images/s" in console.file.getvalue()


def test_extraction_shows_a_bar_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with extraction_progress(console, "VGG16", 10) as report:
        report(10, 10)
    assert "10/10" in console.file.getvalue()
    assert "images/s" in console.file.getvalue()
