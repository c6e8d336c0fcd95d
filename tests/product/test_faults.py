"""What a search must survive: each fault is made for real, on a search of eight trials."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FinishedSearch, tuner
from tests.helpers.databases import PostgresServer
from tests.helpers.searches import SearchProcess, TrackingServer, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture
def folder(tmp_path: Path, finished_search: FinishedSearch) -> Path:
    """A folder with an experiment of eight trials, whose features are cached."""
    (tmp_path / "letters.yaml").write_text(
        "name: letters\n"
        f"images: {finished_search.images}\n"
        f"cache: {finished_search.folder / '.tuner'}\n"
        "split: {test: 1/4, validation: holdout, validation_ratio: 1/3}\n"
        "search: {backbone: [GlyphNet, GaborNet], maxIter: 3:12, max_evals: 8, parallelism: 2}\n",
        encoding="utf-8",
    )
    return tmp_path


SEARCH = ("search", "--experiment", "letters.yaml")


def test_a_worker_killed_in_mid_trial_costs_no_trial(folder: Path) -> None:
    with SearchProcess(folder, *SEARCH) as search:
        with search.amid_a_trial():
            workers = search.workers()
            assert workers
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
        assert search.end() == 0, search.output()
        search.assert_whole(8)
        assert 1 <= len(search.trials("KILLED")) <= 2


def test_a_driver_killed_in_mid_search_is_resumed(folder: Path) -> None:
    with SearchProcess(folder, *SEARCH) as search:
        with search.amid_a_trial(finished=2):
            os.kill(search.process.pid, signal.SIGKILL)
        search.end()
        wait_until(lambda: not search.workers(), 30)
        before = {run.info.run_id for run in search.trials("FINISHED")}
        assert search.search().info.status == "RUNNING"
    with SearchProcess(folder, "search", "--resume", "last") as resumed:
        assert resumed.end() == 0, resumed.output()
        resumed.assert_whole(8)
        assert before <= {run.info.run_id for run in resumed.trials("FINISHED")}
        assert f"{len(before)} trials ended before and count" in resumed.output()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_search_ends_in_order_and_is_resumed(folder: Path, signum: int) -> None:
    with SearchProcess(folder, *SEARCH) as search:
        with search.amid_a_trial(finished=1):
            os.kill(search.process.pid, signum)
            time.sleep(5)  # Spark gives a cancelled worker two seconds to end
        assert search.end(60) == 128 + signum
        run_id = search.search().info.run_id
        assert search.search().info.status == "KILLED"
        assert search.trials("RUNNING") == []
        assert search.trials("KILLED")
        assert search.trials("FAILED") == []
        assert f"Resume it with: tuner search --resume {run_id}" in search.output()
        assert "Traceback" not in search.output()
    with SearchProcess(folder, "search", "--resume", run_id) as resumed:
        assert resumed.end() == 0, resumed.output()
        resumed.assert_whole(8)


def test_a_second_ctrl_c_stops_at_once(folder: Path) -> None:
    with SearchProcess(folder, *SEARCH) as search:
        wait_until(search.running)
        os.kill(search.process.pid, signal.SIGINT)
        os.kill(search.process.pid, signal.SIGINT)
        assert search.end(5) == 130


def test_more_trials_of_a_finished_search_and_what_may_not_change(folder: Path) -> None:
    with SearchProcess(folder, *SEARCH) as search:
        assert search.end() == 0, search.output()
        run_id = search.search().info.run_id
    more = ("search", "--resume", run_id, "--max_evals", 10)
    with SearchProcess(folder, *more) as resumed:
        assert resumed.end() == 0, resumed.output()
        resumed.assert_whole(10)
        assert len(resumed.trials()) == 10
        run = resumed.search()
        assert run.info.run_id == run_id
        assert run.data.tags["search.max_evals"] == "10"
    for options, sentence in (
        (("--metric", "f1"), "search.metric was accuracy and is f1"),
        (("--seed", 3), "search.seed was 42 and is 3"),
        (("--experiment", "missing.yaml"), "There is no experiment file missing.yaml"),
    ):
        refused = tuner(folder, "search", "--resume", run_id, *options)
        assert refused.returncode == 2
        assert sentence in refused.stderr
    for which in ("0" * 32, run_id[:8]):
        refused = tuner(folder, "search", "--resume", which)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr


def test_a_trial_that_hangs_fails_and_the_search_goes_on(folder: Path) -> None:
    with SearchProcess(folder, *SEARCH, "--trial_timeout", 20) as search:
        wait_until(lambda: search.running() and len(search.trials("FINISHED")) >= 2)
        stopped = search.workers()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        begun = len(search.trials())
        assert search.end() == 0, search.output()
        failed = search.trials("FAILED")
        assert 1 <= len(failed) <= 2  # one a slot, even if it hung before it had a run
        assert search.numbers("FAILED")[-1] <= begun + 2  # none that came after
        assert search.numbers("FINISHED", "FAILED") == list(range(1, 9))
        assert search.trials("RUNNING") == []
        artifact = search.client().download_artifacts(failed[0].info.run_id, "error.txt", str(folder))
        assert "took longer than trial_timeout, 20 s" in Path(artifact).read_text()


@pytest.fixture(params=[TrackingServer, PostgresServer])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TrackingServer | PostgresServer]:
    """A tracking server, or a database without one."""
    server = request.param(tmp_path)
    server.start()
    yield server
    server.stop()


def test_a_store_that_is_away_for_20_s_is_waited_for(
    folder: Path, server: TrackingServer | PostgresServer
) -> None:
    with SearchProcess(folder, *SEARCH, uri=server.uri) as search:
        wait_until(lambda: search.running() and len(search.trials("FINISHED")) >= 2)
        server.stop()
        time.sleep(20)
        server.start()
        assert search.end() == 0, search.output()
        search.assert_whole(8)
        assert len(search.trials()) == 8


def test_a_store_that_is_gone_for_good_loses_nothing(
    folder: Path, server: TrackingServer | PostgresServer
) -> None:
    with SearchProcess(folder, *SEARCH, uri=server.uri) as search:
        wait_until(lambda: search.running() and len(search.trials("FINISHED")) >= 2)
        run_id = search.search().info.run_id
        server.stop()
        assert search.end(400) == 1, search.output()
        output = search.output()
        assert "does not answer any more" in output
        assert f"Resume it with: tuner search --resume {run_id}" in output
        assert "Traceback" not in output
    unsent = output.partition("tuner push ")[2].split()[0]
    assert Path(unsent).is_dir()
    with SearchProcess(folder, "push", unsent, uri=server.uri) as pushed:
        assert pushed.end() == 2
        said = pushed.output().removeprefix(output)
        assert "does not answer" in said
        assert said.count("\n") == 1
    assert Path(unsent).is_dir()
    server.start()
    finished = len(search.trials("FINISHED"))
    with SearchProcess(folder, "push", unsent, uri=server.uri) as pushed:
        assert pushed.end() == 0, pushed.output()
    assert not Path(unsent).exists()
    assert len(search.trials("FINISHED")) > finished
    for run in search.trials("FINISHED"):
        assert {"accuracy", "objectiveHistory"} <= run.data.metrics.keys()
        names = {file.path for file in search.client().list_artifacts(run.info.run_id)}
        assert {"confusion_matrix.json", "predictions.json"} <= names
    with SearchProcess(folder, "search", "--resume", run_id, uri=server.uri) as resumed:
        assert resumed.end() == 0, resumed.output()
        resumed.assert_whole(8)


def test_a_full_disk_is_a_sentence_and_the_next_search_goes_on(folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs the right to")
    try:
        filler = small / "filler"
        full = tuner(
            folder, "search", "--experiment", "letters.yaml", "--cache", small, "--backbone", "GaborNet"
        )
        assert full.returncode == 0, full.stderr  # it fits, as long as nothing else is there
        used = sum(file.stat().st_size for file in small.rglob("*") if file.is_file())
        subprocess.run(["find", str(small), "-name", "part-*", "-delete"], check=True)
        filler.write_bytes(b"x" * (2 * 2**20 - used - 8192))
        refused = tuner(
            folder, "search", "--experiment", "letters.yaml", "--cache", small, "--backbone", "GaborNet"
        )
        assert (refused.returncode, refused.stderr.count("Traceback")) == (2, 0), refused.stderr
        assert "No space left on device" in refused.stderr
        filler.unlink()
        with SearchProcess(folder, *SEARCH, "--cache", small, "--backbone", "GaborNet") as search:
            assert search.end() == 0, search.output()
            search.assert_whole(8)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_damaged_cache_files_are_found_and_extracted_again(folder: Path) -> None:
    cache = folder / "cache"
    first = tuner(folder, "features", "--experiment", "letters.yaml", "--cache", cache)
    assert first.returncode == 0, first.stderr
    cut, flipped = sorted(cache.glob("features/*/part-*.parquet"))[:2]
    cut.write_bytes(cut.read_bytes()[:-100])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    with SearchProcess(folder, *SEARCH, "--cache", cache) as search:
        assert search.end() == 0, search.output()
        search.assert_whole(8)
        assert search.output().count("of the feature cache were damaged and are removed") in (1, 2)


def test_two_searches_at_once_on_one_cache_and_one_store(folder: Path) -> None:
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    other = folder / "other"
    other.mkdir()
    text = (folder / "letters.yaml").read_text().replace("name: letters", "name: others")
    (other / "letters.yaml").write_text(text)
    options = (*SEARCH, "--cache", folder / "cache")
    with SearchProcess(folder, *options) as first, SearchProcess(other, *options, uri=uri) as second:
        assert first.end(400) == 0, first.output()
        assert second.end(400) == 0, second.output()
        extracted = [
            int(process.output().rpartition(" images extracted)")[0].rpartition("(")[2])
            for process in (first, second)
        ]
    assert sum(extracted) == 2 * 62  # each file once through each network, by one of the two
    client = first.client()
    for name in ("letters", "others"):
        experiment = client.get_experiment_by_name(name)
        runs = client.search_runs([experiment.experiment_id], "tags.`tuner.kind` = 'trial'")
        assert sorted(int(run.data.tags["tuner.trial"]) for run in runs) == list(range(1, 9))
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert client.get_model_version_by_alias(name, "champion").version
