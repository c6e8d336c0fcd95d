"""Searches on a real Spark cluster: a standalone master and two workers on loopback, without tuner."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from pyspark.sql.connect.proto import ConfigRequest, SparkConnectServiceStub

from tests.conftest import tuner
from tests.helpers.clusters import Cluster, free_port, make_python
from tests.helpers.hadoop import mount_settings
from tests.helpers.searches import SearchProcess, TrackingServer, descendants, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

EXTRACTION, TRIALS, CHECK = "tuner-extract", "Hyperopt_SparkTrials", "tuner-check"
PASSWORD = "s3cret-p4ssword"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workers' Python: every package but tuner."""
    found = make_python(tmp_path_factory.mktemp("python") / "venv")
    # -E: where PYTHONPATH leads the driver to tuner, it does not lead the cluster there.
    tried = subprocess.run(
        [found, "-E", "-c", "import hyperopt, tuner"], capture_output=True, text=True, cwd="/"
    )
    assert "No module named 'tuner'" in tried.stderr
    return found


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster") / "spark")
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(started: Cluster, python: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, and what a user of it sets."""
    started.configure()
    for name, value in started.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYSPARK_PYTHON", str(python))
    return started


@pytest.fixture
def football(tmp_path: Path, shared: Path) -> Path:
    (tmp_path / "football.yaml").write_text(
        "name: football\n"
        f"images: {shared / 'data' / 'football'}\n"
        f"cache: {tmp_path / 'cache'}\n"
        "split: {test: 1/3, validation: holdout, validation_ratio: 1/3}\n"
        "search:\n"
        f"  backbone: [{{name: MobileNetP12, file: {shared / 'weights' / 'mobilenet_pw12.keras'},"
        " input_size: [224, 224], preprocessing: tf}]\n"
        "  regParam: 0.005:0.5:log\n"
        "  maxIter: 5:20\n"
        "  max_evals: 8\n"
        "  parallelism: 2\n",
        encoding="utf-8",
    )
    return tmp_path


def page(address: str) -> str:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read().decode(errors="replace")


def token_of(driver: int) -> str:
    """The token, from where only the user's own processes read it: the environment of the driver's JVM."""
    for pid in descendants(driver):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        for variable in variables:
            if variable.startswith(b"SPARK_CONNECT_AUTHENTICATE_TOKEN="):
                return variable.partition(b"=")[2].decode()
    raise AssertionError("no process of the driver has the token")


def code_of(port: int, *metadata: tuple[str, str]) -> str:
    """What the endpoint says to a question with these headers."""
    question = ConfigRequest(session_id="00000000-0000-4000-8000-000000000000")
    question.operation.get_all.SetInParent()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            SparkConnectServiceStub(channel).Config(question, metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


def other_addresses() -> list[str]:
    """This machine's addresses but for the one that the cluster uses."""
    found = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    return sorted({"127.0.0.2"} | found - {"127.0.0.1"})


def files_with(secret: str, *folders: Path) -> list[Path]:
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if secret.encode() in file.read_bytes()]


def command_lines_with(secret: str) -> list[Path]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [file] if secret.encode() in file.read_bytes() else []
        except OSError:  # it ended
            continue
    return found


def test_the_doctor_looks_at_master_and_workers(
    cluster: Cluster, football: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("doctor", "--experiment", "football.yaml", "--master", cluster.url)
    healthy = tuner(football, *command)
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    assert f"{socket.gethostname()}: Python, packages and folders are as a search needs" in healthy.stdout
    assert "answers a worker, and keeps to its token" in healthy.stdout
    monkeypatch.setenv("PYSPARK_PYTHON", "/nowhere/python")
    broken = tuner(football, *command)
    assert broken.returncode == 1
    assert "There is no Python /nowhere/python on a worker" in broken.stdout


def test_a_search_runs_on_the_executors_and_keeps_its_secrets(
    cluster: Cluster, football: Path, server: TrackingServer
) -> None:
    port = free_port()
    uri = server.uri.replace("http://", f"http://user:{PASSWORD}@")
    options = ("--experiment", "football.yaml", "--fit", "spark", "--connect-port", port)
    cluster.configure(spark_master=cluster.url)  # no --master: the user's defaults name it
    with SearchProcess(football, "search", *options, uri=uri) as search:
        wait_until(lambda: search.running() or search.process.poll() is not None, 400)
        assert search.process.poll() is None, search.output()
        token = token_of(search.process.pid)
        assert len(token) >= 40
        bearer = "authorization", f"Bearer {token}"
        assert code_of(port, bearer) == "OK"
        assert code_of(port) == "UNAUTHENTICATED"
        assert code_of(port, ("authorization", "Bearer wrong")) == "UNAUTHENTICATED"
        for address in other_addresses():
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((address, port), 5)
        root = f"http://127.0.0.1:{cluster.application_page}"
        application = re.findall(r'"id" : "(app-[^"]+)"', page(f"{root}/api/v1/applications"))[0]
        api = f"{root}/api/v1/applications/{application}"
        pages = [page(f"{root}/{name}/") for name in ("environment", "executors", "jobs", "connect")]
        pages += [page(f"{api}/{name}") for name in ("environment", "allexecutors", "jobs")]
        pages += [page(f"http://127.0.0.1:{cluster.page}/json/")]
        assert "spark.connect.grpc.binding.address" in pages[4]
        assert search.running()
        for secret in (token, PASSWORD):
            assert command_lines_with(secret) == []
            assert not [text for text in pages if secret in text]
        assert search.end(400) == 0, search.output()
        search.assert_whole(8)
        assert len(search.trials()) == 8
        for secret in (token, PASSWORD):
            stored = (football / "artifacts", football / "cache", cluster.folder)
            assert files_with(secret, *stored) == []
            assert secret not in search.output()
            assert secret.encode() not in (football / "server.db").read_bytes()
    extraction, trials = cluster.ran(EXTRACTION), cluster.ran(TRIALS)
    print(f"\nextraction {dict(extraction)}, trials {dict(trials)}, check {dict(cluster.ran(CHECK))}")
    assert set(cluster.ran(CHECK)) == set(extraction) == {"0", "1"}
    assert sum(trials.values()) == 8
    assert set(trials) == {"0", "1"}

    images = football.joinpath("football.yaml").read_text().splitlines()[1].partition(" ")[2]
    with SearchProcess(
        football, "evaluate", "--model", "models:/football@champion", "--images", images, uri=uri
    ) as evaluation:
        assert evaluation.end(300) == 0, evaluation.output()
        assert "accuracy" in evaluation.output()
        assert PASSWORD not in evaluation.output()


def test_killed_executors_cost_neither_images_nor_trials(cluster: Cluster, football: Path) -> None:
    port = free_port()
    with SearchProcess(
        football, "search", "--experiment", "football.yaml", "--master", cluster.url, "--connect-port", port
    ) as search:
        features = football / "cache" / "features"
        wait_until(lambda: list(features.glob("*/network.json")) or search.process.poll() is not None, 240)
        time.sleep(4)  # into its first tasks
        os.kill(cluster.executors()[0], signal.SIGKILL)
        first = time.time()
        wait_until(lambda: search.running() or search.process.poll() is not None, 400)
        assert search.process.poll() is None, search.output()
        with search.amid_a_trial(finished=2):
            with socket.socket() as client:
                assert client.connect_ex(("127.0.0.1", port)) != 0  # nothing is served that no trial needs
            finished = len(search.numbers("FINISHED"))
            for pid in cluster.executors():
                os.kill(pid, signal.SIGKILL)
            second = time.time()
        wait_until(lambda: len(search.numbers("FINISHED")) > finished, 300)
        recovered = time.time() - second
        assert search.end(500) == 0, search.output()
        search.assert_whole(8)
        assert search.numbers("KILLED")
        assert "60 images" in search.output() or "(60 images extracted)" in search.output()
    lost = cluster.lost(EXTRACTION)
    assert lost
    assert cluster.lost(TRIALS)
    again = [
        task["Task Info"]["Finish Time"]
        for task in cluster.tasks(EXTRACTION)
        if task["Task End Reason"]["Reason"] == "Success"
    ]
    print(f"\nafter the kill: extracted in {max(again) / 1000 - first:.0f} s, a trial in {recovered:.0f} s")
    print(f"lost: {len(lost)} extraction tasks, {len(cluster.lost(TRIALS))} trials; {cluster.ran(TRIALS)}")


def test_a_cache_on_a_hadoop_filesystem_needs_no_shared_folder(
    cluster: Cluster, football: Path, server: TrackingServer
) -> None:
    (football / "below").mkdir()
    (football / ".tuner").mkdir()
    settings = mount_settings(football / "below", "store")
    cluster.configure(**{f"spark.hadoop.{name}": value for name, value in settings.items()})
    # The driver's copy of the cache is in memory that no other process sees, as on another machine.
    hidden = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none .tuner && exec "$@"', "--")
    alone = (*hidden, sys.executable, "-m", "tuner", "search", "--experiment", "football.yaml")
    options = ("--master", cluster.url, "--cache", "viewfs://store/mounted/cache", "--max_evals", "3")

    def search(*further: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*alone, *options, *further],
            cwd=football,
            env=os.environ | {"MLFLOW_TRACKING_URI": server.uri},
            capture_output=True,
            text=True,
            timeout=900,
        )
        if "unshare: " in done.stderr:
            pytest.skip(f"mounts cannot be hidden here: {done.stderr}")
        return done

    def succeeds(*further: str) -> str:
        done = search(*further)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = [succeeds(), succeeds("--fit", "spark", "--seed", "43")]
    # What MLlib alone fits is saved there, and read again by who has no path to it.
    file = football / "football.yaml"
    kept = [
        line for line in file.read_text().splitlines() if "regParam" not in line and "maxIter" not in line
    ]
    file.write_text("\n".join([*kept, "  classifier: [{name: LinearSVC, prestep: PCA, k: 4:12}]"]) + "\n")
    said.append(succeeds("--max_evals", "1"))
    assert "(60 images extracted)" in said[0]
    assert all("(0 images extracted)" in text for text in said[1:])
    assert "trials fit by MLlib on Spark (fit: auto" in said[2]
    below = football / "below" / "cache"
    assert len(list(below.glob("features/*/part-*.parquet"))) > 1
    assert list(below.glob("staging/*")) == []
    assert list((football / ".tuner").iterdir()) == []
    assert not (football / "cache").exists()


def refused(folder: Path, *arguments: object) -> str:
    """What the command line says; one sentence and exit code 2."""
    done = tuner(folder, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("tuner: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_package_that_workers_lack_is_named(
    cluster: Cluster, football: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = make_python(tmp_path / "poor", without=("tuner", "hyperopt", "scikit_learn", "sklearn"))
    monkeypatch.setenv("PYSPARK_PYTHON", str(poor))
    said = refused(football, "features", "--experiment", "football.yaml", "--master", cluster.url)
    assert f"The worker {socket.gethostname()} lacks hyperopt, scikit-learn" in said


def test_a_python_that_workers_lack_is_named(
    cluster: Cluster, football: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", "/opt/missing/python")
    said = refused(football, "features", "--experiment", "football.yaml", "--master", cluster.url)
    assert "There is no Python /opt/missing/python on a worker" in said


def test_a_parallelism_that_starves_mllib_is_refused(cluster: Cluster, football: Path) -> None:
    options = ("--experiment", "football.yaml", "--master", cluster.url, "--parallelism", 4)
    assert "lower parallelism to 3" in refused(football, "search", *options)


def test_a_master_that_is_away_is_said_at_once(football: Path) -> None:
    url = f"spark://127.0.0.1:{free_port()}"
    said = refused(football, "features", "--experiment", "football.yaml", "--master", url)
    assert f"No Spark master answers at {url}" in said


def test_a_cluster_without_executors_is_said_after_a_minute(
    tmp_path_factory: pytest.TempPathFactory, football: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = Cluster(tmp_path_factory.mktemp("empty") / "spark", workers=0)
    try:
        for name, value in empty.environment().items():
            monkeypatch.setenv(name, value)
        said = refused(football, "features", "--experiment", "football.yaml", "--master", empty.url)
    finally:
        empty.close()
    assert f"No executor of {empty.url} came within 60 s" in said


def test_an_endpoint_that_would_be_open_is_refused(tmp_path: Path) -> None:
    script = """
from pyspark.sql import SparkSession
from tuner.base.errors import SessionError
from tuner.spark.sessions import driver_session
if {first}:  # a JVM that began without the token
    SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate().stop()
for _ in range(2):  # the second session has the JVM of the first
    try:
        with driver_session("guarded", 1) as session:
            print("guarded", session.endpoint.address)
    except SessionError as error:
        print(error)
"""
    for first, said in ((True, "does not keep to this application's token"), (False, "guarded 127.0.0.1:")):
        done = subprocess.run(
            [sys.executable, "-c", script.format(first=first)], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.stdout.count(said) == 2, done.stdout + done.stderr[-2000:]
