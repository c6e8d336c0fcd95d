"""What MLflow's UI shows of searches: their names, a view with parameters and metrics, and its link.

MLflow keeps a view as a tag of its experiment and opens it by an address. Neither has a public name, nor a
description: `tests/product/test_ui.py` opens one in a browser.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from mlflow.utils import name_utils

from tuner.base.choices import LOWER_IS_BETTER, Metric
from tuner.base.machine import UI_PORT
from tuner.classifiers.parameters import BACKBONE, CLASSIFIER
from tuner.tracking import names
from tuner.tracking.runs import found_runs
from tuner.tracking.store import Tracking

_TAG = "mlflow.sharedViewState."
_TRAINING = {"workflowType": "machine_learning"}  # the UI begins with its other half, for language models
_SECTION, _DRAWN = "trials", 20  # of charts; MLflow draws the first 10 or 20 runs
_DOT = " · "
_OTHERS = ("accuracy", "f1", "logLoss")


def name_search(store: Tracking, run_id: str, experiment: str, result: str) -> None:
    """Let the name of a search's run say what came of it, unless somebody gave it one.

    Parameters
    ----------
    store, run_id
        The run.
    experiment
        The search's name.
    result
        What came of it, in a few words.
    """
    client = store.client()
    name = client.get_run(run_id).info.run_name
    if name == experiment or name.startswith(f"{experiment}{_DOT}") or is_generated(name):
        client.update_run(run_id, name=f"{experiment}{_DOT}{result}")


def is_generated(name: str) -> bool:
    """Whether MLflow made up a run's name, ``aged-ox-796``; its words have no public name."""
    predicate, _, rest = name.partition("-")
    noun, _, number = rest.partition("-")
    words = name_utils._GENERATOR_PREDICATES, name_utils._GENERATOR_NOUNS
    return predicate in words[0] and noun in words[1] and number.isdecimal()


def write_view(store: Tracking, kind: str, metric: Metric, parameters: Sequence[str]) -> None:
    """Give the experiment a view: runs, best first, their parameters and metrics in columns and in charts.

    One that somebody changed in the UI stays as it is.

    Parameters
    ----------
    store
        With the experiment.
    kind
        Of the runs, and the view's key.
    metric
        What runs are sorted by.
    parameters
        The names of the parameters to show.
    """
    client, tag = store.client(), f"{_TAG}{kind}"
    if _is_changed(client.get_experiment(store.experiment_id).tags.get(tag)):
        return
    metrics = [metric, *(name for name in _OTHERS if name != metric)]
    columns = [f"params.`{name}`" for name in parameters] + [f"metrics.`{name}`" for name in metrics]
    state = {
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": metric in LOWER_IS_BETTER,
        "selectedColumns": [*columns, "attributes.`Models`"],
        "runsHiddenMode": f"FIRST_{_DRAWN}_RUNS",
        "compareRunSections": [{"uuid": _SECTION, "name": "Trials", "display": True, "isReordered": True}],
        "compareRunCharts": list(_charts(metric, parameters)),
    }
    now = int(time.time() * 1000)
    view = {"name": f"{kind}: best {metric} first", "createdAt": now, "updatedAt": now}
    view["state"] = json.dumps(state)
    client.set_experiment_tag(store.experiment_id, tag, json.dumps(view))


def _charts(metric: str, parameters: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The charts beside the list: parameters with scores, scores, and confusion matrices side by side."""
    # A run that lacks one of them is not drawn.
    of_all = [name for name in parameters if CLASSIFIER not in parameters or name in (BACKBONE, CLASSIFIER)]
    charts: tuple[dict[str, Any], ...] = (
        {"type": "PARALLEL", "selectedParams": of_all, "selectedMetrics": [metric], "showAllRuns": False},
        {"type": "BAR", "metricKey": metric},
        {"type": "IMAGE", "imageKeys": [names.CONFUSION_IMAGE], "step": 0, "showRunParams": False},
    )
    for chart in charts:
        place = {"uuid": f"{_SECTION}-{chart['type'].lower()}", "metricSectionId": _SECTION}
        yield place | chart | {"runsCountToCompare": _DRAWN, "deleted": False, "isGenerated": False}


def _is_changed(tag: str | None) -> bool:
    try:
        view = json.loads(tag or "{}")
        return bool(view.get("createdAt") != view.get("updatedAt"))
    except (ValueError, AttributeError):
        return False


def runs_link(store: Tracking, kind: str, *, port: int = UI_PORT) -> str | None:
    """The address of an experiment's runs, as `write_view` made them to be seen.

    Of a store without a server it is where `tuner ui` shows it; of Databricks there is none.
    """
    parts = urlsplit(store.uri)
    if parts.scheme.startswith("databricks"):
        return None
    server = store.uri.rstrip("/") if parts.scheme in ("http", "https") else f"http://127.0.0.1:{port}"
    if not store.experiment_id:
        return f"{server}/#/experiments?{urlencode(_TRAINING)}"
    options = urlencode({"viewStateShareKey": kind} | _TRAINING)
    return f"{server}/#/experiments/{store.experiment_id}/runs?{options}"


def last_search(store: Tracking) -> tuple[Tracking, str]:
    """The experiment of the last search or spot-check of a store, and which of both it was.

    Without one, the experiment has no id.
    """
    experiments = [found.experiment_id for found in store.client().search_experiments()]
    last: tuple[int, str, str] = (0, "", "search")
    for kind in ("search", "spot-check"):
        for run in found_runs(store, experiments, f"tags.`{names.KIND}` = '{kind}'", "start_time DESC"):
            last = max(last, (run.info.start_time, run.info.experiment_id, kind))
            break
    return Tracking(store.uri, last[1], store.access), last[2]
