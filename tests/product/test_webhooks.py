"""MLflow's webhooks after a promotion: a real server sends them, and a deployment follows the alias."""

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pytest
from cryptography.fernet import Fernet
from mlflow import MlflowClient

from tests.helpers.registries import crown
from tests.helpers.scripts import ROOT, load_script
from tests.helpers.searches import TrackingServer, free_port, kill_tree, wait_until
from tuner.registry.moves import make_challenger
from tuner.tracking.names import PROMOTION
from tuner.tracking.store import Tracking

EXAMPLE = "examples/follow_alias.py"
SECRET = "what only the two know"
IMAGE = b"the bytes of an image"
MODEL = """
import mlflow
from mlflow.pyfunc import PythonModel

class Answers(PythonModel):
    def predict(self, context, model_input, params=None):
        answers = model_input.assign(prediction="{}", bytes=model_input["content"].map(len))
        return answers[["prediction", "bytes"]]

mlflow.models.set_model(Answers())
"""
GIVEN, TAKEN = "model_version_alias.created", "model_version_alias.deleted"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_script(EXAMPLE)


# The signature, and what wakes a deployment ----------------------------------------------------------


def signed(
    body: bytes, secret: str = SECRET, sent: float | None = None, delivery: str = "1"
) -> dict[str, str]:
    """The headers of a webhook: MLflow signs id, time and content, with dots between them."""
    moment = str(int(time.time() if sent is None else sent))
    text = f"{delivery}.{moment}.{body.decode()}"
    made = base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()
    return {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": moment,
        "X-MLflow-Signature": f"v1,{made}",
    }


def test_what_was_not_signed_by_the_secret_lately_is_refused(example: ModuleType) -> None:
    body, headers = b'{"a": 1}', signed(b'{"a": 1}')
    assert example.is_signed(SECRET, headers, body)
    assert not example.is_signed("another", headers, body)
    assert not example.is_signed(SECRET, headers, body + b" ")
    assert not example.is_signed(SECRET, signed(body, sent=time.time() - 600), body)
    assert not example.is_signed(SECRET, headers | {"X-MLflow-Delivery-Id": "2"}, body)
    for missing in headers:
        assert not example.is_signed(SECRET, {k: v for k, v in headers.items() if k != missing}, body)


def test_a_deployment_wakes_for_its_own_alias_alone(example: ModuleType) -> None:
    def hears(entity: str = "model_version_alias", name: str = "digits", alias: str = "champion") -> bool:
        deployment = example.Deployment("digits", "champion")
        deployment.hear({"entity": entity, "data": {"name": name, "alias": alias, "version": "7"}})
        return deployment.woken.is_set()

    assert hears()
    assert not hears(alias="challenger")
    assert not hears(name="letters")
    assert not hears(entity="model_version_tag")


# MLflow's server, a receiver, a deployment -----------------------------------------------------------


@dataclass
class Receiver:
    """What a server on loopback was sent: headers and content."""

    port: int = 0
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def data(self, event: str) -> list[dict[str, Any]]:
        """What was told with the events of one kind, in order."""
        told = [json.loads(body) for _, body in self.got]
        return [one["data"] for one in told if f"{one['entity']}.{one['action']}" == event]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.got.append((dict(self.headers), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield received
        server.shutdown()


@pytest.fixture
def registry(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TrackingServer]:
    """A server with two versions of a model, which answer with their number: champion and challenger."""
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", Fernet.generate_key().decode())
    shutil.copy(empty_database, tmp_path / "server.db")
    store = Tracking(f"sqlite:///{tmp_path / 'server.db'}", "0")
    client = store.client()
    client.create_registered_model("letters")
    versions = []
    for number in ("1", "2"):
        code, folder = tmp_path / f"model{number}.py", tmp_path / f"model{number}"
        code.write_text(MODEL.format(number))
        mlflow.pyfunc.save_model(str(folder), python_model=str(code), pip_requirements=[])
        versions.append(client.create_model_version("letters", str(folder)))
    crown(store, versions[0])
    make_challenger(store, versions[1])
    server = TrackingServer(tmp_path)
    server.start()
    yield server
    server.stop()


def tuner(registry: TrackingServer, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=registry.folder,
        env=os.environ | {"MLFLOW_TRACKING_URI": registry.uri},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ask(port: int, image: bytes) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/invocations", image)
    answer = connection.getresponse().read()
    connection.close()
    return json.loads(answer)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_promotion_is_told_and_a_deployment_follows_it(
    registry: TrackingServer, receiver: Receiver, example: ModuleType
) -> None:
    port, client = free_port(), MlflowClient(registry.uri)
    log = f"http://127.0.0.1:{receiver.port}/"
    client.create_webhook("log", log, [GIVEN, TAKEN, "model_version_tag.set"], secret=SECRET)
    client.create_webhook("deployment", f"http://127.0.0.1:{port}/webhook", [GIVEN], secret=SECRET)
    output = registry.folder / "deployment.log"
    with output.open("w") as file_of_it:
        deployment = subprocess.Popen(
            [sys.executable, str(ROOT / EXAMPLE), "letters", "--port", str(port)],
            env=os.environ | {"MLFLOW_TRACKING_URI": registry.uri, "WEBHOOK_SECRET": SECRET},
            stdout=file_of_it,
            stderr=file_of_it,
        )

    def answered() -> list[str]:
        """The versions that the deployment loaded, one after the other."""
        assert deployment.poll() is None, output.read_text()
        return re.findall(r"letters version (\d+) answers", output.read_text())

    try:
        wait_until(lambda: answered() == ["1"], 300)
        assert ask(port, IMAGE) == {"version": "1", "prediction": "1", "bytes": len(IMAGE)}

        crown(Tracking(registry.uri, "0"), client.get_model_version("letters", "2"), why="to see it told")
        wait_until(lambda: answered() == ["1", "2"])
        assert ask(port, IMAGE) == {"version": "2", "prediction": "2", "bytes": len(IMAGE)}
        champion, challenger = ({"name": "letters", "alias": one} for one in ("champion", "challenger"))
        wait_until(lambda: challenger in receiver.data(TAKEN))
        assert receiver.data(GIVEN) == [champion | {"version": "2"}]
        reason = {"name": "letters", "version": "2", "key": f"{PROMOTION}.why", "value": "to see it told"}
        assert reason in receiver.data("model_version_tag.set")

        tuner(registry, "rollback", "letters")
        wait_until(lambda: answered() == ["1", "2", "1"])
        assert ask(port, IMAGE)["prediction"] == "1"
        wait_until(lambda: len(receiver.data(GIVEN)) == 2)
        assert receiver.data(GIVEN)[1] == champion | {"version": "1"}
        assert all(example.is_signed(SECRET, headers, body) for headers, body in receiver.got)
        assert not any(example.is_signed("another", headers, body) for headers, body in receiver.got)
    finally:
        kill_tree(deployment)
