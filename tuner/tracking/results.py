"""A trial's result: made on the worker, kept by hyperopt as plain data, read back from MLflow's runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow.entities import Run

from tuner.base.choices import loss_of
from tuner.classifiers.parameters import TrialParams
from tuner.tracking import names

# hyperopt's own words for a document's result; hyperopt itself is not imported for them.
_OK, _FAIL = "ok", "fail"
SEE_ERROR_FILE = f"see {names.ERROR_FILE}"


@dataclass(frozen=True)
class TrialResult:
    """What one trial came to.

    Attributes
    ----------
    trial
        Its number within the search, from 1.
    params
        What it fitted with.
    name
        Its run's name.
    run_id
        Its run's id; None where it failed before MLflow had one.
    metrics
        On the validation data; empty where it failed.
    seconds
        How long it took; None where it failed.
    reason
        Why it failed; None where it did not.
    unsent
        Whether its run waits on disk, for the MLflow server was gone (`tuner.tracking.unsent_trials`).
    """

    trial: int
    params: TrialParams
    name: str
    run_id: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    reason: str | None = None
    unsent: bool = False

    @property
    def finished(self) -> bool:
        """Whether it came to a score."""
        return self.reason is None

    def loss(self, metric: str) -> float:
        """What the search minimises."""
        return loss_of(metric, self.metrics[metric])

    def to_document(self, metric: str) -> dict[str, Any]:
        """The result as hyperopt keeps it: plain data, with its `status` and `loss`."""
        scored = {"status": _OK, "loss": self.loss(metric)} if self.finished else {"status": _FAIL}
        return scored | {"result": vars(self) | {"params": self.params.to_dict()}}

    @classmethod
    def of_document(cls, result: Mapping[str, Any]) -> TrialResult | None:
        """Read what `to_document` gave; None for the result of a trial that never came to one."""
        data = result.get("result")
        return None if data is None else cls(**{**data, "params": TrialParams.from_point(data["params"])})

    @classmethod
    def of_run(cls, run: Run, metric: str) -> TrialResult | None:
        """Read a trial's run; None if the trial did not come to its end."""
        metrics = {name: value for name, value in run.data.metrics.items() if name != names.HISTORY}
        try:
            params = TrialParams.from_point(run.data.params)
        except KeyError:  # it ended before it said them
            return None
        number, name, run_id = int(run.data.tags[names.TRIAL]), run.info.run_name, run.info.run_id
        if run.info.status == "FAILED":
            return cls(number, params, name, run_id, reason=SEE_ERROR_FILE)
        if run.info.status != "FINISHED" or metric not in metrics:
            return None
        return cls(number, params, name, run_id, metrics, (run.info.end_time - run.info.start_time) / 1000)

    def row(self) -> dict[str, Any]:
        """The result as a row of the table of trials."""
        return {
            "trial": self.trial,
            "run_id": self.run_id,
            **self.params.to_dict(),
            "status": "FINISHED" if self.finished else "FAILED",
            **self.metrics,
            "seconds": self.seconds,
        }
