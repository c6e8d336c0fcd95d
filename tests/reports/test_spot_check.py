import json

import pytest

from tuner.classifiers.parameters import TrialParams
from tuner.reports.spot_check import final_report, heat_map, ranked_table, report_name, seconds_figure
from tuner.tracking.results import TrialResult

SPOTS = ["sklearn.Ridge-1", "sklearn.Ridge-1", "LogisticRegression", "LogisticRegression"]
RIDGE = {"alpha": 1.0}


def result(number: int, backbone: str, accuracy: float | None, seconds: float = 1.0) -> TrialResult:
    params = TrialParams.of(backbone, "sklearn.Ridge", **RIDGE)
    if accuracy is None:
        return TrialResult(number, params, f"{number}", "id", reason="too few <images>")
    metrics = {"accuracy": accuracy, "logLoss": 1 - accuracy, "fit_seconds": seconds}
    return TrialResult(number, params, f"{number}", "id", metrics, seconds)


RESULTS = [
    result(1, "VGG16", 0.5),
    result(2, "VGG19", None),
    result(3, "VGG16", 0.75, 3),
    result(4, "VGG19", 0.75, 2),
]


def test_combinations_are_ranked_and_of_equals_the_quicker_one_is_first() -> None:
    table = ranked_table(RESULTS, SPOTS, "accuracy")
    assert table["trial"].tolist() == [4, 3, 1, 2]
    assert table["rank"].tolist()[:3] == [1, 2, 3]
    assert table["rank"].isna().tolist() == [False] * 3 + [True]
    assert table["classifier"].tolist() == [SPOTS[3], SPOTS[2], SPOTS[0], SPOTS[1]]
    assert table["reason"].tolist()[3] == "too few <images>"
    by_loss = ranked_table(RESULTS, SPOTS, "logLoss")
    assert by_loss["trial"].tolist() == [4, 3, 1, 2]


def test_the_report_has_its_source_s_layout() -> None:
    report = final_report(ranked_table(RESULTS, SPOTS, "accuracy"))
    assert json.loads(json.dumps(report)) == {
        "features-VGG16.h5": {"extractor": "VGG16", "Ridge-1": 0.5, "MLlib-LogisticRegression": 0.75},
        "features-VGG19.h5": {"extractor": "VGG19", "MLlib-LogisticRegression": 0.75},
        "best_model": "MLlib-LogisticRegression",
        "best_accuracy": 0.75,
        "best_features": "features-VGG19.h5",
    }
    assert report_name("sklearn.LogisticRegression") == "LogisticRegression"


@pytest.mark.parametrize("metric", ["accuracy", "logLoss"])
def test_the_heat_map_has_the_best_first_and_says_what_failed(metric: str) -> None:
    (heat,) = heat_map(ranked_table(RESULTS, SPOTS, metric), metric).data
    assert list(heat.y) == ["LogisticRegression", "sklearn.Ridge-1"]
    assert set(heat.x) == {"VGG16", "VGG19"}
    failed = heat.text[1][list(heat.x).index("VGG19")]
    assert failed == "failed: too few &lt;images&gt;"
    assert "fitted in 3.00 s" in heat.text[0][list(heat.x).index("VGG16")]
    points = seconds_figure(ranked_table(RESULTS, SPOTS, metric), metric).data
    assert sum(len(trace.x) for trace in points) == 3
