"""What a comparison of two registered versions shows: its report, and what of it goes to a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuner.evaluation.comparison import NOISE, Comparison, Decision
from tuner.reports.markdown import markdown_table, markdown_text
from tuner.tracking import names
from tuner.tracking.run_log import RunLog

_ROWS_SHOWN = 50


def log_version_comparison(
    run: RunLog,
    comparison: Comparison,
    decision: Decision,
    *,
    champion: str,
    challenger: str,
    notes: Sequence[str],
) -> None:
    """Log a comparison to a run: figures, report and the images on which the models differ.

    Parameters
    ----------
    champion, challenger
        The versions' numbers.
    notes
        Sentences on the test images that are not part of the comparison.
    """
    title = f"Version {challenger} against version {champion}"
    figures = comparison.to_dict() | {"passed": decision.passed, "reasons": list(decision.reasons)}
    versions = {"champion_version": champion, "challenger_version": challenger}
    run.json(figures | versions, names.COMPARISON_DATA_FILE)
    run.text(report_markdown(comparison, decision, title=title, notes=notes), names.COMPARISON_FILE)
    run.table(comparison.disagreements, names.DISAGREEMENTS_FILE)
    models = {"champion": comparison.champion, "challenger": comparison.challenger}
    metrics = {f"{who}_{name}": v for who, e in models.items() for name, v in e.metrics.items()}
    run.batch(
        params=versions,
        metrics=metrics
        | {"gain": comparison.gain, "mcnemar_p": comparison.p_value, "gain_p": comparison.gain_p_value},
    )


def report_markdown(comparison: Comparison, decision: Decision, *, title: str, notes: Sequence[str]) -> str:
    """Give the report that a person reads: both models' metrics, the tests, the images they differ on."""
    before, after = comparison.champion.metrics, comparison.challenger.metrics
    low, high = comparison.interval
    differ = comparison.disagreements
    lines = [
        f"# {markdown_text(title)}",
        "",
        f"**{'Passed' if decision.passed else 'Not passed'}**: {markdown_text(str(decision))}.",
        "",
        f"Compared on {comparison.images} images of the champion's test part.",
        *map(markdown_text, notes),
        "",
        *markdown_table(
            ("metric", "champion", "challenger"),
            [(name, *(_value(metrics, name) for metrics in (before, after))) for name in before | after],
        ),
        "",
        f"- Gain in {comparison.metric}: {comparison.gain:+.4f}, 95 % bootstrap interval "
        f"{low:+.4f} to {high:+.4f}.",
        f"- Right alone: the champion on {comparison.champion_only} images, the challenger on "
        f"{comparison.challenger_only}; McNemar's exact test: p = {comparison.p_value:.3g}.",
        f"- {_noise(comparison)}",
        "",
        *_recall_table(comparison),
        "",
        f"## {len(differ)} images on which they differ",
        "",
    ]
    if len(differ):
        head = ("image", "class", "champion", "challenger")
        lines += markdown_table(head, differ.head(_ROWS_SHOWN).to_numpy())
    if len(differ) > _ROWS_SHOWN:
        lines += ["", f"And {len(differ) - _ROWS_SHOWN} more: see the table of disagreements."]
    return "\n".join(lines) + "\n"


def _value(metrics: Mapping[str, float], name: str) -> str:
    """A metric's value; nothing where the classifier gives none, for it has no probabilities."""
    return f"{metrics[name]:.4f}" if name in metrics else "–"


def _noise(comparison: Comparison) -> str:
    """Whether the difference may be chance, in a sentence."""
    p_value = f"p = {comparison.gain_p_value:.3g}"
    if not comparison.within_noise:
        return f"The difference in {comparison.metric} is more than noise: {p_value}."
    return (
        f"The difference in {comparison.metric} is within noise: models that are equally good differ by as "
        f"much on so many images in more than {NOISE:.0%} of cases ({p_value})."
    )


def _recall_table(comparison: Comparison) -> list[str]:
    """By class, how recall changed; of many classes, those where it changed most."""
    counts = dict(zip(comparison.champion.labels, comparison.champion.confusion.sum(axis=1), strict=True))
    changes = list(comparison.recall_change.items())
    shown = changes
    if len(changes) > _ROWS_SHOWN:
        shown = sorted(changes, key=lambda change: -abs(change[1]))[:_ROWS_SHOWN]
    rows = [(label, counts[label], f"{by:+.4f}") for label, by in shown]
    table = markdown_table(("class", "images", "change of recall"), rows)
    if len(shown) < len(changes):
        table += ["", f"These are the {len(shown)} of {len(changes)} classes whose recall changed most."]
    return table
