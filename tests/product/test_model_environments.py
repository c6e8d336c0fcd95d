"""A model in an environment of its own, made of its folder alone, which never saw the project."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.models import ODD_IMAGES
from tests.helpers.searches import free_port
from tests.product.test_onnx import asked_until_it_answers, assert_right, hand_made, model_folder

IMAGES = list(ODD_IMAGES.values())
LOAD = """
import json, sys
import mlflow

model = mlflow.pyfunc.load_model("model")
answer = model.predict(model.input_example).to_dict("records")
large = {"tensorflow", "keras", "pyspark", "scipy", "sklearn"} & sys.modules.keys()
print(json.dumps([answer, sorted(large), sys.modules["tuner"].__file__]))
"""


@pytest.mark.long
@pytest.mark.parametrize(("manager", "command"), [("uv", "uv"), ("virtualenv", "pyenv")])
def test_a_model_serves_itself(manager: str, command: str, tmp_path: Path) -> None:
    """It is asked over HTTP, and loaded by the Python of the environment that MLflow made for it."""
    if shutil.which(command) is None:
        pytest.skip(f"MLflow needs {command} for environments of {manager}")
    network, onnx = hand_made(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    shutil.move(model_folder(tmp_path, network, onnx), home / "model")
    port, roots = free_port(), tmp_path / "environments"
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    fresh = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = fresh | {"PATH": binaries, "MLFLOW_ENV_ROOT": str(roots)}
    serve = ["mlflow", "models", "serve", "-m", "model", "--env-manager", manager, "-p", str(port)]
    texts = [base64.b64encode(content).decode() for content in IMAGES]
    body = json.dumps({"dataframe_split": {"columns": ["content"], "data": [[text] for text in texts]}})
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            serve, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        status, answer = asked_until_it_answers(port, body, server)
    finally:
        os.killpg(server.pid, 15)
        server.wait()
    assert status == 200, (answer, (tmp_path / "log").read_text())
    assert_right(answer["predictions"], network)

    (python,) = roots.glob("*/bin/python")
    done = subprocess.run([python, "-c", LOAD], cwd=home, env=fresh, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded, large, file = json.loads(done.stdout.splitlines()[-1])
    assert large == []
    assert file.startswith(str(roots))
    served = answer["predictions"][list(ODD_IMAGES).index("PNG RGB")]
    np.testing.assert_allclose(loaded[0]["probability"], served["probability"], rtol=0, atol=1e-5)
    assert (loaded[0]["prediction"], loaded[0]["error"]) == (served["prediction"], None)
    sizes = subprocess.run(["du", "-sm", roots], capture_output=True, text=True).stdout
    assert int(sizes.split()[0]) < 500
