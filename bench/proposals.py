"""What TPE is worth in searches as short as the shipped ones: its best trial beside random search's."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from hyperopt import STATUS_OK, Trials, fmin
from report import machine, spread, table
from rich.console import Console

from tuner.classifiers.parameters import TrialParams
from tuner.evaluation.metrics import evaluate
from tuner.experiment.file import read_experiment
from tuner.experiment.schema import Experiment
from tuner.experiment.search import SearchSettings
from tuner.extraction.cache import FeatureCache
from tuner.images.splits import VALIDATION
from tuner.preparation.images import prepare_images
from tuner.preparation.matrices import FeatureMatrices, write_matrices
from tuner.spark.sessions import driver_session
from tuner.trials.space import WithoutRepeats, hyperopt_space
from tuner.trials.worker_fit import WorkerFits

METRIC = "logLoss"


def best_of(search: SearchSettings, matrices: FeatureMatrices, labels: tuple[str, ...]) -> float:
    """Run a search's trials in this process, one after the other; the least validation loss."""

    def objective(point: dict[str, Any]) -> dict[str, Any]:
        fits = WorkerFits(matrices, TrialParams.from_point(point), len(labels), "none", 2, 1)
        scored = fits.fit_and_score(VALIDATION).scored
        loss = evaluate(scored.label_index, scored.scores, labels).metrics[METRIC]
        return {"loss": loss, "status": STATUS_OK}

    trials = Trials()
    fmin(
        objective,
        hyperopt_space(search),
        algo=WithoutRepeats(search),
        max_evals=search.max_evals,
        trials=trials,
        rstate=np.random.default_rng(search.seed),
        show_progressbar=False,
        verbose=False,
        return_argmin=False,
    )
    return min(trials.losses())


def measure(experiment: Experiment, seeds: int, folder: Path) -> dict[str, list[float]]:
    """Extract once, then search with each algorithm from each seed."""
    cache = FeatureCache(folder / "cache")
    with driver_session("proposals", 1) as session:
        prepared = prepare_images(session, experiment, cache, Console(quiet=True))
        matrices = write_matrices(cache, prepared, folder / "features")
    found: dict[str, list[float]] = {"random": [], "tpe": []}
    for seed in range(seeds):
        for algorithm, losses in found.items():
            update = {"seed": seed, "algorithm": algorithm, "metric": METRIC}
            losses.append(best_of(experiment.search.model_copy(update=update), matrices, prepared.labels))
    return found


def main(
    experiments: Annotated[list[Path], typer.Argument(help="Experiment files, ranked on a holdout part.")],
    images: Annotated[str, typer.Option(help="Another source of the images.")] = "",
    backbone: Annotated[str, typer.Option(help="Other backbones, separated by commas.")] = "",
    seeds: Annotated[int, typer.Option(help="Searches with each algorithm.")] = 20,
) -> None:
    print(*machine(), sep="\n")
    rows = []
    for file in experiments:
        experiment = read_experiment(
            file, {"images": images, "backbone": backbone, "validation": "holdout"}
        )
        with tempfile.TemporaryDirectory() as folder:
            found = measure(experiment, seeds, Path(folder))
        better = sum(tpe < rand for tpe, rand in zip(found["tpe"], found["random"], strict=True))
        means = [statistics.mean(found[name]) for name in ("random", "tpe")]
        rows.append([experiment.name, experiment.search.max_evals, *(f"{mean:.4f}" for mean in means)])
        rows[-1] += [spread(found["random"], ".4f"), spread(found["tpe"], ".4f"), f"{better} of {seeds}"]
    head = ["", "trials", "random, mean", "TPE, mean", "random, median", "TPE, median", "TPE is better"]
    print(table(head, rows))


if __name__ == "__main__":
    typer.run(main)
