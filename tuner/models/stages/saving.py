"""Transformers with a network as they are saved and loaded: parameters, and the network's file if asked."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.ml.util import DefaultParamsReader, MLReader, MLWriter

from tuner.base.errors import NetworkError
from tuner.base.uris import hadoop_path
from tuner.models.format import FORMAT, FORMAT_KEY, check_format
from tuner.models.mllib.files import PythonStage
from tuner.networks.onnx.session import SUFFIX, carried_files

if TYPE_CHECKING:
    from tuner.models.stages.transformer import NetworkTransformer

_FOLDER = "network"  # inside what is saved: the network, when it is carried


@dataclass(frozen=True)
class NetworkStage:
    """A transformer as it is saved: parameters, the network's identity and, if asked, its file."""

    transformer: NetworkTransformer

    @property
    def uid(self) -> str:
        """The transformer's own."""
        return str(self.transformer.uid)

    def write(self, folder: Path) -> None:
        """Write to a folder that is not there yet; needs no session."""
        identified = self.transformer.copy()
        identified.describe(self.transformer.network())
        embedded = identified.getOrDefault(identified.embedWeights)
        if not embedded:  # then there is no ONNX file, either
            identified.clear(identified.onnxDigest)
        PythonStage.of(identified, **{FORMAT_KEY: FORMAT}).write(folder)
        if embedded:
            place = folder / _FOLDER
            place.mkdir()
            for file in self.transformer.files():
                own = identified.getOrDefault(identified.onnxDigest) if file.suffix == SUFFIX else file.stem
                shutil.copyfile(file, place / f"{own}{file.suffix}")


class NetworkWriter(MLWriter):
    """Writes a transformer as a stage of a pipeline is written."""

    def __init__(self, instance: NetworkTransformer) -> None:
        super().__init__()
        self._instance = instance

    def saveImpl(self, path: str) -> None:
        """Write to a path, or a `file:` URI."""
        NetworkStage(self._instance).write(local_path(path, type(self._instance).__name__))


class NetworkReader(MLReader):  # type: ignore[type-arg]
    """Reads what `NetworkWriter` wrote."""

    def __init__(self, kind: type[NetworkTransformer]) -> None:
        super().__init__()
        self._kind = kind

    def load(self, path: str) -> NetworkTransformer:
        """Read the parameters, and find the network in the saved folder if it is there."""
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        check_format(f"The {self._kind.__name__} in {path}", metadata.get(FORMAT_KEY))
        transformer = self._kind()
        transformer._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(transformer, metadata)
        folder = local_path(path, self._kind.__name__) / _FOLDER
        transformer.carried, transformer.onnx = carried_files(folder.glob("*") if folder.is_dir() else ())
        return transformer


def local_path(uri: str, kind: str) -> Path:
    """The local path that Spark means by a path or a `file:` URI; `kind` is whose, for the sentence.

    Raises
    ------
    NetworkError
        Another scheme.
    """
    path = hadoop_path(uri)
    if path is None:
        raise NetworkError(
            f"A {kind} is saved and loaded with its network as a local folder, and {uri} is "
            "none: save it to a local or shared folder and copy it from there."
        )
    return path
