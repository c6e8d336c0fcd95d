"""A pipeline saved as MLlib saves it, without a Spark job for the parameters of each Python stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyspark.ml import PipelineModel
from pyspark.ml.pipeline import PipelineModelWriter

_SCHEME = "file://"


def save_pipeline(pipeline: PipelineModel, folder: Path) -> None:
    """Save a pipeline to a new folder, which this process and Spark's executors must both see.

    `PipelineModel.load` reads it. `pipeline.write()` does the same in more jobs; on Spark Connect it takes
    no session, so its writer is made here.
    """
    writer = PipelineModelWriter(pipeline)
    writer.session(_MetadataFiles(writer.sparkSession))  # type: ignore[arg-type]
    writer.save(f"{_SCHEME}{folder.absolute()}")  # as Spark reads it: nothing is percent-encoded


class _MetadataFiles:
    """A session for MLlib's writers that writes what they write as text by itself.

    Each Python stage, and the pipeline, writes its parameters as a data frame of one row: a job of a tenth
    of a second, for a line of JSON. Only that is covered; the rest is the session's own.
    """

    def __init__(self, covered: Any) -> None:
        self._covered = covered

    def __getattr__(self, name: str) -> Any:
        return getattr(self._covered, name)

    def createDataFrame(self, rows: Sequence[tuple[str]], schema: Sequence[str]) -> _Lines:
        """Take the rows that a writer is about to write, one text each."""
        return _Lines([row[0] for row in rows])


class _Lines:
    """As much of a data frame and its writer as `DefaultParamsWriter.saveMetadata` calls."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines

    def coalesce(self, _: int) -> _Lines:
        return self

    @property
    def write(self) -> _Lines:
        return self

    def text(self, uri: str) -> None:
        folder = Path(uri.removeprefix(_SCHEME))
        folder.mkdir(parents=True)
        content = "".join(f"{line}\n" for line in self._lines)
        (folder / "part-00000.txt").write_text(content, encoding="utf-8")
        (folder / "_SUCCESS").touch()
