import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tuner.evaluation.metrics import Evaluation, evaluate
from tuner.reports import charts
from tuner.reports.confusion_image import confusion_image

EVIL = "<script>alert(1)</script>"


def evaluation_of(labels, rows=200, seed=0) -> Evaluation:
    generator = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(len(labels)), generator.integers(0, len(labels), rows)])
    raw = np.exp(generator.normal(size=(len(truth), len(labels))) + 2.5 * np.eye(len(labels))[truth])
    return evaluate(truth, raw / raw.sum(axis=1, keepdims=True), labels)


def some_trials(**columns) -> pd.DataFrame:
    """Six trials, of which the fourth failed."""
    table = {
        "trial": [1, 2, 3, 4, 5, 6],
        "run_id": list("abcdef"),
        "backbone": ["GlyphNet", "Gabor", "GlyphNet", "Gabor", "GlyphNet", EVIL],
        "regParam": [0.1, 0.0, 0.01, 0.001, 1.0, 0.1],
        "elasticNetParam": [0.0, 0.5, 1.0, 0.5, 0.2, 0.1],
        "maxIter": [10, 20, 30, 10, 20, 30],
        "status": ["FINISHED"] * 3 + ["FAILED"] + ["FINISHED"] * 2,
        "accuracy": [0.8, 0.7, 0.9, np.nan, 0.9, 0.6],
        "logLoss": [0.5, 0.6, 0.4, np.nan, 0.3, 0.9],
        "seconds": [1.0] * 6,
    }
    return pd.DataFrame(table | columns)


ALL_FAILED = some_trials(status="FAILED").drop(columns=["accuracy", "logLoss"])


def trace_named(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def test_the_confusion_figure_shows_counts_coloured_by_the_shares_of_rows():
    truth, predicted = [0, 0, 0, 0, 1], [0, 0, 0, 1, 1]
    figure = charts.confusion_figure(evaluate(np.array(truth), np.eye(2)[predicted], ("cat", "dog")))
    heatmap = figure.data[0]
    assert np.array(heatmap.z).tolist() == [[0.75, 0.25], [0, 1]]
    assert np.array(heatmap.text).tolist() == [[3, 1], [0, 1]]
    assert list(heatmap.y) == ["cat", "dog"]
    assert "0.8000 on 5 images" in figure.layout.title.text
    assert figure.layout.xaxis.type == "category"  # classes named 0 to 9 are names, not numbers


def test_a_class_without_images_has_a_row_of_zeros():
    evaluation = evaluate(np.array([0, 0]), np.array([[0.9, 0.1], [0.1, 0.9]]), ("cat", "dog"))
    assert np.array(charts.confusion_figure(evaluation).data[0].z).tolist() == [[0.5, 0.5], [0, 0]]


def test_plotly_is_told_that_names_are_text_and_not_markup():
    figure = charts.confusion_figure(evaluation_of([EVIL, "plain"]))
    assert figure.data[0].x[0] == "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert charts.score_by_backbone(some_trials(), "accuracy").data[-1].name == figure.data[0].x[0]


ODD_NAMES = [
    *("a\r", "a\nb", "a\x85b", "a\u2029", "\x00", "\x1b[31m", "\t", " ", "", "\u200b", "\u202eabc"),
    *("😀", "👨\u200d👩\u200d👧", "é" * 40, "e\u0301" * 30, "مرحبا", "\ud800", "\uffff", "a\xa0b"),
    *("%s", "{}", "x" * 500, "\u2066", "\ufeff"),
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(ODD_NAMES) | st.text(max_size=30), min_size=2, max_size=6, unique=True))
@example(ODD_NAMES)
def test_no_name_keeps_a_chart_from_being_drawn(names: list[str]):
    evaluation = evaluation_of(names, rows=20)
    assert max(confusion_image(evaluation).size) < 1000
    assert len(charts.confusion_figure(evaluation).data[0].x) == len(names)
    truth = np.arange(len(names))
    assert charts.roc_figure(truth, np.eye(len(names)), names).data


def test_roc_curves_bear_their_areas():
    truth, probability = (
        np.array([0, 0, 1, 1]),
        np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]]),
    )
    figure = charts.roc_figure(truth, probability, ("cat", "dog"))
    expected = evaluate(truth, probability, ("cat", "dog")).metrics["roc_auc"]
    assert [trace.name for trace in figure.data] == [f"dog ({expected:.3f})", "chance (0.500)"]
    three = charts.roc_figure(np.array([0, 2]), np.eye(3)[[0, 2]], ("cat", "dog", "<i>"))
    assert [trace.name for trace in three.data[:-1]] == ["cat (1.000)", "&lt;i&gt; (1.000)"]
    assert len(charts.roc_figure(np.array([1, 1]), np.eye(2), ("cat", "dog")).data) == 1


@pytest.mark.parametrize(
    ("metric", "best"),
    [("accuracy", [0.8, 0.8, 0.9, 0.9, 0.9]), ("logLoss", [0.5, 0.5, 0.4, 0.3, 0.3])],
)
def test_the_history_follows_the_best_score_in_the_order_of_trials(metric, best):
    shuffled = some_trials().sample(frac=1, random_state=3)
    figure = charts.optimisation_history(shuffled, metric)
    line = trace_named(figure, "best so far")
    assert list(line.x) == [1, 2, 3, 5, 6]
    assert list(line.y) == best
    assert list(trace_named(figure, "failed").x) == [4]


def test_parallel_coordinates_put_zero_below_the_smallest_regparam():
    axes = {
        axis.label: axis
        for axis in charts.parallel_coordinates(some_trials(), "accuracy").data[0].dimensions
    }
    assert list(axes) == ["backbone", "regParam", "elasticNetParam", "maxIter", "accuracy"]
    assert axes["regParam"]["values"] == pytest.approx((-1, -3, -2, 0, -1))
    ticks = dict(zip(axes["regParam"].ticktext, axes["regParam"].tickvals, strict=True))
    assert ticks == pytest.approx({"0": -3, "0.01": -2, "0.1": -1, "1": 0})
    assert EVIL in axes["backbone"].ticktext  # plotly writes these as text, not as markup


@settings(deadline=None, max_examples=40)
@given(
    values=st.lists(
        st.tuples(
            st.sampled_from([0.0, 1e-8, 1e-4, 0.02, 1.0, 300.0]),
            st.sampled_from([0.0, 0.3, 1.0]),
            st.integers(0, 30),
            st.floats(0, 1),
            st.sampled_from(["FINISHED", "FAILED"]),
        ),
        min_size=1,
        max_size=8,
    ),
    metric=st.sampled_from(["accuracy", "logLoss"]),
)
def test_any_trials_can_be_drawn(values, metric):
    columns = ("regParam", "elasticNetParam", "maxIter", metric, "status")
    trials = pd.DataFrame(values, columns=columns).assign(
        backbone="GlyphNet", trial=range(1, len(values) + 1)
    )
    trials.loc[trials["status"] == "FAILED", metric] = np.nan
    for draw in (charts.optimisation_history, charts.parallel_coordinates, charts.score_by_backbone):
        json.loads(draw(trials, metric).to_json())
    finished = (trials["status"] == "FINISHED").sum()
    for parcoords in charts.parallel_coordinates(trials, metric).data:
        for axis in parcoords.dimensions:
            low, high = axis.range
            assert low < high
            assert all(low <= value <= high for value in (*axis["values"], *(axis.tickvals or ())))
            assert len(axis["values"]) == finished


@pytest.mark.parametrize(
    "draw", [charts.optimisation_history, charts.parallel_coordinates, charts.score_by_backbone]
)
def test_a_search_in_which_all_trials_failed_can_be_drawn(draw):
    assert draw(ALL_FAILED, "accuracy").layout.title.text


def test_backbones_stand_in_the_order_of_their_best_scores():
    names = [
        box.name for box in charts.score_by_backbone(some_trials(backbone=list("abcabc")), "accuracy").data
    ]
    assert names == ["c", "b", "a"]
    names = [
        box.name for box in charts.score_by_backbone(some_trials(backbone=list("abcabc")), "logLoss").data
    ]
    assert names == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("metric", "order"), [("accuracy", [3, 5, 1, 2, 6, 4]), ("logLoss", [5, 3, 1, 2, 6, 4])]
)
def test_the_leaderboard_lists_best_first_equals_by_number_failed_last(metric, order):
    table = charts.leaderboard(some_trials(), metric)
    assert table["trial"].tolist() == order
    assert table["rank"].tolist()[:5] == [1, 2, 3, 4, 5]
    assert table["rank"].isna().tolist() == [False] * 5 + [True]
    assert list(table.columns[:4]) == ["rank", "trial", metric, "backbone"]
    assert set(table.columns) == {"rank", *some_trials().columns}


def test_the_leaderboard_of_failures_has_no_ranks():
    table = charts.leaderboard(ALL_FAILED, "accuracy")
    assert table["trial"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["rank"].isna().all()


# Several classifiers


def several(metric: str = "accuracy") -> pd.DataFrame:
    """Each with its own parameters; those of the others are empty. The forest's depth decides."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(1, 25):
        if number % 2:
            depth = int(rng.integers(3, 12))
            values = {
                "classifier": "RandomForest",
                "numTrees": int(rng.integers(20, 90)),
                "maxDepth": depth,
            }
            score = depth / 12
        else:
            prestep = ["none", "PCA"][number % 4 // 2]
            values = {"classifier": "sklearn.Ridge", "alpha": float(rng.uniform(0, 9)), "prestep": prestep}
            values |= {"k": 5} if prestep == "PCA" else {}
            score = 0.5
        rows.append(
            {
                "trial": number,
                "backbone": "A",
                **values,
                "status": "FINISHED",
                metric: score,
                "seconds": 1.0,
            }
        )
    rows[0] |= {"status": "FAILED", metric: np.nan}
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("classifier", "axes"),
    [
        ("RandomForest", ["backbone", "numTrees", "maxDepth", "accuracy"]),
        ("sklearn.Ridge", ["backbone", "alpha", "prestep", "accuracy"]),  # k is not there in all
    ],
)
def test_parallel_coordinates_of_a_classifier_have_its_own_axes(classifier: str, axes: list[str]) -> None:
    (parcoords,) = charts.parallel_coordinates(several(), "accuracy", classifier).data
    assert [axis.label for axis in parcoords.dimensions] == axes
    for axis in parcoords.dimensions:
        assert np.isfinite(list(axis["values"])).all()


def test_the_parameter_that_decides_the_score_is_the_most_important() -> None:
    (bars,) = charts.parameter_importance(several(), "accuracy").data
    assert sum(bars.x) == pytest.approx(1)
    assert bars.y[-1] == "maxDepth"
    assert {"classifier", "numTrees", "alpha", "prestep", "k"} < set(bars.y)
    assert "backbone" not in bars.y  # there is one only


@pytest.mark.parametrize("count", [0, 1, 5])
def test_of_few_trials_no_importance_is_told(count: int) -> None:
    assert not charts.parameter_importance(several().head(count), "accuracy").data


def test_the_leaderboard_has_the_parameters_of_all_classifiers() -> None:
    table = charts.leaderboard(several(), "accuracy")
    assert list(table.columns[:5]) == ["rank", "trial", "accuracy", "backbone", "classifier"]
    assert set(table.columns[5:10]) == {"numTrees", "maxDepth", "alpha", "prestep", "k"}
    for figure in (
        charts.optimisation_history(several(), "accuracy"),
        charts.score_by_backbone(several(), "accuracy"),
    ):
        assert "sklearn.Ridge, alpha" in figure.to_json()


def test_progress_curves_tell_all_so_far_from_the_latest() -> None:
    progress = pd.DataFrame({"learned": [20, 30, 40], "predicted": [10, 20, 30], "right": [2, 10, 19]})
    validation = pd.DataFrame({"learned": [40, 80], "accuracy": [0.7, 0.8]})
    figure = charts.progress_curves(progress, validation)
    so_far, latest, validated = (list(trace.y) for trace in figure.data)
    assert so_far == pytest.approx([0.2, 0.5, 19 / 30])
    assert latest == pytest.approx([0.2, 0.8, 0.9])
    assert (list(figure.data[2].x), validated) == ([40, 80], [0.7, 0.8])
    none = charts.progress_curves(progress[:0], validation)
    assert len(none.data[0].y) == 0


def test_learning_curves_show_phases_and_the_epoch_that_is_kept() -> None:
    epochs = pd.DataFrame(
        {
            "number": [1, 2, 3, 4],
            "phase": ["warm-up"] * 2 + ["tuning"] * 2,
            "loss": [2.0, 1.0, 0.5, 0.4],
            "train_accuracy": [0.2, 0.4, 0.8, 0.9],
            "validation_logLoss": [2.0, 1.5, 1.0, 1.1],
            "validation_accuracy": [0.1, 0.3, 0.7, 0.6],
        }
    )
    figure = charts.learning_curves(epochs, "accuracy", best=3)
    curves = {trace.name: list(trace.y) for trace in figure.data}
    assert set(curves) == {"loss", "train_accuracy", "validation_logLoss", "validation_accuracy"}
    assert curves["validation_accuracy"] == [0.1, 0.3, 0.7, 0.6]
    assert [line.x0 for line in figure.layout.shapes] == [2.5, 3]
