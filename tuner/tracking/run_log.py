"""What is written to one MLflow run, and an artifact read back; on the driver and on workers."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import (
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.models import Model
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS
from PIL import Image

from tuner.base.errors import TrackingError
from tuner.experiment.file import yaml_text
from tuner.tracking.answering import REFUSALS, check_answers, reason
from tuner.tracking.store import Tracking


class RunLog:
    """What is written to one MLflow run, by its id: no run is active, so threads and workers may share.

    Parameters
    ----------
    client
        A client of the store that holds the run.
    run_id, experiment_id
        The run's id, and its MLflow experiment's.
    earlier
        The run as it was, if it is taken up again: MLflow changes no parameter.
    """

    def __init__(
        self, client: MlflowClient, run_id: str, experiment_id: str, earlier: Run | None = None
    ) -> None:
        self._client = client
        self.run_id = run_id
        self._experiment_id = experiment_id
        self._params = dict(earlier.data.params) if earlier else {}
        tables = earlier.data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]") if earlier else "[]"
        self._tables: list[dict[str, str]] = json.loads(tables)

    def batch(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, Any] | None = None,
        histories: Mapping[str, Sequence[float]] | None = None,
        step: int = 0,
        model_id: str | None = None,
    ) -> None:
        """Write parameters, metrics, tags and stepped metrics (`histories`) in one request.

        `step` is that of the metrics. A parameter that the run has with another value becomes a tag.
        `model_id` is the model, if any, that
        the metrics are of, too.
        """
        given = {key: str(value) for key, value in (params or {}).items()}
        changed = {key: value for key, value in given.items() if self._params.get(key, value) != value}
        self._params = given | self._params
        now = int(time.time() * 1000)
        values = [
            Metric(key, float(value), now, step, model_id=model_id)
            for key, value in (metrics or {}).items()
        ]
        for key, history in (histories or {}).items():
            values += [Metric(key, float(value), now, step) for step, value in enumerate(history)]
        self._client.log_batch(
            self.run_id,
            metrics=values,
            params=[Param(key, value) for key, value in given.items() if key not in changed],
            tags=[RunTag(key, str(value)) for key, value in {**changed, **(tags or {})}.items()],
            synchronous=True,  # it is read back, whatever MLFLOW_ENABLE_ASYNC_LOGGING says
        )

    def text(self, text: str, file: str) -> None:
        """Write a text artifact."""
        self._client.log_text(self.run_id, text, file)

    def json(self, data: Any, file: str) -> None:
        """Write plain data as JSON."""
        self._client.log_dict(self.run_id, data, file)

    def yaml(self, data: Any, file: str) -> None:
        """Write plain data as YAML, in the dialect in which it is read."""
        self.text(yaml_text(data), file)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Give a local folder; what is in it at the end becomes artifacts of the run, in one upload."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            self._client.log_artifacts(self.run_id, folder)

    def model(self, name: str, save: Callable[[str, Model], None]) -> LoggedModel:
        """Log a model of this run, with its parameters, as `mlflow.models.Model.log` does in more requests.

        Parameters
        ----------
        name
            The model's name, which need not be unique.
        save
            A flavor's `save_model`: it writes the model's folder, given its path and MLflow's description.
        """
        logged = self._client.create_logged_model(
            self._experiment_id, name, source_run_id=self.run_id, params=self._params
        )
        self._client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        described = Model(
            artifact_path=logged.artifact_location,
            run_id=self.run_id,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            save(str(path), described)
            self._client.log_model_artifacts(logged.model_id, str(path))
        return self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)

    def table(self, frame: pd.DataFrame, file: str) -> None:
        """Write a table that MLflow's UI shows as one; one that is there is replaced."""
        self.text(table_json(frame), file)
        self.batch(tags=self.tables_tag(file))

    def tables_tag(self, file: str) -> dict[str, str]:
        """The tag by which MLflow's UI knows which of the run's artifacts are tables: this one, too.

        `MlflowClient.log_table` sets it, in five requests a table; there is no public name for it.
        """
        entry = {"path": file, "type": "table"}
        self._tables += [entry] if entry not in self._tables else []
        return {MLFLOW_LOGGED_ARTIFACTS: json.dumps(self._tables)}

    def csv(self, frame: pd.DataFrame, file: str) -> None:
        """Write a table as CSV; its line ends are quoted where a value holds one, a file's name say."""
        self.text(frame.to_csv(index=False, lineterminator="\r\n"), file)

    def image(self, image: Image.Image, key: str) -> None:
        """Write an image under a key, by which the compare page lays out runs in a grid."""
        self._client.log_image(self.run_id, image, key=key, step=0)

    def file(self, path: Path, folder: str | None = None) -> None:
        """Copy a local file into the run's artifacts."""
        self._client.log_artifact(self.run_id, str(path), folder)

    def parquet(self, frame: pd.DataFrame, file: str) -> None:
        """Write a table for programs to read."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(file).name
            frame.to_parquet(path, index=False)
            self.file(path, Path(file).parent.name or None)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: `FINISHED`, `FAILED` or `KILLED`."""
        self._client.set_terminated(self.run_id, status)


def table_json(frame: pd.DataFrame) -> str:
    """A table as MLflow stores it: what `MlflowClient.log_table` writes to a file of this ending."""
    return str(frame.to_json(orient="split", index=False, date_format="iso"))


def read_artifact(tracking: Tracking, run_id: str, file: str, folder: Path) -> Path:
    """Fetch an artifact of a run into `folder`.

    Raises
    ------
    TrackingError
        The run has no such artifact, or the store does not answer.
    """
    try:
        check_answers(tracking.uri)
        return Path(tracking.client().download_artifacts(run_id, file, str(folder)))
    except REFUSALS as error:
        raise TrackingError(f"The run {run_id} has no {file} that can be read: {reason(error)}.") from error
