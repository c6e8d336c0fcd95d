"""The JVM-free face of a model: image bytes → class names; imports no pyspark.

The network is run by ONNX Runtime where the model carries it as ONNX, else by Keras and TensorFlow.
MLflow's `python_function` flavor names this module as its loader. It decodes as the featurizer does and
computes what MLlib's model or scikit-learn's computes, so both faces of a model give the same answer.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import string
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from pydantic import BaseModel, ConfigDict, ValidationError

from tuner.base.choices import Pooling, Precision, Preprocessing, Transparent
from tuner.base.columns import CONTENT, DECISION, ERROR, PREDICTION, PROBABILITY, TOP_K
from tuner.base.errors import ModelError
from tuner.base.machine import machine_cores
from tuner.base.wording import first_line
from tuner.classifiers.heads.files import Head
from tuner.classifiers.heads.files import read_head as read_fitted
from tuner.models.format import FORMAT, check_format
from tuner.networks.files import import_keras
from tuner.networks.inference import BATCH_SIZE, content_reader, featurize
from tuner.networks.onnx.session import SUFFIX, carried_files, check_file
from tuner.networks.resolution import Network, load_network
from tuner.networks.store import NetworkStore

FOLDER = "scorer"
PIPELINE_FOLDER = "sparkml"
_DESCRIPTION = "scorer.json"
_CARRIED = f"{PIPELINE_FOLDER}/stages/*/network/*"  # by a saved DeepImageFeaturizer
_NULLS = ("None", "nan")  # what MLflow makes of nulls in an array; no image file is so short
_SPACE = b" \t\n\r\f\v"
# Both alphabets of RFC 4648: what no image file is made of alone.
_BASE64 = string.ascii_letters.encode() + string.digits.encode() + b"+/-_="
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
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
    file_digest: str  # of the network's file, where MLflow has it
    transparent: Transparent = "white"
    max_value: float | None = None
    pooling: Pooling = "avg"
    uri: str | None = None  # where MLflow has the network, if the model does not carry it
    head: str = "linear"  # the kind of the classifier
    onnx: str | None = None  # sha256 of the network's ONNX file, if the model carries one

    def network(self, file: str) -> Network:
        """The network, whose file lies here."""
        return Network(file=file, **self.model_dump(exclude={"format", "labels", "uri", "head", "onnx"}))

    def file(self, carried: Sequence[Path], *, keras: bool) -> Path:
        """Find the network's file among those that the model carries, or elsewhere."""
        stored, exported = carried_files(carried)
        if self.onnx is not None and not keras:
            found = exported or Path(f"{self.onnx}{SUFFIX}")
            check_file(found, self.name, self.onnx)
            return found
        return NetworkStore().locate(self.name, self.digest, stored, self.uri, self.file_digest)


def networks_in(folder: Path) -> list[Path]:
    """The files of its network that a model's folder carries; none, where MLflow has it."""
    return list(folder.glob(_CARRIED))


def write_scorer(
    folder: Path,
    network: Network,
    head: Head,
    labels: Sequence[str],
    uri: str | None,
    onnx: str | None = None,
) -> None:
    """Write what the scorer needs beside the saved pipeline.

    `uri`: where MLflow has the network; `onnx`: sha256 of its ONNX file, if the pipeline carries that.
    """
    described = {key: value for key, value in network.to_dict().items() if key != "file"}
    description = _Description(labels=tuple(labels), uri=uri, head=head.kind, onnx=onnx, **described)
    folder.mkdir(parents=True)
    (folder / _DESCRIPTION).write_text(description.model_dump_json(indent=1), encoding="utf-8")
    head.write(folder)


def _read(folder: Path, what: str) -> tuple[_Description, Head]:
    try:
        data = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        check_format(what, data.get("format"))
        description = _Description.model_validate(data)
        return description, read_fitted(folder, description.head)
    except (OSError, ValidationError, ValueError, KeyError) as error:
        raise ModelError(f"{what} cannot be read by this version of tuner: {first_line(error)}.") from error


def read_head(folder: Path) -> tuple[Network, Head, tuple[str, ...]]:
    """Read what a model makes of features: the network that gives them, the classifier, the class names.

    Parameters
    ----------
    folder
        `FOLDER` of a model's folder. The network's file is not looked for: its `file` is empty.

    Raises
    ------
    ModelError
        The folder holds no scorer, or one of another version of tuner.
    """
    description, head = _read(folder, f"The model in {folder.parent}")
    return description.network(""), head, description.labels


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
        For the network, and for decoding; None: what `OMP_NUM_THREADS` says (Spark sets it for its
        workers), else this machine's cores.
    """

    def __init__(
        self, network: Network, head: Head, labels: Sequence[str], threads: int | None = None
    ) -> None:
        # A list for nested loops, as OpenMP allows, begins with the number of the outer one.
        stated = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
        threads = threads or (int(stated) if stated.isdecimal() else 0) or machine_cores()
        self.network = network
        self.head = head
        self.labels = tuple(labels)
        self._names = np.array(self.labels, dtype=object)
        self._read = content_reader(network)
        self._compute = load_network(network, Path(network.file), threads)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    @classmethod
    def load(cls, folder: Path, threads: int | None = None, *, keras: bool = False) -> Scorer:
        """Open a model folder.

        Parameters
        ----------
        folder
            As `write_scorer` and the saved pipeline fill it.
        threads
            As for the class.
        keras
            Take the network as it came, by TensorFlow, even where the model carries it as ONNX.

        Raises
        ------
        ModelError
            The folder holds no scorer, or one of another version of tuner.
        NetworkError
            The model carries no network, and it is not found elsewhere; or its ONNX file is another one.
        """
        description, head = _read(folder / FOLDER, f"The model {folder}")
        file = description.file(networks_in(folder), keras=keras)
        return cls(description.network(str(file)), head, description.labels, threads)

    def score(self, contents: Sequence[bytes | None]) -> tuple[np.ndarray, list[str | None]]:
        """Score image files.

        Parameters
        ----------
        contents
            The bytes of n files.

        Returns
        -------
        tuple
            Probabilities or, of a classifier without, decision values: float64 of shape (n, k), NaN in the
            rows of images that cannot be read; and n reasons, None for those that can.
        """
        scores = np.full((len(contents), len(self.labels)), np.nan)
        several = self._pool is not None and len(contents) > 1
        apply = self._pool.map if several and self._pool is not None else map
        outcomes = list(featurize(contents, self._read, self._compute, BATCH_SIZE, apply))
        reasons = [reason for _, reason in outcomes]
        decoded = [(row, features) for row, (features, _) in enumerate(outcomes) if features is not None]
        good = [(row, features) for row, features in decoded if np.isfinite(features).all()]
        if good:
            scores[[row for row, _ in good]] = self.head.score(np.stack([features for _, features in good]))
        for row, _ in decoded:
            if not np.isfinite(scores[row]).all():
                scores[row], reasons[row] = np.nan, "the network gives values that are not numbers"
        return scores, reasons

    @property
    def score_column(self) -> str:
        """The column of an answer that holds the scores: `probability` or `decision`."""
        return PROBABILITY if self.head.gives == "probability" else DECISION

    @property
    def listed(self) -> tuple[str, ...]:
        """What `top_k` lists of each class."""
        return "label", self.score_column

    def warm_up(self) -> None:
        """Run the network once: kernels are prepared at the first call."""
        self._compute(np.zeros((1, *self.network.input_size, 3), np.float32))

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Answer MLflow's `python_function` calls, over HTTP and in Spark jobs.

        Parameters
        ----------
        model_input
            The column `content`: image files as bytes, as base64 or as data URLs.
        params
            `top_k`: how many of the likeliest classes to list; 0: none.

        Returns
        -------
        pandas.DataFrame
            `prediction` (class name), `probability` (list of floats, in the order of the labels) and
            `error`: why an image cannot be read, and then the others are None. With `top_k`, a column
            of that name: lists of `label` and `probability`, the likeliest first. Of a classifier without
            probabilities, `decision` stands in their place.

        Raises
        ------
        MlflowException
            With the code that becomes HTTP status 400: `top_k` is negative, there is no column `content`
            or, in a scoring server, the request has no image or none within the size limit.
        """
        top_k = int((params or {}).get(TOP_K) or 0)
        if top_k < 0:
            raise _BadRequest(f"top_k is {top_k}: it must be 0 or more.")
        if CONTENT not in model_input:
            raise _BadRequest(f"The request has no column {CONTENT}: it must hold the images.")
        values = list(model_input[CONTENT])
        contents = [image_bytes(value) for value in values]
        answer = self.answer(contents, top_k)
        for row, (value, content) in enumerate(zip(values, contents, strict=True)):
            if content is None and not _is_null(value):
                answer.loc[row, ERROR] = f"{_NO_IMAGE[0]}: neither bytes nor text"
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
        scores, reasons = self.score(contents)
        known = [reason is None for reason in reasons]
        best = self._names[np.nan_to_num(scores).argmax(axis=1)]
        columns: dict[str, list[Any]] = {
            PREDICTION: [name if good else None for name, good in zip(best, known, strict=True)],
            self.score_column: [
                row.tolist() if good else None for row, good in zip(scores, known, strict=True)
            ],
            ERROR: reasons,
        }
        if top_k:
            columns[TOP_K] = [
                self._likeliest(row, top_k) if good else None
                for row, good in zip(scores, known, strict=True)
            ]
        return pd.DataFrame(columns, dtype=object)

    def _likeliest(self, row: np.ndarray, top_k: int) -> list[dict[str, Any]]:
        order = np.argsort(-row, kind="stable")[:top_k]
        return [
            dict(zip(self.listed, (self.labels[place], float(row[place])), strict=True)) for place in order
        ]


def _is_null(value: Any) -> bool:
    if isinstance(value, str):
        return value in _NULLS
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def image_bytes(value: Any) -> bytes | None:
    """The bytes of a file, of whatever a client sends: bytes, base64 of either alphabet, or a data URL.

    Takes time in proportion to the length. None for a null and for what can be no file.
    """
    if isinstance(value, str) and value not in _NULLS:
        data = value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
    else:
        return None
    if data[:5].lower() == b"data:":  # RFC 2397
        kind, _, body = data.partition(b",")
        data = unquote_to_bytes(body) if b"%" in body else body
        if not kind.lower().rstrip(_SPACE).endswith(b";base64"):
            return data
    if data.translate(None, _BASE64 + _SPACE):
        return data
    text = data.translate(_TO_STANDARD, _SPACE).rstrip(b"=")  # whose padding many leave out
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return data


def _refuse_without_image(reasons: Sequence[str | None]) -> None:
    """Refuse a request of which nothing is an image, or none is within the limit: that is the client's."""
    if reasons and all(reason is not None and reason.startswith(_NO_IMAGE) for reason in reasons):
        raise _BadRequest(
            f"The request has no image that can be read: {reasons[0]}. The column {CONTENT} must hold the "
            "bytes of image files, in base64."
        )


class _BadRequest(MlflowException):
    """A refusal that says what it says: MLflow's server would put all of the request before it."""

    def __init__(self, message: str) -> None:
        self._said = message
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The sentence for the client."""
        return self._said

    @message.setter
    def message(self, _: str) -> None:
        pass


def _load_pyfunc(path: str) -> Scorer:
    """Open a model folder for MLflow, ready for the first request."""
    folder = Path(path)
    if _SERVED in os.environ and carried_files(networks_in(folder))[1] is None:
        # A process that does nothing else, and shall answer soon.
        with _hidden(_NEEDLESS):
            import_keras()
    scorer = Scorer.load(folder)
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
