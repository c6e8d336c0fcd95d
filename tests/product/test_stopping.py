"""Signals, resumption and who has a search: each on real searches and the other commands."""

import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.conftest import FinishedSearch, tuner
from tests.helpers.searches import SearchProcess, command_line, descendants, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
RANDOM = "[{name: MobileNetV2, weights: random, input_size: [96, 96]}, GlyphNet]"  # seconds of extraction


@pytest.fixture
def folder(tmp_path: Path, finished_search: FinishedSearch) -> Path:
    """A folder with an experiment whose extraction takes its time, and nothing in its cache."""
    (tmp_path / "letters.yaml").write_text(
        "name: letters\n"
        f"images: {finished_search.images}\n"
        "split: {test: 1/4, validation: holdout, validation_ratio: 1/3}\n"
        f"search: {{backbone: {RANDOM}, maxIter: 3:12, max_evals: 8, parallelism: 2}}\n",
        encoding="utf-8",
    )
    return tmp_path


SEARCH = ("search", "--experiment", "letters.yaml")
KEPT = "The features that were extracted and the trials that ended are kept."


def extracting(folder: Path) -> Callable[[], object]:
    return lambda: list(folder.glob(".tuner/features/*/network.json"))


def stop(search: SearchProcess, signum: int, send: Callable[[int, int], None] = os.kill) -> None:
    """Send a signal: the search ends in order, says how to go on, and leaves no process behind."""
    below = list(descendants(search.process.pid))
    send(search.process.pid, signum)
    assert search.end(60) == 128 + signum, search.output()
    wait_until(lambda: not any(map(command_line, below)))
    run = search.search()
    assert run.info.status == "KILLED"
    assert "tuner.stopped" in run.data.tags
    assert search.trials("RUNNING", "FAILED") == []
    resume = f"{KEPT}\nResume it with: tuner search --resume {run.info.run_id}\n"
    assert search.said().endswith(f"tuner: stopped.\n{resume}")
    assert "Traceback" not in search.said()


def test_a_search_that_is_stopped_in_every_phase_still_comes_to_its_end(folder: Path) -> None:
    with SearchProcess(folder, *SEARCH) as search:  # Spark starts
        wait_until(lambda: "MLflow run" in search.said())
        stop(search, signal.SIGTERM)
    resume = ("search", "--resume", "last")
    with SearchProcess(folder, *resume) as search:
        wait_until(extracting(folder))
        stop(search, signal.SIGINT)
        assert "resuming letters, begun 20" in search.said()
    with SearchProcess(folder, *resume) as search:  # the whole group, as a terminal or `mlflow run` does
        wait_until(lambda: list(folder.glob(".tuner/features/*/part-*")))
        stop(search, signal.SIGTERM, os.killpg)
    parts = set(folder.glob(".tuner/features/*/part-*"))
    assert parts
    with SearchProcess(folder, *resume) as search:
        wait_until(lambda: search.trials("FINISHED"), 240)
        stop(search, signal.SIGHUP)
        assert parts <= set(folder.glob(".tuner/features/*/part-*"))
        ended = search.numbers("FINISHED")
    with SearchProcess(folder, *resume) as search:
        wait_until(lambda: "8/8 trials" in search.said(), 240)  # the winner is fitted
        stop(search, signal.SIGINT)
        assert set(ended) <= set(search.numbers("FINISHED"))
    with SearchProcess(folder, *resume) as search:
        assert search.end() == 0, search.output()
        search.assert_whole(8)


def test_ctrl_c_of_mlflow_run_stops_its_search_in_order(folder: Path) -> None:
    """MLflow sends it a SIGTERM right after, waits for its end, and then marks its own run as FAILED."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {
        "MLFLOW_TRACKING_URI": uri,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["run", str(ROOT), "--env-manager", "local", "-P", f"experiment={folder / 'letters.yaml'}"]
    with (folder / "output.log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, "-P", f"cache={folder / '.tuner'}"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        wait_until(extracting(folder), 240)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(120)
        log.seek(0)
        said = log.read()
    client = MlflowClient(uri)
    (outer,) = client.search_runs(["0"])
    run = client.get_run(outer.data.tags["tuner.run_id"])
    assert client.get_experiment(run.info.experiment_id).name == "letters"
    assert "tuner.stopped" in run.data.tags, said
    assert (run.info.status, outer.info.status) == ("KILLED", "FAILED")
    assert "Traceback" not in said
    assert f"Resume it with: tuner search --resume {run.info.run_id}" in said


def test_a_terminal_that_is_closed_stops_a_search_that_draws(folder: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "TERM": "xterm"}
    begin = (
        "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "import tuner.__main__ as command; command.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", begin, *SEARCH],
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""

    def drawing() -> bool:
        nonlocal seen
        seen += os.read(ours, 100_000)
        return b"MobileNetV2" in seen and b"images/s" in seen

    wait_until(drawing, 240)
    os.close(ours)  # the kernel sends SIGHUP
    assert process.wait(60) == 128 + signal.SIGHUP
    with SearchProcess(folder, "search", "--resume", "last") as search:
        assert search.search().info.status == "KILLED"
        assert search.end() == 0, search.output()
        search.assert_whole(8)


COMMANDS = {
    "features": (
        (*SEARCH[1:], "--cache", ".tuner"),
        "The features that were extracted are kept: the same command goes on from there.",
    ),
    "evaluate": (
        ("--model", "models:/letters@champion", "--images", "images"),
        "The same command starts again.",
    ),
    "promote": (
        ("letters", "--version", "2", "--images", "images"),
        "tuner registry letters shows where it stands; the same command starts again.",
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_other_commands_stop_in_order(
    folder: Path, finished_search: FinishedSearch, command: str, signum: int
) -> None:
    arguments, advice = COMMANDS[command]
    uri = None
    if command != "features":
        shutil.copytree(finished_search.images, folder / "images")
        uri = f"sqlite:///{shutil.copy(finished_search.folder / 'mlflow.db', folder)}"
    if command == "promote":
        file = folder / "second.yaml"
        text = (finished_search.folder / "letters.yaml").read_text()
        file.write_text(f"{text}gate: {{min_gain: 1}}\n")
        made = tuner(folder, "search", "--experiment", file, "--max_evals", 1)
        assert made.returncode == 0, made.stderr
        shutil.rmtree(folder / ".tuner" / "features")  # with them it is over within a second
    with SearchProcess(folder, command, *arguments, uri=uri) as process:

        def at_work() -> bool:
            if command == "features":
                return bool(extracting(folder)())
            runs = process.client().search_runs(
                [found.experiment_id for found in process.client().search_experiments()],
                f"tags.`tuner.kind` = '{command}'",
            )
            # A comparison of few images needs no Spark.
            return bool(runs) and (command == "promote" or bool(process.workers()))

        wait_until(at_work)
        process.process.send_signal(signum)
        assert process.end(60) == 128 + signum, process.output()
        assert process.said().endswith(f"tuner: stopped.\n{advice}\n")
        assert "Traceback" not in process.said()
        runs = process.client().search_runs(
            [found.experiment_id for found in process.client().search_experiments()],
            f"tags.`tuner.kind` = '{command}'",
        )
        assert [run.info.status for run in runs] == ["KILLED"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_predict_stops_between_whole_rows(
    folder: Path, finished_search: FinishedSearch, signum: int
) -> None:
    process, rows = predicting(folder, finished_search)
    process.send_signal(signum)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert errors.splitlines()[-1] == "tuner: stopped."
    assert "Traceback" not in errors
    assert all(row.count(",") == 3 for row in [*rows, *rest.splitlines()])


def test_predict_ends_without_a_word_when_nobody_reads_on(
    folder: Path, finished_search: FinishedSearch
) -> None:
    process, _ = predicting(folder, finished_search)
    process.stdout.close()
    with process.stderr:
        assert process.wait(120) == 128 + signal.SIGPIPE
        assert "Traceback" not in process.stderr.read()


def predicting(folder: Path, finished_search: FinishedSearch) -> tuple[subprocess.Popen, list[str]]:
    """`tuner predict` on enough files, and its first rows."""
    images = [str(finished_search.images)] * 100
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "predict", "models:/letters@champion", *images],
        cwd=folder,
        env=os.environ | {"MLFLOW_TRACKING_URI": finished_search.store},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return process, [process.stdout.readline() for _ in range(3)]


def test_a_search_whose_output_nobody_reads_stops_in_order(folder: Path) -> None:
    with SearchProcess(folder, *SEARCH, stdout=subprocess.PIPE) as search:
        assert "MLflow run" in search.process.stdout.readline()
        search.process.stdout.close()
        assert search.end() == 128 + signal.SIGPIPE
        run = search.search()
        assert run.info.status == "KILLED"
        assert search.said().endswith(
            "tuner: stopped, for nobody reads its output any more.\n"
            f"{KEPT}\nResume it with: tuner search --resume {run.info.run_id}\n"
        )


def test_a_search_at_work_is_refused_elsewhere_and_comes_to_its_end(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    with SearchProcess(folder, *SEARCH) as search:
        wait_until(extracting(folder))
        run_id = search.search().info.run_id
        for which in (run_id, "last"):
            options = ("--resume", which, "--cache", "cache")
            with SearchProcess(other, "search", *options, uri=search.uri) as second:
                assert second.end() == 2
                sentence = f"The search {run_id} is still running (process {search.process.pid} on "
                assert sentence in second.said()
                assert second.said().count("\n") == 1
        assert search.end() == 0, search.output()
        search.assert_whole(8)
        assert len(search.client().search_model_versions("name = 'letters'")) == 1


def test_a_search_that_is_taken_over_by_force_gives_way(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    with SearchProcess(folder, *SEARCH, "--max_evals", 200) as search:
        wait_until(extracting(folder))  # before, there may be no run to look for
        wait_until(lambda: search.trials("FINISHED"), 240)
        options = ("--resume", "last", "--cache", "cache", "--force", "--max_evals", 8)
        with SearchProcess(other, "search", *options, uri=search.uri) as second:
            assert search.end(120) == 1
            assert f"was taken over by another process (process {second.process.pid} on " in search.said()
            assert second.end() == 0, second.output()
            assert second.search().info.status == "FINISHED"
            assert second.trials("RUNNING") == []
            assert len(second.client().search_model_versions("name = 'letters'")) == 1
