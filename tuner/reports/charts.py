"""Results → plotly figures; `pages` shows them."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from sklearn.metrics import auc, roc_curve

from tuner.base.choices import LOWER_IS_BETTER
from tuner.classifiers.parameters import BACKBONE, CLASS_WEIGHT, CLASSIFIER, described
from tuner.classifiers.rows.row import STEP_PARAMETERS
from tuner.classifiers.table import CLASSIFIERS, DEFAULT
from tuner.evaluation.metrics import Evaluation
from tuner.reports.confusion_image import HIGHEST, LOWEST, row_shares

_LEGIBLE_CLASSES = 40  # counts of more classes are left to the hover text: they would not fit
_FEWEST_TO_LEARN = 8  # trials: of fewer, importances are chance
_COLOURS = [[share, f"rgb{tuple(colour.tolist())}"] for share, colour in ((0, LOWEST), (1, HIGHEST))]


def confusion_figure(evaluation: Evaluation) -> go.Figure:
    """Draw the confusion matrix: a heatmap coloured by each row's shares, with the counts in it."""
    names = _escaped(evaluation.labels)
    counts = evaluation.confusion
    heatmap = go.Heatmap(
        x=names,
        y=names,
        z=row_shares(counts),
        text=counts,
        texttemplate="%{text}" if len(names) <= _LEGIBLE_CLASSES else None,
        hovertemplate="%{text} of true %{y}<br>predicted %{x} (%{z:.1%})<extra></extra>",
        colorscale=_COLOURS,
        zmin=0,
        zmax=1,
        xgap=1,
        ygap=1,
        colorbar={"title": "share of<br>true class", "tickformat": ".0%"},
    )
    figure = _figure(
        f"Confusion matrix: accuracy {evaluation.metrics['accuracy']:.4f} on {counts.sum()} images",
        [heatmap],
    )
    figure.update_xaxes(title="predicted", type="category", constrain="domain", showgrid=False, dtick=1)
    figure.update_yaxes(
        title="true", type="category", autorange="reversed", scaleanchor="x", constrain="domain", dtick=1
    )
    return figure


def roc_figure(label_index: np.ndarray, scores: np.ndarray, labels: Sequence[str]) -> go.Figure:
    """Draw the ROC curve of each class that is present against the others; of two classes, the second's.

    Parameters
    ----------
    label_index, scores, labels
        As `tuner.evaluation.metrics.evaluate` takes them.
    """
    truth = np.asarray(label_index).astype(np.int64)
    figure = _figure("ROC curves, one class against the others", [])
    present = np.unique(truth)
    classes = [] if len(present) < 2 else [1] if len(labels) == 2 else present
    for index in classes:
        false_positives, true_positives, _ = roc_curve(truth == index, scores[:, index])
        area = auc(false_positives, true_positives)
        name = f"{html.escape(labels[index])} ({area:.3f})"
        figure.add_scatter(x=false_positives, y=true_positives, name=name, mode="lines")
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": "grey"}, name="chance (0.500)"
    )
    figure.update_xaxes(title="false positive rate", range=[-0.01, 1.01], constrain="domain")
    figure.update_yaxes(title="true positive rate", range=[-0.01, 1.01], scaleanchor="x")
    return figure.update_layout(legend_title="class (area)")


def optimisation_history(trials: pd.DataFrame, metric: str) -> go.Figure:
    """Draw each trial's score by its number, and the best so far; failed trials are crosses at the bottom.

    Parameters
    ----------
    trials
        One row a trial: `trial` (its number), `backbone`, `classifier` where it is searched, each of the
        searched parameters (empty where a trial does not have it), `status` (`FINISHED` or `FAILED`) and,
        for finished ones, the metric.
    metric
        The column that trials are ranked by.
    """
    figure = _figure(f"{metric} by trial", [])
    finished = _finished(trials, metric).sort_values("trial")
    for backbone, group in finished.groupby("backbone"):
        figure.add_scatter(
            x=group["trial"],
            y=group[metric],
            mode="markers",
            name=html.escape(str(backbone)),
            text=_descriptions(group),
            hovertemplate=f"%{{text}}<br>{metric} %{{y:.4f}}",
        )
    best = finished[metric].cummin() if metric in LOWER_IS_BETTER else finished[metric].cummax()
    figure.add_scatter(
        x=finished["trial"], y=best, mode="lines", line={"shape": "hv", "color": "grey"}, name="best so far"
    )
    failed = trials[trials["status"] != "FINISHED"]
    if len(failed):
        figure.add_scatter(
            x=failed["trial"],
            y=[0.02] * len(failed),
            yaxis="y2",
            mode="markers",
            marker={"symbol": "x", "color": "crimson"},
            name="failed",
            text=_descriptions(failed),
            hovertemplate="%{text}",
        )
        figure.update_layout(yaxis2={"overlaying": "y", "range": [0, 1], "visible": False})
    figure.update_xaxes(title="trial", tick0=0, dtick=math.ceil(len(trials) / 15))
    return figure.update_layout(yaxis_title=metric)


def learning_curves(epochs: pd.DataFrame, metric: str, best: int) -> go.Figure:
    """Draw what each epoch of a training showed: the losses to the left, the scores to the right.

    Parameters
    ----------
    epochs
        One row an epoch: `number`, `phase`, `loss`, `train_accuracy`, and `validation_` and each metric.
    metric
        What epochs are ranked by.
    best
        The number of the epoch that is kept.
    """
    figure = _figure(f"loss and {metric} by epoch", [])
    validated = f"validation_{metric}"
    curves = {"loss": "y", "validation_logLoss": "y", "train_accuracy": "y2", validated: "y2"}
    for name, axis in curves.items():
        figure.add_scatter(
            x=epochs["number"],
            y=epochs[name],
            yaxis=axis,
            mode="lines+markers",
            name=name,
            text=epochs["phase"],
            hovertemplate=f"%{{text}}, epoch %{{x}}<br>{name} %{{y:.4f}}",
        )
    for first in epochs.groupby("phase", sort=False)["number"].min().iloc[1:]:
        figure.add_vline(x=first - 0.5, line={"dash": "dot", "color": "grey"})
    figure.add_vline(x=best, line={"color": "lightgreen"}, annotation_text="kept")
    figure.update_layout(
        yaxis={"title": "loss"}, yaxis2={"overlaying": "y", "side": "right", "title": metric}
    )
    return figure.update_xaxes(title="epoch")


def progress_curves(progress: pd.DataFrame, validation: pd.DataFrame) -> go.Figure:
    """Draw how well images were predicted before they were learned, and how well those that validate.

    Parameters
    ----------
    progress
        Counts so far, of the first pass: `learned`, and of `predicted` images how many were `right`.
    validation
        One row a pass: `learned`, in all passes so far, and `accuracy`.
    """
    figure = _figure("accuracy by images learned", [])
    steps = progress[["predicted", "right"]].diff().fillna(progress[["predicted", "right"]])
    curves = {
        "before they were learned, all so far": progress["right"] / progress["predicted"],
        "before they were learned, since the last point": steps["right"] / steps["predicted"],
    }
    for name, values in curves.items():
        figure.add_scatter(x=progress["learned"], y=values, mode="lines", name=name)
    figure.add_scatter(
        x=validation["learned"],
        y=validation["accuracy"],
        mode="lines+markers",
        name="validation images, after a pass",
    )
    figure.update_xaxes(title="images learned, in all passes")
    return figure.update_layout(yaxis_title="accuracy", hovermode="x unified")


def parallel_coordinates(trials: pd.DataFrame, metric: str, classifier: str | None = None) -> go.Figure:
    """Draw each finished trial as a line through its parameters to its score; `trials` as above.

    `classifier` is the one to draw; None: there is one only.
    """
    finished = _finished(trials, metric)
    title = "Parameters and score of each trial"
    if classifier is not None:
        finished, title = finished[finished[CLASSIFIER] == classifier], f"{title} of {classifier}"
    if finished.empty:
        return _figure(f"No trial{f' of {classifier}' if classifier else ''} finished", [])
    dimensions = [_words_axis(finished[BACKBONE])]
    if CLASS_WEIGHT in finished:
        dimensions.append(_words_axis(finished[CLASS_WEIGHT]))
    for name, row in CLASSIFIERS[classifier or DEFAULT].by_name.items():
        # An axis has a place for every line: what some trials do not have stands in the leaderboard alone.
        if name in finished and finished[name].notna().all():
            log = row.log and not row.choices
            draw = _words_axis if row.choices else _log_axis if log else _axis
            dimensions.append(draw(finished[name]))
    line = {
        "color": finished[metric],
        "colorscale": "Viridis",
        "reversescale": metric in LOWER_IS_BETTER,
        "colorbar": {"title": metric},
    }
    parcoords = go.Parcoords(line=line, dimensions=[*dimensions, _axis(finished[metric])])
    figure = _figure(title, [parcoords])
    return figure.update_layout(margin={"t": 110, "l": 120})


def parameter_importance(trials: pd.DataFrame, metric: str) -> go.Figure:
    """Draw how much of the score's variation each parameter stands for, over all trials; `trials` as above.

    A forest of regression trees learns the score from the parameters (words as places among them, and a
    value of its own for what a trial does not have); the importance of one is how much worse it tells the
    scores when that parameter's values are shuffled, as a share of all.

    References
    ----------
    L. Breiman, "Random Forests", Machine Learning 45 (2001), section 10.
    """
    from sklearn.ensemble import RandomForestRegressor  # workers draw, too, and never this
    from sklearn.inspection import permutation_importance

    finished = _finished(trials, metric)
    names = [name for name in (BACKBONE, CLASSIFIER, *searched_columns(trials)) if name in finished]
    varied = [name for name in names if finished[name].nunique(dropna=False) > 1]
    if len(finished) < _FEWEST_TO_LEARN or not varied or finished[metric].nunique() < 2:
        return _figure("Too few trials to tell which parameters matter", [])
    table = pd.DataFrame({name: _numbers(finished[name]) for name in varied})
    forest = RandomForestRegressor(200, min_samples_leaf=2, random_state=0).fit(table, finished[metric])
    found = permutation_importance(forest, table, finished[metric], n_repeats=20, random_state=0)
    means = np.maximum(found.importances_mean, 0)
    shares = pd.Series(means / max(means.sum(), np.finfo(float).tiny), varied).sort_values()
    figure = _figure(f"Which parameters decide {metric}", [])
    figure.add_bar(x=shares, y=shares.index, orientation="h", hovertemplate="%{y}: %{x:.0%}<extra></extra>")
    return figure.update_xaxes(title="share of importance", tickformat=".0%")


def _numbers(values: pd.Series) -> pd.Series:
    """A column that a tree can split: words by their places; what is not there, below everything."""
    if pd.api.types.is_numeric_dtype(values):
        return values.fillna(values.min() - 1)
    return pd.Series(pd.factorize(values, sort=True)[0], values.index)


def searched_columns(trials: pd.DataFrame) -> list[str]:
    """The columns of searched parameters, in the order of the table of classifiers."""
    own = (parameter for row in CLASSIFIERS.values() for parameter in row.parameters)
    known = dict.fromkeys(parameter.name for parameter in (*own, *STEP_PARAMETERS))
    return [name for name in (*known, CLASS_WEIGHT) if name in trials]


def score_by_backbone(trials: pd.DataFrame, metric: str) -> go.Figure:
    """Draw the scores of each backbone's finished trials, best backbone first; `trials` as above."""
    finished = _finished(trials, metric)
    figure = _figure(f"{metric} by backbone", [])
    for backbone in _best_first(finished, metric)["backbone"].unique():
        group = finished[finished["backbone"] == backbone]
        figure.add_box(
            y=group[metric],
            name=html.escape(str(backbone)),
            boxpoints="all",
            pointpos=0,
            text=_descriptions(group),
            hovertemplate=f"%{{text}}<br>{metric} %{{y:.4f}}<extra></extra>",
        )
    figure.update_xaxes(type="category")
    return figure.update_layout(yaxis_title=metric, showlegend=False)


def leaderboard(trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    """List the trials best first, of equals the earlier one, with their `rank`; failed ones last, without.

    Parameters
    ----------
    trials, metric
        As `optimisation_history` takes them.
    """
    ranked = _best_first(_finished(trials, metric), metric)
    failed = trials[trials["status"] != "FINISHED"].sort_values("trial")
    table = pd.concat([ranked, failed]) if len(failed) else ranked
    ranks = pd.Series(range(1, len(ranked) + 1), dtype="Int64").reindex(range(len(table)))
    table = table.reset_index(drop=True).assign(rank=ranks)
    classifier = [CLASSIFIER] if CLASSIFIER in table else []
    first = ["rank", "trial", metric, BACKBONE, *classifier, *searched_columns(table)]
    return table[[*first, *table.columns.difference(first, sort=False)]]


def _escaped(names: Sequence[str]) -> list[str]:
    """Plotly reads the texts of a figure as a kind of HTML."""
    return [html.escape(name) for name in names]


def _figure(title: str, traces: list[go.Heatmap | go.Parcoords]) -> go.Figure:
    figure = go.Figure(traces, layout={"template": "plotly_white", "title": {"text": title}})
    figure.update_xaxes(automargin=True)
    return figure.update_yaxes(automargin=True)


def _finished(trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    if metric not in trials:  # no trial got as far as a score
        trials = trials.assign(**{metric: np.nan})
    return trials[trials["status"] == "FINISHED"]


def _best_first(finished: pd.DataFrame, metric: str) -> pd.DataFrame:
    return finished.sort_values([metric, "trial"], ascending=[metric in LOWER_IS_BETTER, True])


def _descriptions(trials: pd.DataFrame) -> list[str]:
    return [
        f"trial {row['trial']}: {html.escape(str(row['backbone']))}<br>{described(row)}"
        for row in trials.to_dict("records")
    ]


def _axis(values: pd.Series) -> dict[str, object]:
    low, high = float(values.min()), float(values.max())
    axis: dict[str, object] = {"label": str(values.name), "values": values.tolist(), "range": [low, high]}
    if low == high:  # an axis of one value needs some length
        axis |= {"range": [low - 0.5, low + 0.5], "tickvals": [low], "ticktext": [f"{low:.4g}"]}
    return axis


def _words_axis(words: pd.Series) -> dict[str, object]:
    codes, names = pd.factorize(words, sort=True)  # these names plotly takes as they are, unescaped
    axis = _axis(pd.Series(codes, name=words.name))
    return axis | {"tickvals": list(range(len(names))), "ticktext": list(names)}


def _log_axis(values: pd.Series) -> dict[str, object]:
    """A logarithmic axis; 0 stands a decade below the smallest positive value."""
    positive = values[values > 0]
    zero = math.log10(positive.min()) - 1 if len(positive) else 0.0
    exponents = np.log10(values.where(values > 0, 10**zero))
    ends = {float(exponents.min()): values.min(), float(exponents.max()): values.max()}
    between = range(math.floor(min(ends)) + 1, math.ceil(max(ends)))
    decades = {float(exponent): 10.0**exponent for exponent in between}
    ticks = decades | ends
    axis = _axis(pd.Series(exponents, name=values.name))
    return axis | {"tickvals": list(ticks), "ticktext": [f"{value:.3g}" for value in ticks.values()]}
