import io
import re
import sys
import time
from dataclasses import replace

import pytest
from pyspark import cloudpickle
from rich.console import Console

from tuner.classifiers.parameters import TrialParams
from tuner.experiment.search import SearchSettings
from tuner.spark.sessions import DriverSession
from tuner.tracking.results import TrialResult
from tuner.trials.progress import search_progress
from tuner.trials.spark_trials import make_trials, run_trials

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests


def objective(point: dict) -> dict:
    time.sleep(0.6)
    number = int(point["trial"])
    result = TrialResult(number, TrialParams.from_point(point), f"{number:03d}-vgg16")
    ended = {"reason": "on purpose"} if number == 2 else {"metrics": {"accuracy": number / 10}}
    return replace(result, **ended).to_document("accuracy")


@pytest.mark.parametrize("terminal", [pytest.param(False, marks=pytest.mark.long), True])
def test_search_tells_trials_done_the_best_so_far_and_the_time_left(driver: DriverSession, terminal: bool):
    console = Console(
        file=io.StringIO(), force_terminal=terminal, color_system=None, highlight=False, width=120
    )
    search = SearchSettings(backbone="VGG16", max_evals=4, parallelism=1)
    alone = search.model_copy(update={"max_evals": 1})
    run_trials(make_trials(driver.spark, alone), objective, alone)  # a worker's start takes seconds
    trials = make_trials(driver.spark, search)
    with search_progress(console, trials, 4, "accuracy"):
        run_trials(trials, objective, search)
    text = console.file.getvalue()
    assert re.search(r"1/4 trials · best accuracy 0\.1000 \(001-vgg16\) · about 0:\d\d left", text)
    assert (
        text.rstrip().splitlines()[-1].endswith("4/4 trials · 1 failed · best accuracy 0.4000 (004-vgg16)")
    )
