import io
import re
import sys
import time
from dataclasses import replace

import pytest
from hyperopt.base import JOB_STATE_DONE
from pyspark import cloudpickle
from rich.console import Console

from tuner.classifiers.parameters import TrialParams
from tuner.experiment.search import SearchSettings
from tuner.spark.sessions import DriverSession
from tuner.tracking.results import TrialResult
from tuner.trials.progress import SearchProgress, search_progress
from tuner.trials.space import document_of
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
    running = r" · 1 running" if terminal else ""
    assert re.search(
        rf"1/4 trials{running} · best accuracy 0\.1000 \(001-vgg16\) · about 0:\d\d left", text
    )
    rows = re.findall(r"(0\.\d000) +(00\d-vgg16) +VGG16 +regParam", text)
    best_first = [("0.4000", "004-vgg16"), ("0.3000", "003-vgg16"), ("0.1000", "001-vgg16")]
    assert rows[-3:] == (best_first if terminal else [])
    assert (
        text.rstrip().splitlines()[-1].endswith("4/4 trials · 1 failed · best accuracy 0.4000 (004-vgg16)")
    )


def test_of_a_search_that_is_resumed_the_time_left_is_that_of_its_own_trials(driver: DriverSession):
    search = SearchSettings(backbone="VGG16", max_evals=16, parallelism=1)
    params = TrialParams.of("VGG16", regParam=0.1, elasticNetParam=0.5, maxIter=9)
    results = [
        TrialResult(number, params, f"{number:03d}-vgg16", metrics={"accuracy": 0.5})
        for number in range(1, 10)
    ]
    trials = make_trials(driver.spark, search, ended=results[:8])
    progress = SearchProgress(trials, 16, "accuracy")
    best = "best accuracy 0.5000 (001-vgg16)"
    assert progress.line(progress.now()) == f"8/16 trials · {best}"
    done = {"state": JOB_STATE_DONE, "result": results[8].to_document("accuracy")}
    trials.insert_trial_docs([document_of(8, 9, params, search) | done])
    trials.refresh()
    progress._started -= 60
    assert progress.line(progress.now()).endswith(
        "9/16 trials · best accuracy 0.5000 (001-vgg16) · about 7:00 left"
    )
