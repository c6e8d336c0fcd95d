"""A deployment that follows an alias: MLflow's webhook wakes it, and it loads the version behind the alias.

    MLFLOW_TRACKING_URI=http://HOST:5000 WEBHOOK_SECRET=... python examples/follow_alias.py digits

It answers two addresses: /webhook, for MLflow, and /invocations, which takes the bytes of an image.
A webhook wakes it and no more: what is loaded is what the registry says. As a webhook may be lost, the
registry is asked every five minutes, too.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import threading
import time
from collections.abc import Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient

ASK_AGAIN, OLDEST = 300, 300  # seconds: between two looks at the registry; the age of a webhook
LARGEST = 64 * 2**20  # bytes of a request


def is_signed(secret: str, headers: Mapping[str, str] | Message, body: bytes) -> bool:
    """Whether MLflow sent this, with this secret, within the last minutes."""
    delivery, sent = (headers.get(f"X-MLflow-{name}", "") for name in ("Delivery-Id", "Timestamp"))
    signed = hmac.new(secret.encode(), f"{delivery}.{sent}.".encode() + body, hashlib.sha256).digest()
    wanted = f"v1,{base64.b64encode(signed).decode()}"
    recent = sent.isdecimal() and abs(time.time() - int(sent)) < OLDEST
    return recent and hmac.compare_digest(wanted.encode(), headers.get("X-MLflow-Signature", "").encode())


class Deployment:
    """The model behind an alias, loaded; it changes when the alias moves."""

    def __init__(self, name: str, alias: str) -> None:
        self.name, self.alias = name, alias
        self.woken = threading.Event()
        self.loaded: tuple[str, Any] = ("", None)  # version and model, changed together

    def follow(self) -> None:
        """Load the version that has the alias, if it is another one."""
        version = str(MlflowClient().get_model_version_by_alias(self.name, self.alias).version)
        if version != self.loaded[0]:
            model = mlflow.pyfunc.load_model(f"models:/{self.name}/{version}")
            self.loaded = (version, model)  # requests that have begun keep the model that they took
            print(f"{self.name} version {version} answers", flush=True)

    def hear(self, event: dict[str, Any]) -> None:
        """Wake the deployment, if an event is about its alias."""
        told = event.get("data", {})
        ours = told.get("name") == self.name and told.get("alias") == self.alias
        if ours and event.get("entity") == "model_version_alias":
            self.woken.set()

    def run(self) -> None:
        """Follow, for ever; what fails is tried again."""
        while True:
            try:
                self.follow()
            except Exception as error:
                print(f"{self.name} stays at version {self.loaded[0] or 'none'}: {error}", flush=True)
            self.woken.wait(ASK_AGAIN)
            self.woken.clear()


def serve(deployment: Deployment, secret: str, host: str, port: int) -> ThreadingHTTPServer:
    """The server of a deployment, which `serve_forever` starts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if length > LARGEST:
                self.answer(413, {"error": "too large"})
                return
            body = self.rfile.read(length)
            if self.path == "/webhook":
                signed = is_signed(secret, self.headers, body)
                if signed:
                    deployment.hear(json.loads(body))
                self.answer(200 if signed else 401, {})
            elif self.path == "/invocations":
                version, model = deployment.loaded
                if model is None:
                    self.answer(503, {"error": "no version is loaded yet"})
                    return
                row = model.predict(pd.DataFrame({"content": [body]})).to_dict("records")[0]
                self.answer(200, {"version": version, **row})
            else:
                self.answer(404, {})

        def answer(self, status: int, told: dict[str, Any]) -> None:
            content = json.dumps(told, default=list).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return ThreadingHTTPServer((host, port), Handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="the registered model's name")
    parser.add_argument("--alias", default="champion")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    given = parser.parse_args()
    deployment = Deployment(given.model, given.alias)
    server = serve(deployment, os.environ["WEBHOOK_SECRET"], given.host, given.port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    deployment.run()


if __name__ == "__main__":
    main()
