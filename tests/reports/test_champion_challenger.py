import numpy as np

from tests.evaluation.test_comparison import CHALLENGER, CHAMPION, TRUTH, compared
from tuner.evaluation.comparison import compare, decide
from tuner.experiment.schema import Gate
from tuner.reports.champion_challenger import report_markdown


def test_the_report_shows_names_as_they_are():
    found = compared(TRUTH, CHAMPION, CHALLENGER)
    report = report_markdown(found, decide(Gate(), found), title="2 against 1", notes=["3 are gone."])
    assert "**Passed**: better" in report
    assert "3 are gone." in report
    assert "| accuracy | 0.7000 | 0.8500 |" in report
    assert "McNemar's exact test: p = 0.375" in report
    assert r"| &lt;b&gt;\|dog | 10 | +0.4000 |" in report
    assert "## 5 images on which they differ" in report
    assert "<b>" not in report


def test_the_report_says_what_is_within_noise():
    few, many = (compared(TRUTH * times, CHAMPION * times, CHALLENGER * times) for times in (1, 40))
    sentences = [
        "The difference in accuracy is within noise: models that are equally good differ by as much on so "
        "many images in more than 5% of cases (p = 0.375).",
        "The difference in accuracy is more than noise: p = ",
    ]
    for found, sentence in zip((few, many), sentences, strict=True):
        assert f"- {sentence}" in report_markdown(found, decide(Gate(), found), title="a", notes=[])


def test_of_many_classes_those_that_changed_most_are_shown():
    truth = np.arange(120) % 60
    before, after = np.eye(60)[truth], np.eye(60)[np.where(truth == 59, 0, truth)]
    labels = [f"class {index}" for index in range(60)]
    found = compare([str(n) for n in range(120)], truth, before, after, labels)
    report = report_markdown(found, decide(Gate(), found), title="a", notes=[])
    assert "| class 59 | 2 | -1.0000 |" in report
    assert report.count("+0.0000 |") == 49
    assert "These are the 50 of 60 classes whose recall changed most." in report
