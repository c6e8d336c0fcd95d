"""What a spot-check shows: a ranked table, a heat map, and `final_report.json` as its source has it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tuner.base.choices import LOWER_IS_BETTER
from tuner.base.errors import SearchError
from tuner.experiment.schema import Experiment
from tuner.preparation.images import PreparedImages
from tuner.reports.pages import figure_html
from tuner.reports.search import log_prepared
from tuner.tracking import names
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import RunLog

_OF_SKLEARN = "sklearn."
_SETTINGS = ("parallelism", "seed", "metric", "class_weight")


def log_spot_check_data(
    run: RunLog, experiment: Experiment, prepared: PreparedImages, spots: Sequence[str]
) -> None:
    """Log what a spot-check reads and tries, before its first trial."""
    log_prepared(run, prepared)
    run.json({"backbone": list(prepared.networks), "classifiers": list(spots)}, names.SPACE_FILE)
    settings = {name: getattr(experiment.search, name) for name in _SETTINGS}
    settings |= {"images": experiment.images, "validation": experiment.split.validation}
    settings["backbone"] = ",".join(prepared.networks)
    run.batch(
        params={f"search.{name}": value for name, value in settings.items()},
        metrics={"images": len(prepared.index), "quarantined": len(prepared.quarantine)},
        tags={names.DATA_DIGEST: prepared.digest},
    )


def log_spot_check(
    run: RunLog, results: Sequence[TrialResult], spots: Sequence[str], metric: str
) -> pd.DataFrame:
    """Log what the combinations show together; gives the ranked table, one row a combination.

    Parameters
    ----------
    results
        Those of the trials.
    spots
        What was tried, by the number of the trial, from 1.

    Raises
    ------
    SearchError
        None of them succeeded.
    """
    if not any(result.finished for result in results):
        reasons = sorted({result.reason for result in results if result.reason})
        raise SearchError(
            f"None of the {len(results)} combinations succeeded: {'; '.join(reasons[:3])} (see "
            f"{names.ERROR_FILE} in the trials' runs)."
        )
    table = ranked_table(results, spots, metric)
    run.table(table, names.SPOT_CHECK_FILE)
    run.json(final_report(table), names.FINAL_REPORT_FILE)
    run.text(figure_html(heat_map(table, metric), seconds_figure(table, metric)), names.SPOT_CHECK_CHARTS)
    best = table.iloc[0]
    run.batch(
        params={"best_backbone": best["backbone"], "best_classifier": best["classifier"]},
        metrics={
            f"best_{metric}": float(best[metric]),
            "failed": int((table["status"] != "FINISHED").sum()),
        },
        tags={names.BEST: str(best["trial"])},
    )
    return table


def ranked_table(results: Sequence[TrialResult], spots: Sequence[str], metric: str) -> pd.DataFrame:
    """List the combinations best first, of equals the quicker one; failed ones last, with their reasons.

    Returns
    -------
    pandas.DataFrame
        `rank` (empty where it failed), `backbone`, `classifier` (as it was tried), the metrics, `seconds`
        of the fits, `status`, `reason`, `trial`, `run_id`.
    """
    rows: list[dict[str, Any]] = [
        {
            "backbone": result.params.backbone,
            "classifier": spots[result.trial - 1],
            metric: result.metrics.get(metric),
            **result.metrics,
            "seconds": result.metrics.get("fit_seconds"),
            "status": "FINISHED" if result.finished else "FAILED",
            "reason": result.reason,
            "trial": result.trial,
            "run_id": result.run_id,
        }
        for result in results
    ]
    frame = pd.DataFrame(rows).drop(columns="fit_seconds", errors="ignore")
    worst_first = metric not in LOWER_IS_BETTER
    ordered = frame.sort_values([metric, "seconds", "trial"], ascending=[not worst_first, True, True])
    ordered = ordered.reset_index(drop=True)
    finished = int((ordered["status"] == "FINISHED").sum())
    ranks = pd.Series(range(1, finished + 1), dtype="Int64").reindex(range(len(ordered)))
    ordered.insert(0, "rank", ranks)
    return ordered


def report_name(spot: str) -> str:
    """What the source's report calls a classifier: scikit-learn's go without the library."""
    return spot.removeprefix(_OF_SKLEARN) if spot.startswith(_OF_SKLEARN) else f"MLlib-{spot}"


def final_report(table: pd.DataFrame) -> dict[str, Any]:
    """The report in its source's layout: by features' file each classifier's accuracy, and the best."""
    finished = table[table["status"] == "FINISHED"]
    report: dict[str, Any] = {}
    for backbone, group in finished.groupby("backbone", sort=True):
        scores = {
            report_name(str(spot)): float(value)
            for spot, value in zip(group["classifier"], group["accuracy"], strict=True)
        }
        report[f"features-{backbone}.h5"] = {"extractor": str(backbone), **scores}
    best = finished.loc[finished["accuracy"].idxmax()]
    return report | {
        "best_model": report_name(str(best["classifier"])),
        "best_accuracy": float(best["accuracy"]),
        "best_features": f"features-{best['backbone']}.h5",
    }


def heat_map(table: pd.DataFrame, metric: str) -> go.Figure:
    """Draw networks × classifiers, the best of both first; what failed stays blank, with its reason."""
    values = table.pivot(index="classifier", columns="backbone", values=metric)
    lower = metric in LOWER_IS_BETTER
    best_of = "min" if lower else "max"
    rows = values.agg(best_of, axis=1).sort_values(ascending=lower, na_position="last").index
    columns = values.agg(best_of, axis=0).sort_values(ascending=lower, na_position="last").index
    values = values.loc[rows, columns]
    told = {(row["classifier"], row["backbone"]): _told(row, metric) for row in table.to_dict("records")}
    texts = [[told.get((row, column), "not tried") for column in columns] for row in rows]
    heatmap = go.Heatmap(
        x=[html.escape(str(name)) for name in columns],
        y=[html.escape(str(name)) for name in rows],
        z=values.to_numpy(dtype=float),
        text=texts,
        texttemplate="%{z:.3f}",
        hovertemplate="%{y} on %{x}<br>%{text}<extra></extra>",
        colorscale="Viridis",
        reversescale=lower,
        colorbar={"title": metric},
        xgap=1,
        ygap=1,
        hoverongaps=True,
    )
    figure = go.Figure([heatmap], layout={"template": "plotly_white"})
    figure.update_layout(
        title={"text": f"{metric} in validation: networks × classifiers"}, height=200 + 20 * len(rows)
    )
    figure.update_xaxes(type="category", automargin=True, side="top")
    return figure.update_yaxes(type="category", autorange="reversed", automargin=True, dtick=1)


def _told(row: Mapping[str, Any], metric: str) -> str:
    if row["status"] != "FINISHED":
        return f"failed: {html.escape(str(row['reason']))}"
    return f"{metric} {row[metric]:.4f}, fitted in {row['seconds']:.2f} s"


def seconds_figure(table: pd.DataFrame, metric: str) -> go.Figure:
    """Draw each combination's score over the seconds of its fits."""
    figure = go.Figure(layout={"template": "plotly_white", "title": {"text": f"{metric} and seconds"}})
    for backbone, group in table[table["status"] == "FINISHED"].groupby("backbone"):
        figure.add_scatter(
            x=np.maximum(group["seconds"].astype(float), 1e-4),
            y=group[metric],
            mode="markers",
            name=html.escape(str(backbone)),
            text=[html.escape(str(name)) for name in group["classifier"]],
            hovertemplate=f"%{{text}}<br>{metric} %{{y:.4f}}, %{{x:.2f}} s",
        )
    figure.update_xaxes(type="log", title="seconds of the fits")
    return figure.update_yaxes(title=metric)
