"""What Docker makes an image of; tried here without Docker, in a virtual environment."""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.models import ODD_IMAGES
from tests.helpers.searches import free_port
from tests.product.test_onnx import asked_until_it_answers, assert_right, hand_made, model_folder
from tuner.base.errors import ModelError
from tuner.models.scorer import Scorer
from tuner.networks.resolution import Network
from tuner.serving.container import write_container

IMAGES = list(ODD_IMAGES.values())


@pytest.fixture(scope="module")
def network_and_context(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Path]:
    folder = tmp_path_factory.mktemp("container")
    network, onnx = hand_made(folder)
    return network, write_container(model_folder(folder, network, onnx), folder / "deep" / "context")


def instructions(context: Path) -> list[tuple[str, str]]:
    """A Dockerfile's lines, those that go on joined."""
    text = (context / "Dockerfile").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_context_has_the_model_and_all_that_is_copied(
    network_and_context: tuple[Network, Path],
) -> None:
    _, context = network_and_context
    assert sorted(file.name for file in context.iterdir()) == ["Dockerfile", "model"]
    assert [file.suffix for file in context.glob("model/sparkml/stages/*/network/*")] == [".onnx"]
    assert len(Scorer.load(context / "model").score(IMAGES)[0]) == len(IMAGES)
    told = instructions(context)
    for word, rest in told:
        if word == "COPY":
            assert (context / rest.split()[0]).exists()
    words = [word for word, _ in told]
    assert words[0] == "FROM"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert told[0][1] == f"python:{version}-slim"
    assert words.index("USER") > words.index("RUN")
    assert {"HEALTHCHECK", "CMD", "EXPOSE"} <= set(words)


def test_a_model_as_tensorflow_computes_it_keeps_its_file(tmp_path: Path) -> None:
    network, _ = hand_made(tmp_path)
    context = write_container(model_folder(tmp_path, network, None), tmp_path / "context")
    assert [file.suffix for file in context.glob("model/sparkml/stages/*/network/*")] == [".keras"]


def test_what_cannot_be_in_an_image_gets_a_sentence(tmp_path: Path) -> None:
    network, onnx = hand_made(tmp_path)
    model = model_folder(tmp_path, network, onnx, uri="runs:/1/networks/x.keras")
    with pytest.raises(ModelError, match="does not carry its network, as those of single trials do not"):
        write_container(model, tmp_path / "context")
    (tmp_path / "there").mkdir()
    with pytest.raises(ModelError, match="exists already"):
        write_container(model, tmp_path / "there")
    shutil.rmtree(model / "wheels")
    with pytest.raises(ModelError, match="does not carry what serves it, for an older version"):
        write_container(model, tmp_path / "context")
    assert not (tmp_path / "context").exists()


@pytest.mark.long
def test_its_steps_serve_the_model(network_and_context: tuple[Network, Path], tmp_path: Path) -> None:
    """Each COPY, RUN of pip, CMD and HEALTHCHECK as Docker would do them, in a new virtual environment."""
    network, context = network_and_context
    place, port = tmp_path / "image", free_port()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PATH"] = f"{tmp_path / 'venv' / 'bin'}{os.pathsep}{environment['PATH']}"
    run: dict[str, list[str]] = {}
    for word, rest in instructions(context):
        text = rest.replace("8080", str(port))
        if word == "COPY":
            source, target = context / text.split()[0], place / text.split()[1]
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        elif word == "RUN" and text.startswith("pip"):
            subprocess.run(shlex.split(text), cwd=place, env=environment, check=True)
        elif word in ("CMD", "HEALTHCHECK"):
            run[word] = json.loads(re.search(r"\[.*\]", text)[0])  # type: ignore[index]
    texts = [base64.b64encode(content).decode() for content in IMAGES]
    body = json.dumps({"dataframe_split": {"columns": ["content"], "data": [[text] for text in texts]}})
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            run["CMD"], cwd=place, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        status, answer = asked_until_it_answers(port, body, server)
        healthy = subprocess.run(run["HEALTHCHECK"], env=environment).returncode
    finally:
        os.killpg(server.pid, 15)
        server.wait()
    assert subprocess.run(run["HEALTHCHECK"], env=environment, capture_output=True).returncode != 0
    assert status == 200, (answer, (tmp_path / "log").read_text())
    assert_right(answer["predictions"], network)
    assert healthy == 0
