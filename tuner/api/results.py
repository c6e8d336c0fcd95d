"""`tuner.SearchResult`: what a search came to, for programs and for the eyes of a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tuner.api.guest import as_it_was
from tuner.classifiers.parameters import described

if TYPE_CHECKING:  # imports take seconds, in which Spark starts
    import pandas as pd

    from tuner.api.models import Model
    from tuner.evaluation.metrics import Evaluation
    from tuner.registry.versions import RegisteredVersion
    from tuner.searches.search import SearchOutcome
    from tuner.searches.winner import Winner
    from tuner.tracking.store import Tracking

_SHOWN = 10  # trials in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class SearchResult:
    """What a search came to; it knows where MLflow has it, whatever the working folder is later.

    Attributes
    ----------
    name
        The search's.
    metric
        What trials were ranked by.
    run_id
        The MLflow run that holds the trials' runs.
    trials
        One row a trial: trial, run_id, status, parameters, metrics, seconds.
    best
        The trial that won, fitted anew: trial, run_id, name, params, metrics, test, and its registered
        version.
    extracted
        The images that were not cached, each counted once for each network.
    tracking
        The MLflow store, and the experiment that holds the run.
    """

    name: str
    metric: str
    run_id: str
    trials: pd.DataFrame
    best: Winner
    extracted: int
    tracking: Tracking

    @classmethod
    def of(cls, done: SearchOutcome) -> SearchResult:
        """Take what a search came to.

        Parameters
        ----------
        done
            As `tuner.searches.search.run_search` gives it.
        """
        experiment = done.experiment
        return cls(
            experiment.name,
            experiment.search.metric,
            done.run_id,
            done.trials,
            done.winner,
            done.extracted,
            done.store,
        )

    def __repr__(self) -> str:
        """The winner and what it is worth, in a line."""
        score, test = self.best.metrics[self.metric], self.test.metrics[self.metric]
        return (
            f"SearchResult({self.name}: {len(self.trials)} trials, best {self.best.name}, {self.metric} "
            f"{score:.4f} in validation and {test:.4f} on the test part, {self.best.version.uri})"
        )

    @property
    def experiment_id(self) -> str:
        """The MLflow experiment that holds the run."""
        return self.tracking.experiment_id

    @property
    def url(self) -> str | None:
        """Where MLflow's UI shows the trials; of a store without a server, while `tuner ui` runs."""
        from tuner.tracking.views import runs_link

        return runs_link(self.tracking, "search")

    @property
    def test(self) -> Evaluation:
        """What the winner is worth on the test part: `metrics`, `confusion`, `report`, `labels`."""
        return self.best.test

    @cached_property
    def model(self) -> Model:
        """The winner, loaded without Spark."""
        version = self.best.version
        return open_model(f"models:/{version.name}/{version.version}", self.tracking)

    def plot_history(self) -> Any:
        """Draw each trial's score by its number, and the best so far: a plotly figure."""
        from tuner.reports.charts import optimisation_history

        return optimisation_history(self.trials, self.metric)

    def plot_confusion(self) -> Any:
        """Draw the winner's confusion matrix on the test part: a plotly figure."""
        from tuner.reports.charts import confusion_figure

        return confusion_figure(self.test)

    def plot_importance(self) -> Any:
        """Draw which parameters decide the score: a plotly figure."""
        from tuner.reports.charts import parameter_importance

        return parameter_importance(self.trials, self.metric)

    @as_it_was()
    def register(self, name: str, *, alias: str = "champion", stage: str = "Staging") -> RegisteredVersion:
        """Register the winner under one more name; the search has registered it under its own.

        It is the champion where no version of this name is; else it is the challenger, and `tuner.promote`
        compares the two.

        Parameters
        ----------
        name
            Of the registered model.
        alias
            The champion's.
        stage
            The champion's: ``None``, ``Staging``, ``Production`` or ``Archived``.

        Returns
        -------
        RegisteredVersion
            The version as it stands: `name`, `version`, `alias`, `stage`, `uri`.

        Raises
        ------
        ExperimentError
            Name, alias or stage is none that a model may have.
        TrackingError
            The registry refuses it, or does not answer.
        """
        from tuner.experiment.file import registry_of
        from tuner.registry.promotion import register_copy

        self.tracking.make_current()
        return register_copy(self.tracking, self.best.version, registry_of(name, alias, stage))

    def _repr_html_(self) -> str:
        """The winner, its test and the best trials, as a notebook shows them."""
        best, version = self.best, self.best.version
        facts = {
            "winner": f"{best.name}: {best.params.backbone}, {described(best.params.to_dict())}",
            "validation": f"{self.metric} {best.metrics[self.metric]:.4f}",
            "test": ", ".join(f"{name} {value:.4f}" for name, value in self.test.metrics.items()),
            "model": f"{version.uri}, version {version.version}, stage {version.stage}",
            "run": f"{self.run_id} in {self.tracking.uri.partition('?')[0]}",
        }
        left = "style='text-align:left'"
        rows = [
            f"<tr><th {left}>{head}</th><td {left}>{html.escape(said)}</td></tr>"
            for head, said in facts.items()
        ]
        return f"<h4>{html.escape(self.name)}</h4><table>{''.join(rows)}</table>{self._best_trials()}"

    def _best_trials(self) -> str:
        from tuner.reports.charts import leaderboard

        ranked = leaderboard(self.trials, self.metric)
        best = ranked.head(_SHOWN).drop(columns="run_id", errors="ignore")
        shown: str = best.to_html(index=False, na_rep="")
        more = len(ranked) - _SHOWN
        return shown + (f"<p>and {more} more: see trials</p>" if more > 0 else "")


@as_it_was()
def open_model(uri: str, tracking: Tracking) -> Model:
    """Load a model of this store without Spark."""
    from tuner.api.models import Model

    tracking.make_current()
    return Model.of(uri)
