"""A model's card in Markdown: its data, what it is worth, where it comes from and how to call it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from tuner.base.choices import ScoreKind
from tuner.evaluation.metrics import Evaluation
from tuner.images.splits import TEST
from tuner.networks.table import NETWORKS
from tuner.reports.markdown import markdown_table, markdown_text

_NO_PROBABILITY = (
    "- It gives no probabilities: its answers have `decision`, of each class a value of any size, "
    "the greatest of which decides."
)
DESCRIPTION_LENGTH = 5_000  # what MLflow's registry keeps of a version's description


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What a card tells of a registered version.

    Attributes
    ----------
    name, version, alias
        The registered model, its version's number, and the alias of versions in use.
    images, data_digest, split
        Where the images came from, what stands for them, and one row an image with `label` and `part`.
    network, own_network
        The backbone's name, and whether it is a file of the user's own; its licence is known otherwise.
    kind, gives
        What it is, up to its classes, and whether its scores are probabilities.
    chosen, validation
        The parameters that won, as text, and what they scored: metric, value.
    test
        What the model is worth on the test part.
    """

    name: str
    version: str
    alias: str
    images: str
    data_digest: str
    split: pd.DataFrame
    network: str
    own_network: bool
    kind: str
    gives: ScoreKind
    chosen: str
    validation: tuple[str, float]
    test: Evaluation


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Give Wilson's 95 % interval of a share."""
    interval = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def model_card(facts: ModelFacts) -> str:
    """Write the whole card."""
    return _join([*_head(facts), *_data(facts), *_metrics(facts), *_confusion(facts), *_use(facts)])


def short_card(facts: ModelFacts) -> str:
    """Write the card for the registry, in at most `DESCRIPTION_LENGTH` characters.

    Where the whole is too long the confusion matrix goes first, then the table of classes, then all but
    the head.
    """
    head, figures, use = _head(facts), _metrics(facts), _use(facts)
    pointer = ["", "The whole card is `model_card.md` of the search's run."]
    shorter = (
        [*head, *_data(facts), *figures, *use, *pointer],
        [*head, *figures, *use, *pointer],
        [*head, *pointer],
    )
    for text in (model_card(facts), *map(_join, shorter)):
        if len(text) <= DESCRIPTION_LENGTH:
            return text
    return text[: DESCRIPTION_LENGTH - 1] + "…"


def _join(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _head(facts: ModelFacts) -> list[str]:
    metric, value = facts.validation
    hits, total = int(np.trace(facts.test.confusion)), int(facts.test.confusion.sum())
    low, high = wilson(hits, total)
    without = [] if facts.gives == "probability" else [_NO_PROBABILITY]
    return [
        f"# {markdown_text(facts.name)}, version {facts.version}",
        "",
        f"An image classifier of {len(facts.test.labels)} classes: {facts.kind}. It "
        f"calls {hits} of {total} test images right: "
        f"accuracy {hits / total:.4f}, 95 % interval {low:.4f} to {high:.4f} (Wilson's).",
        "",
        f"- Backbone: {markdown_text(facts.network)}, {_licence(facts)}.",
        f"- Parameters: {facts.chosen or 'as the library has them'}; {metric} {value:.4f} in validation.",
        f"- Images: {markdown_text(facts.images)} (digest {facts.data_digest}).",
        *without,
    ]


def _licence(facts: ModelFacts) -> str:
    network = NETWORKS.get(facts.network)
    if facts.own_network or network is None:
        return "a network of your own, under your terms"
    return f"whose published weights are licensed {network.licence}"


def _data(facts: ModelFacts) -> list[str]:
    """Count the images of each class, and how many of its test images are called right."""
    test = facts.split["part"] == TEST
    used = facts.split.assign(used=np.where(test, "test", "training"))
    counts = used.groupby(["label", "used"]).size().unstack(fill_value=0)
    rows = []
    for position, label in enumerate(facts.test.labels):
        total = int(facts.test.confusion[position].sum())
        hits = int(facts.test.confusion[position, position])
        recall = "{:.3f} ({:.3f} to {:.3f})".format(hits / total, *wilson(hits, total)) if total else ""
        rows.append((label, counts["training"].get(label, 0), counts["test"].get(label, 0), recall))
    head = ("class", "training and validation", "test", "recall (95 % interval, Wilson's)")
    return ["", "## Classes", "", *markdown_table(head, rows)]


def _metrics(facts: ModelFacts) -> list[str]:
    rows = [(name, f"{value:.4f}") for name, value in facts.test.metrics.items()]
    return ["", "## On the test images", "", *markdown_table(("metric", "value"), rows)]


def _confusion(facts: ModelFacts) -> list[str]:
    labels = facts.test.labels
    rows = [(label, *counts) for label, counts in zip(labels, facts.test.confusion.tolist(), strict=True)]
    return ["", "Rows are true classes, columns predicted ones:", "", *markdown_table(("", *labels), rows)]


def _use(facts: ModelFacts) -> list[str]:
    uri = f"models:/{facts.name}/{facts.version}"
    quoted = shlex.quote(uri)
    body = (
        """'{"dataframe_split": {"columns": ["content"], "data": [["%s"]]}}' "$(base64 -w 0 IMAGE.jpg)\""""
    )
    return [
        "",
        "## How to call it",
        "",
        f"Version {facts.version} is `{uri}`; `models:/{facts.name}@{facts.alias}` is the version in use.",
        "",
        "```sh",
        f"tuner predict {quoted} IMAGE.jpg",
        f"mlflow models serve -m {quoted} -p 5001 --env-manager local",
        f"printf {body} |",
        "  curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d @-",
        "```",
        "",
        "```python",
        "import mlflow, pandas",
        "",
        f"model = mlflow.pyfunc.load_model({uri!r})",
        'model.predict(pandas.DataFrame({"content": [open("IMAGE.jpg", "rb").read()]}))',
        "```",
    ]
