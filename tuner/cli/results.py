"""What a search came to, on the screen: for people in a few lines, for scripts as JSON."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from tuner.api.results import SearchResult
    from tuner.evaluation.metrics import Evaluation
    from tuner.registry.versions import RegisteredVersion


def show_result(result: SearchResult, console: Console) -> None:
    """Print the winner, its test and how sure that is, its model, the search's run, and what comes next."""
    from tuner.classifiers.parameters import described

    winner = result.best
    version = winner.version
    console.print()
    console.print(
        f"winner   {winner.name}: {winner.params.backbone}, {described(winner.params.to_dict())}",
        soft_wrap=True,
    )
    shown = ", ".join(f"{name} {value:.4f}" for name, value in winner.test.metrics.items())
    console.print(f"test     {shown}", soft_wrap=True)
    console.print(f"         {_how_sure(winner.test)}", soft_wrap=True)
    console.print(
        model_line(version),
        soft_wrap=True,
    )
    console.print(f"run      {result.run_id} ({result.extracted} images extracted)", soft_wrap=True)
    for note in version.notes:
        console.print(note, markup=False, soft_wrap=True)
    for head, command in zip(("next", *[""] * 2), _next(result), strict=False):
        console.print(f"{head:<9}{command}", markup=False, soft_wrap=True)


def model_line(version: RegisteredVersion) -> str:
    """The line that says where a model went."""
    return (
        f"model    {version.name} version {version.version}, {version.alias}, stage {version.stage}: "
        f"{version.uri}"
    )


def version_document(version: RegisteredVersion) -> dict[str, Any]:
    """A registered version as JSON has it."""
    return {
        "name": version.name,
        "version": str(version.version),
        "alias": version.alias,
        "stage": version.stage,
        "uri": version.uri,
        "notes": list(version.notes),
    }


def _how_sure(test: Evaluation) -> str:
    from tuner.reports.model_card import wilson

    hits, total = int(test.confusion.trace()), int(test.confusion.sum())
    low, high = wilson(hits, total)
    return f"{hits} of {total} test images are called right: 95 % interval {low:.4f} to {high:.4f}"


def _next(result: SearchResult) -> list[str]:
    """Commands that go on from here."""
    from tuner.experiment.fields import CHALLENGER  # pydantic, which --help has no need of

    version = result.best.version
    commands = [f"tuner predict {shlex.quote(version.uri)} FOLDER"]
    if version.alias == CHALLENGER:
        commands.append(f"tuner registry {shlex.quote(version.name)}")
    shown = f": {result.url}" if result.url else ""
    return [*commands, f"tuner ui{shown}"]


def result_json(result: SearchResult) -> str:
    """The same for scripts, and the table of trials: one JSON object, on one line.

    What is no number, as a metric of a trial that failed, is null.
    """
    winner, version = result.best, result.best.version
    scores = {"validation": winner.metrics, "test": winner.test.metrics}
    document: dict[str, Any] = {
        "run_id": result.run_id,
        "experiment_id": result.experiment_id,
        "images_extracted": result.extracted,
        "winner": {
            "trial": winner.trial,
            "name": winner.name,
            "run_id": winner.run_id,
            "params": winner.params.to_dict(),
            **{part: numbers(found) for part, found in scores.items()},
        },
        "model": version_document(version),
        "trials": json.loads(result.trials.to_json(orient="records", double_precision=15)),
    }
    return json.dumps(document, ensure_ascii=False)


def numbers(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON knows them: none of its numbers is infinite."""
    return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
