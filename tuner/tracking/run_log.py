"""What is written to one MLflow run, and an artifact read back; on the driver and on workers."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError

from tuner.base.errors import TrackingError
from tuner.tracking.store import Tracking, bounded_requests, reason


class RunLog:
    """What is written to one MLflow run, by its id: no run is active, so threads and workers may share.

    Parameters
    ----------
    client
        A client of the store that holds the run.
    run_id
        The run's id.
    earlier
        The run as it was, if it is taken up again: MLflow changes no parameter and appends to tables.
    """

    def __init__(self, client: MlflowClient, run_id: str, earlier: Run | None = None) -> None:
        self._client = client
        self.run_id = run_id
        self._params: Mapping[str, str] = earlier.data.params if earlier else {}
        self._resumed = earlier is not None

    def batch(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, Any] | None = None,
        histories: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Write parameters, metrics, tags and stepped metrics (`histories`) in one request.

        A parameter that the run has with another value becomes a tag.
        """
        given = {key: str(value) for key, value in (params or {}).items()}
        changed = {key: value for key, value in given.items() if self._params.get(key, value) != value}
        now = int(time.time() * 1000)
        values = [Metric(key, float(value), now, 0) for key, value in (metrics or {}).items()]
        for key, history in (histories or {}).items():
            values += [Metric(key, float(value), now, step) for step, value in enumerate(history)]
        self._client.log_batch(
            self.run_id,
            metrics=values,
            params=[Param(key, value) for key, value in given.items() if key not in changed],
            tags=[RunTag(key, str(value)) for key, value in {**changed, **(tags or {})}.items()],
        )

    def text(self, text: str, file: str) -> None:
        """Write a text artifact."""
        self._client.log_text(self.run_id, text, file)

    def json(self, data: Any, file: str) -> None:
        """Write a JSON or YAML artifact, by the ending of `file`."""
        self._client.log_dict(self.run_id, data, file)

    def table(self, frame: pd.DataFrame, file: str) -> None:
        """Write a table that MLflow's UI shows as one; one that is there is replaced."""
        folder = Path(file).parent.name or None
        if self._resumed and file in [
            known.path for known in self._client.list_artifacts(self.run_id, folder)
        ]:
            self.json(json.loads(frame.to_json(orient="split", index=False)), file)
        else:
            self._client.log_table(self.run_id, frame, file)

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


def read_artifact(tracking: Tracking, run_id: str, file: str, folder: Path) -> Path:
    """Fetch an artifact of a run into `folder`.

    Raises
    ------
    TrackingError
        The run has no such artifact, or the store does not answer.
    """
    try:
        with bounded_requests():
            return Path(tracking.client().download_artifacts(run_id, file, str(folder)))
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(f"The run {run_id} has no {file} that can be read: {reason(error)}.") from error
