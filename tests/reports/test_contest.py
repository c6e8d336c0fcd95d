from tests.evaluation.test_comparison import CHALLENGER, CHAMPION, TRUTH, compared
from tuner.evaluation.comparison import decide
from tuner.experiment.schema import Gate
from tuner.reports.contest import report_markdown


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
