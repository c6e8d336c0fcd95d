"""An ONNX file → a function from pixels to features, by ONNX Runtime; imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tuner.base.errors import NetworkError
from tuner.base.files import file_digest
from tuner.base.wording import first_line
from tuner.networks.files import FeatureFunction
from tuner.networks.onnx.inspection import check_onnx

SUFFIX = ".onnx"
_FATAL = 4  # what is wrong is raised: ONNX Runtime would write it, too


def carried_files(files: Iterable[Path]) -> tuple[Path | None, Path | None]:
    """Of the files that a model carries of its network: the one as it came, and the ONNX one."""
    ordered = sorted(files)
    exported = (file for file in ordered if file.suffix == SUFFIX)
    return next((file for file in ordered if file.suffix != SUFFIX), None), next(exported, None)


def check_file(file: Path, name: str, sha256: str) -> None:
    """Refuse a file that is not the one that a model was made with.

    Raises
    ------
    NetworkError
        It is missing, or another one.
    """
    if not file.is_file() or file_digest(file) != sha256:
        problem = "another" if file.is_file() else "missing"
        raise NetworkError(
            f"The ONNX file {file} of the network {name} is {problem}: its sha256 should be {sha256}. "
            "Fetch the model again, or search again."
        )


def open_session(file: Path, threads: int) -> Any:
    """Open an ONNX file, on the processor.

    Parameters
    ----------
    file : Path
        It is looked at first (`check_onnx`).
    threads : int
        Those that compute one call.

    Returns
    -------
    onnxruntime.InferenceSession
        Safe to run from several threads at once.

    Raises
    ------
    NetworkError
        It brings operators or needs files, or ONNX Runtime cannot run it: it is of a newer opset, damaged.
    """
    facts = check_onnx(file)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _FATAL
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a file from outside can fail in any way
        raise NetworkError(
            f"The network {file}, of opset {facts.opset}, cannot be run by ONNX Runtime "
            f"{onnxruntime.__version__}: {first_line(error)}"
        ) from error


def open_onnx(file: Path, input_size: tuple[int, int], threads: int) -> FeatureFunction:
    """Open a network that was exported (`tuner.networks.exporting`).

    Parameters
    ----------
    file : Path
        The ``.onnx`` file.
    input_size : tuple of int
        Height and width in pixels.
    threads : int
        Those that compute one call.

    Returns
    -------
    Callable
        ``(n, height, width, 3)`` float32, preprocessed → ``(n, width)`` float32. Safe to call from several
        threads at once.

    Raises
    ------
    NetworkError
        The file is missing, cannot be run, or takes or gives something else.
    """
    session = open_session(file, threads)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if not (
        len(inputs) == len(outputs) == 1
        and inputs[0].type == outputs[0].type == "tensor(float)"
        and list(inputs[0].shape[1:]) == [*input_size, 3]
        and len(outputs[0].shape) == 2
        and isinstance(outputs[0].shape[1], int)
    ):
        raise NetworkError(
            f"The network {file} does not fit its description: it takes {_said(inputs)} and gives "
            f"{_said(outputs)}; it must take images of {input_size[0]} x {input_size[1]} pixels and give "
            "one vector of features for each."
        )
    (taken,), width = [each.name for each in inputs], outputs[0].shape[1]

    def run(images: np.ndarray) -> np.ndarray:
        if len(images) == 0:
            return np.empty((0, width), np.float32)
        (features,) = session.run(None, {taken: np.ascontiguousarray(images, np.float32)})
        return np.asarray(features)

    return run


def _said(parts: Any) -> str:
    return ", ".join(f"{part.type}{part.shape}" for part in parts)
