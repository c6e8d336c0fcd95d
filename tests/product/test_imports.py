"""What each command imports: a library that it does not need would be waited for by whoever types it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow.models import Model

from tests.helpers import onnx_files
from tests.helpers.models import as_png, random_head
from tuner.models.flavor import FittedModel, save_model, write_model_files
from tuner.networks.resolution import Network

ROOT = Path(__file__).resolve().parents[2]
# What takes a tenth of a second or more to import.
HEAVY = {
    *("PIL", "h5py", "hyperopt", "keras", "matplotlib", "mlflow", "numpy", "onnx", "onnxruntime", "optuna"),
    *(
        "pandas",
        "plotly",
        "pyarrow",
        "pydantic",
        "pyspark",
        "ruamel",
        "scipy",
        "skimage",
        "sklearn",
        "skops",
    ),
    *("sqlalchemy", "tensorflow", "tf2onnx"),
}
# MLflow's own: it imports pyspark and SciPy where they are installed.
MLFLOW = {"mlflow", "numpy", "pandas", "pyarrow", "pydantic", "pyspark", "scipy"}
OPTIONS = {"pydantic"}  # Typer's own, for commands that take any
EXPERIMENT = {"pydantic", "ruamel"}
# By command, what it may import of `HEAVY`.
ALLOWED: dict[str, set[str]] = {
    "--help": set(),
    "--version": set(),
    "search --help": OPTIONS,
    "learn --help": OPTIONS,
    "registry --help": OPTIONS,
    "new --example": OPTIONS,
    "search --experiment none.yaml": EXPERIMENT,
    "schema": EXPERIMENT,
    "cache": OPTIONS | {"numpy", "pandas", "pyarrow", "pyspark"},  # it may be on a Hadoop filesystem
    "registry": MLFLOW | {"sqlalchemy"},
    "rollback none": MLFLOW | {"sqlalchemy"},
    "predict model images": MLFLOW | {"PIL", "onnxruntime"},
    "export model --format docker --to image": MLFLOW | {"PIL", "ruamel"},
    "export model --format onnx --to model.onnx": MLFLOW | {"PIL", "onnx", "onnxruntime", "sklearn"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that carries its network as ONNX, and with images."""
    folder = tmp_path_factory.mktemp("commands")
    size, width = (16, 12), 5
    onnx = onnx_files.saved(onnx_files.small_network(size, width), folder)
    keras_file = folder / f"{'d' * 64}.keras"
    keras_file.write_bytes(b"not to be opened")
    network = Network("small", keras_file.stem, str(keras_file), size, "unit", width, "float32", "f" * 64)
    (folder / "images").mkdir()
    for shade in range(3):
        image = as_png(np.full((20, 20, 3), 40 * shade, np.uint8))
        (folder / "images" / f"{shade}.png").write_bytes(image)
    write_model_files(folder / "files", image)
    model = FittedModel(network, random_head(2, width), {}, ("a", "b"), onnx=onnx)
    save_model(str(folder / "model"), Model(), model=model, files=folder / "files")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=[pytest.mark.long] * ("mlflow" in allowed))  # that takes seconds
        for command, allowed in ALLOWED.items()
    ],
)
def test_a_command_imports_what_it_may(command: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tuner", *command.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
    )
    # Python tells each module once it was imported, whatever ends the process.
    imported = {
        name.partition(".")[0] for name in re.findall(r"^import time:[\d |]+ +(\S+)$", done.stderr, re.M)
    }
    assert "typer" in imported
    assert done.returncode == (2 if "none" in command else 0), done.stderr[-2000:]
    assert sorted(imported & (HEAVY - ALLOWED[command])) == []
