"""`mlflow models serve` as a user runs it, asked over HTTP."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from pyspark.sql import SparkSession

from tests.conftest import FinishedSearch, tuner
from tests.helpers.models import CHAMPION, NO_IMAGES, ODD_IMAGES, contents_frame, letter_files
from tests.helpers.searches import tracking

JSON, CSV = "application/json", "text/csv"


@dataclass(frozen=True)
class Server:
    port: int
    process: int
    engine: str

    def post(self, body: Any, kind: str = JSON) -> tuple[int, Any]:
        """Ask for predictions; give the status and the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        text = body if isinstance(body, str) else json.dumps(body)
        connection.request("POST", "/invocations", text.encode(), {"Content-Type": kind})
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response.status, json.loads(answer)

    def ask(self, body: Any, kind: str = JSON) -> list[dict[str, Any]]:
        status, answer = self.post(body, kind)
        assert status == 200, answer
        return answer["predictions"]

    def family(self) -> set[int]:
        """The server's processes: MLflow's command, and what it started."""
        parents = {}
        for file in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has just ended
                parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
        family, size = {self.process}, 0
        while len(family) != size:
            size = len(family)
            family |= {process for process, parent in parents.items() if parent in family}
        return family

    def resident_mib(self) -> float:
        pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in self.family())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture(scope="module", params=["ONNX", pytest.param("TensorFlow", marks=pytest.mark.long)])
def server(
    request: pytest.FixtureRequest,
    finished_search: FinishedSearch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """The champion, which carries ONNX; and the same as a model that does not."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    folder = tmp_path_factory.mktemp("server")
    log, model = folder / "log", CHAMPION
    if request.param == "TensorFlow":
        with tracking(finished_search.store):
            model = mlflow.artifacts.download_artifacts(CHAMPION, dst_path=str(folder / "model"))
        description = Path(model) / "scorer" / "scorer.json"
        text = json.dumps(json.loads(description.read_text()) | {"onnx": None})
        description.write_text(text)
        next(Path(model).rglob("*.onnx")).unlink()
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["mlflow", "models", "serve", "-m", model, "--env-manager", "local", "-p", str(port)],
            cwd=folder,
            env=os.environ | {"PATH": binaries, "MLFLOW_TRACKING_URI": finished_search.store},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        wait_for(port, process, log)
        yield Server(port, process.pid, request.param)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"the server does not answer:\n{log.read_text(errors='replace')[-3000:]}")


def text_of(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def split(*contents: bytes, **params: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "dataframe_split": {"columns": ["content"], "data": [[text_of(content)] for content in contents]}
    }
    return body | ({"params": params} if params else {})


# What is answered


def test_every_form_of_input_gets_the_same_answer(server: Server) -> None:
    images = [ODD_IMAGES[name] for name in ("JPEG RGB", "PNG L", "GIF")]
    texts = [text_of(image) for image in images]
    rows = [{"content": text} for text in texts]
    expected = server.ask(split(*images))
    assert [answer["error"] for answer in expected] == [None] * 3
    assert len({tuple(answer["probability"]) for answer in expected}) == 3
    for body in (
        {"dataframe_records": rows},
        {"inputs": {"content": texts}},
        {"inputs": texts},
        {"instances": rows},
        {"instances": texts},
    ):
        assert server.ask(body) == expected, list(body)
    assert server.ask("content\n" + "\n".join(texts), CSV) == expected


def test_every_odd_image_is_answered(server: Server) -> None:
    answers = server.ask(split(*ODD_IMAGES.values(), top_k=2))
    for answer in answers:
        assert answer["error"] is None
        first, second = answer["top_k"]
        assert first["label"] == answer["prediction"]
        assert first["probability"] == max(answer["probability"]) >= second["probability"]


def test_a_bad_image_is_an_error_in_its_own_row(server: Server) -> None:
    good = ODD_IMAGES["BMP"]
    first, *bad, last = server.ask(
        split(good, NO_IMAGES["text"], NO_IMAGES["empty"], NO_IMAGES["cut"], good)
    )
    assert first["error"] is last["error"] is None
    assert first["probability"] == pytest.approx(last["probability"])
    assert [answer["error"] for answer in bad] == [
        "not an image of a known format",
        "empty file",
        "truncated",
    ]
    assert all(answer["prediction"] is answer["probability"] is None for answer in bad)


def bomb() -> bytes:
    content = bytearray(ODD_IMAGES["JPEG RGB"])
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = b"\xff\xff\xff\xff"
    return bytes(content)


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (split(b"no image"), JSON, "has no image that can be read: not an image of a known format"),
        (split(bomb(), b"no image"), JSON, "has no image that can be read: too large"),
        (
            {"inputs": {"content": ["*** no base64 ***"]}},
            JSON,
            "must hold the bytes of image files, in base64",
        ),
        ({"instances": [{"content": "%%%"}]}, JSON, "must hold the bytes of image files, in base64"),
        ({"dataframe_split": {"columns": ["content"], "data": [["***"]]}}, JSON, "in base64"),
        ({"dataframe_split": {"columns": ["image"], "data": [["AAAA"]]}}, JSON, "content"),
        ({"dataframe_records": [{"image": "AAAA"}]}, JSON, "content"),
        ("picture\nAAAA", CSV, "content"),
        (split(ODD_IMAGES["BMP"], top_k=-1), JSON, "top_k is -1: it must be 0 or more"),
        (split(ODD_IMAGES["BMP"], top_k="many"), JSON, "top_k"),
        ({"images": ["AAAA"]}, JSON, "exactly one of the input fields"),
        ("{", JSON, "JSON"),
    ],
)
def test_a_request_that_cannot_work_is_the_client_s(
    server: Server, body: Any, kind: str, reason: str
) -> None:
    status, answer = server.post(body, kind)
    assert 400 <= status < 500
    assert reason in answer["message"]
    assert "Traceback" not in answer["message"]


@pytest.mark.long
def test_the_answers_are_those_of_the_command_line_and_of_spark(
    server: Server, finished_search: FinishedSearch, letters: Path, tmp_path: Path, spark: SparkSession
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, path in enumerate(letter_files(letters, "o", 5) + letter_files(letters, "ñandú <b>", 5)):
        (folder / f"{number}.png").write_bytes(path.read_bytes())
    for number, content in enumerate(ODD_IMAGES.values()):
        (folder / f"odd {number:02d}.png").write_bytes(content)
    (folder / "text.png").write_bytes(b"no image")
    files = sorted(folder.iterdir())
    contents = [path.read_bytes() for path in files]

    done = tuner(finished_search.folder, "predict", CHAMPION, folder, "--output", "json", "--top-k", 3)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [Path(row.pop("path")) for row in told] == files
    served = server.ask(split(*contents, top_k=3))
    for one, other in zip(served, told, strict=True):
        assert [one[name] for name in ("prediction", "error")] == [other["prediction"], other["error"]]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)
        likely = [[row["label"] for row in answer["top_k"] or []] for answer in (one, other)]
        assert likely[0] == likely[1]

    with tracking(finished_search.store):
        pipeline = mlflow.spark.load_model(CHAMPION)
        rows = pipeline.transform(contents_frame(spark, contents)).orderBy("number").collect()
    assert [row.predicted_label for row in rows] == [answer["prediction"] for answer in served]
    expected = [None if row.probability is None else row.probability.toArray() for row in rows]
    plain = [answer["probability"] for answer in server.ask(split(*contents))]
    for one, other in zip(plain, expected, strict=True):
        if other is not None:
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


# The server


@pytest.mark.long
def test_clients_at_once_are_all_answered_in_bounded_memory(server: Server) -> None:
    contents = [ODD_IMAGES[name] for name in ("JPEG RGB", "PNG RGBA", "GIF", "WebP", "TIFF RGB")]
    expected = server.ask(split(*contents))

    def client(number: int) -> list[bool]:
        place = number % len(contents)
        return [close(server.ask(split(contents[place]))[0], expected[place]) for _ in range(40)]

    with ThreadPoolExecutor(8) as pool:
        assert all(same for answers in pool.map(client, range(8)) for same in answers)
        warm = server.resident_mib()
        assert all(same for answers in pool.map(client, range(8)) for same in answers)
    assert server.resident_mib() < warm + 50


def close(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["prediction"] == other["prediction"] and np.allclose(
        one["probability"], other["probability"], atol=1e-6
    )


def test_no_jvm_runs_in_the_server(server: Server) -> None:
    commands = [Path(f"/proc/{one}/cmdline").read_text() for one in server.family()]
    assert any("uvicorn" in command for command in commands)
    assert not any("java" in command.split("\0")[0] for command in commands)


def test_the_server_runs_one_engine_and_starts_without_what_it_does_not_need(server: Server) -> None:
    for process in server.family():
        if "uvicorn" in Path(f"/proc/{process}/cmdline").read_text():
            maps = Path(f"/proc/{process}/maps").read_text()
            assert ("onnxruntime" in maps) == (server.engine == "ONNX")
            assert ("tensorflow" in maps) == (server.engine == "TensorFlow")
            assert "sklearn" not in maps
