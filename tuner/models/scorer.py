"""The JVM-free face of a model: image bytes → class names, by Keras and NumPy; imports no pyspark.

MLflow's `python_function` flavor names this module as its loader. It decodes as the featurizer does and
computes what MLlib's `LogisticRegressionModel` computes, so both faces of a model give the same answer.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from pydantic import BaseModel, ConfigDict, ValidationError

from tuner.base.choices import Precision, Preprocessing
from tuner.base.columns import CONTENT, ERROR, PREDICTION, PROBABILITY, TOP_K
from tuner.base.errors import ModelError
from tuner.base.machine import machine_cores
from tuner.base.wording import first_line
from tuner.classifiers.linear import LinearHead
from tuner.models.format import FORMAT, check_format
from tuner.networks.files import import_keras
from tuner.networks.inference import BATCH_SIZE, content_reader, featurize
from tuner.networks.resolution import Network, load_network
from tuner.networks.store import NetworkStore

FOLDER = "scorer"
PIPELINE_FOLDER = "sparkml"
_DESCRIPTION, _HEAD = "scorer.json", "head.npz"
_CARRIED = f"{PIPELINE_FOLDER}/stages/*/network/*"  # by a saved DeepImageFeaturizer
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]*=*\s*")  # what no image file is made of alone
# MLflow's scoring server sets it; a Spark job must not fail for what a client is told with a 400.
_IN_SERVER = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"
_SERVED = "__pyfunc_model_path__"  # where MLflow's scoring server is told its model
_NEEDLESS = ("matplotlib", "sklearn")  # Keras imports them where it can, for charts and wrappers
# What `decode_image` says of what is no image to work on.
_NO_IMAGE = ("not an image of a known format", "too large", "empty file")


class _Description(BaseModel):
    """What `scorer.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: int = FORMAT
    labels: tuple[str, ...]
    name: str
    digest: str
    input_size: tuple[int, int]
    preprocessing: Preprocessing
    width: int
    precision: Precision
    uri: str | None = None  # where MLflow has the network, if the model does not carry it


def write_scorer(
    folder: Path, network: Network, head: LinearHead, labels: Sequence[str], uri: str | None
) -> None:
    """Write what the scorer needs beside the saved pipeline; `uri`: where MLflow has the network."""
    described = {key: value for key, value in network.to_dict().items() if key != "file"}
    description = _Description(labels=tuple(labels), uri=uri, **described)
    folder.mkdir(parents=True)
    (folder / _DESCRIPTION).write_text(description.model_dump_json(indent=1), encoding="utf-8")
    np.savez(folder / _HEAD, coefficients=head.coefficients, intercepts=head.intercepts)


class Scorer:
    """A model that scores the bytes of image files in this process.

    Safe to use from several threads at once.

    Parameters
    ----------
    network
        Its `file` is where the network lies here.
    head
        The classifier.
    labels
        The class names; their positions are the label indices.
    threads
        For TensorFlow, and for decoding; None: what `OMP_NUM_THREADS` says (Spark sets it for its
        workers), else this machine's cores.
    """

    def __init__(
        self, network: Network, head: LinearHead, labels: Sequence[str], threads: int | None = None
    ) -> None:
        threads = threads or int(os.environ.get("OMP_NUM_THREADS") or machine_cores())
        self.network = network
        self.head = head
        self.labels = tuple(labels)
        self._names = np.array(self.labels, dtype=object)
        self._read = content_reader(network)
        self._compute = load_network(network, Path(network.file), threads)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    @classmethod
    def load(cls, folder: Path, threads: int | None = None) -> Scorer:
        """Open a model folder.

        Parameters
        ----------
        folder
            As `write_scorer` and the saved pipeline fill it.
        threads
            As for the class.

        Raises
        ------
        ModelError
            The folder holds no scorer, or one of another version of tuner.
        NetworkError
            The model carries no network, and it is not found elsewhere.
        """
        place = folder / FOLDER
        try:
            data = json.loads((place / _DESCRIPTION).read_text(encoding="utf-8"))
            check_format(f"The model {folder}", data.get("format"))
            description = _Description.model_validate(data)
            with np.load(place / _HEAD, allow_pickle=False) as arrays:
                head = LinearHead(arrays["coefficients"], arrays["intercepts"])
        except (OSError, ValidationError, ValueError, KeyError) as error:
            raise ModelError(
                f"The model {folder} cannot be read by this version of tuner: {first_line(error)}."
            ) from error
        carried = next(iter(sorted(folder.glob(_CARRIED))), None)
        file = NetworkStore().locate(description.name, description.digest, carried, description.uri)
        decisive = description.model_dump(exclude={"format", "labels", "uri"})
        return cls(Network(file=str(file), **decisive), head, description.labels, threads)

    def score(self, contents: Sequence[bytes | None]) -> tuple[np.ndarray, list[str | None]]:
        """Score image files.

        Parameters
        ----------
        contents
            The bytes of n files.

        Returns
        -------
        tuple
            Probabilities, float64 of shape (n, k), NaN in the rows of images that cannot be read; and
            n reasons, None for those that can.
        """
        probability = np.full((len(contents), len(self.labels)), np.nan)
        several = self._pool is not None and len(contents) > 1
        apply = self._pool.map if several and self._pool is not None else map
        outcomes = list(featurize(contents, self._read, self._compute, BATCH_SIZE, apply))
        good = [row for row, (features, _) in enumerate(outcomes) if features is not None]
        if good:
            features = np.stack([outcomes[row][0] for row in good])  # type: ignore[misc]  # not None
            probability[good] = self.head.probability(features)
        reasons = [reason for _, reason in outcomes]
        for row in good:
            if not np.isfinite(probability[row]).all():
                probability[row], reasons[row] = np.nan, "the network gives values that are not numbers"
        return probability, reasons

    def warm_up(self) -> None:
        """Run the network once: TensorFlow prepares its kernels at the first call."""
        self._compute(np.zeros((1, *self.network.input_size, 3), np.float32))

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Answer MLflow's `python_function` calls, over HTTP and in Spark jobs.

        Parameters
        ----------
        model_input
            The column `content`: the bytes of image files, or these bytes in base64.
        params
            `top_k`: how many of the likeliest classes to list; 0: none.

        Returns
        -------
        pandas.DataFrame
            `prediction` (class name), `probability` (list of floats, in the order of the labels) and
            `error`: why an image cannot be read, and then the others are None. With `top_k`, a column
            of that name: lists of `label` and `probability`, the likeliest first.

        Raises
        ------
        MlflowException
            With the code that becomes HTTP status 400: `top_k` is negative or, in a scoring server, the
            request has no image or none within the size limit.
        """
        top_k = int((params or {}).get(TOP_K, 0))
        if top_k < 0:
            raise _bad_request(f"top_k is {top_k}: it must be 0 or more.")
        answer = self.answer([_image_bytes(value) for value in model_input[CONTENT]], top_k)
        if os.environ.get(_IN_SERVER) == "true":
            _refuse_without_image(list(answer[ERROR]))
        return answer.set_index(model_input.index)

    def answer(self, contents: Sequence[bytes | None], top_k: int = 0) -> pd.DataFrame:
        """Score image files, and give the table that `predict` describes.

        Parameters
        ----------
        contents
            The bytes of n files.
        top_k
            How many of the likeliest classes to list; 0: none.
        """
        probability, reasons = self.score(contents)
        known = [reason is None for reason in reasons]
        best = self._names[np.nan_to_num(probability).argmax(axis=1)]
        columns: dict[str, list[Any]] = {
            PREDICTION: [name if good else None for name, good in zip(best, known, strict=True)],
            PROBABILITY: [
                row.tolist() if good else None for row, good in zip(probability, known, strict=True)
            ],
            ERROR: reasons,
        }
        if top_k:
            columns[TOP_K] = [
                self._likeliest(row, top_k) if good else None
                for row, good in zip(probability, known, strict=True)
            ]
        return pd.DataFrame(columns, dtype=object)

    def _likeliest(self, row: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        order = np.argsort(-row, kind="stable")[:top_k]
        return [{"label": self.labels[place], "probability": float(row[place])} for place in order]


def _image_bytes(value: Any) -> bytes | None:
    """The bytes of a file; undoes the base64 that MLflow leaves in `inputs`, `instances` and CSV."""
    if value is None or isinstance(value, float):  # pandas' NaN for null
        return None
    data = value.encode() if isinstance(value, str) else bytes(value)
    if _BASE64.fullmatch(data):
        with suppress(binascii.Error):
            return base64.b64decode(data)
    return data


def _refuse_without_image(reasons: Sequence[str | None]) -> None:
    """Refuse a request of which nothing is an image, or none is within the limit: that is the client's."""
    if reasons and all(reason is not None and reason.startswith(_NO_IMAGE) for reason in reasons):
        raise _bad_request(
            f"The request has no image that can be read: {reasons[0]}. The column {CONTENT} must hold the "
            "bytes of image files, in base64."
        )


def _bad_request(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


def _load_pyfunc(path: str) -> Scorer:
    """Open a model folder for MLflow, ready for the first request."""
    if _SERVED in os.environ:  # a process that does nothing else, and shall answer soon
        with _hidden(_NEEDLESS):
            import_keras()
    scorer = Scorer.load(Path(path))
    scorer.warm_up()
    return scorer


@contextmanager
def _hidden(modules: Sequence[str]) -> Iterator[None]:
    """Let imports fail as where these modules are not installed; what is imported already stays."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: Python's own way to say so
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
