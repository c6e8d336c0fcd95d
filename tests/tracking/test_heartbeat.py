"""Who is at work on a search: processes of this machine are looked at, others are heard of."""

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.helpers.searches import wait_until
from tuner.base.errors import TrackingError
from tuner.tracking import heartbeat
from tuner.tracking.heartbeat import Beat, Heartbeat, check_free
from tuner.tracking.names import HEARTBEAT
from tuner.tracking.store import Tracking


@pytest.fixture
def run_id(store: Tracking) -> str:
    return store.client().create_run(store.experiment_id).info.run_id


def leave(store: Tracking, run_id: str, beat: Beat) -> None:
    store.client().set_tag(run_id, HEARTBEAT, json.dumps(dataclasses.asdict(beat)))


def check(store: Tracking, run_id: str) -> None:
    check_free(store.client().get_run(run_id), "search at hand")


@contextmanager
def another_process() -> Iterator[tuple[subprocess.Popen, Beat]]:
    """A process of this machine, and what it would leave."""
    process = subprocess.Popen(["sleep", "600"])
    try:
        started = heartbeat._started(process.pid)
        yield process, dataclasses.replace(Beat.of_this_process(), pid=process.pid, started=started)
    finally:
        process.kill()
        process.wait()


def test_a_search_at_work_on_this_machine_is_refused_however_long_it_is_silent(
    store: Tracking, run_id: str
):
    with another_process() as (process, beat):
        leave(store, run_id, dataclasses.replace(beat, at=time.time() - 3600))
        sentence = (
            f"still running .process {process.pid} on .*, last heard of 3600 s ago.: stop it.*--force"
        )
        with pytest.raises(TrackingError, match=sentence):
            check(store, run_id)


@pytest.mark.parametrize("waited_for", [False, True])
def test_a_search_whose_process_was_killed_is_free_at_once(store: Tracking, run_id: str, waited_for: bool):
    with another_process() as (process, beat):
        leave(store, run_id, beat)
        process.kill()
        if waited_for:
            process.wait()
        wait_until(lambda: heartbeat._started(process.pid) is None)
        check(store, run_id)


def test_a_later_process_of_the_same_number_is_another(store: Tracking, run_id: str):
    with another_process() as (_, beat):
        leave(store, run_id, dataclasses.replace(beat, started="1"))
        check(store, run_id)


@pytest.mark.parametrize(("silent", "free"), [(0, False), (50, False), (61, True), (-3600, False)])
def test_another_machine_is_believed_for_a_minute(store: Tracking, run_id: str, silent: int, free: bool):
    elsewhere = dataclasses.replace(Beat.of_this_process(), host="there", place="there", pid=1, started="1")
    leave(store, run_id, dataclasses.replace(elsewhere, at=time.time() - silent))
    if free:
        check(store, run_id)
    else:
        with pytest.raises(TrackingError, match="process 1 on there"):
            check(store, run_id)


@pytest.mark.parametrize("tag", [None, "", "{}", "[1]", '{"host": 1}'])
def test_a_search_without_a_sign_that_can_be_read_is_free(store: Tracking, run_id: str, tag: str | None):
    if tag is not None:
        store.client().set_tag(run_id, HEARTBEAT, tag)
    check(store, run_id)


def test_a_search_that_ended_is_free(store: Tracking, run_id: str):
    leave(store, run_id, Beat.of_this_process())
    store.client().set_terminated(run_id, "KILLED")
    check(store, run_id)


def test_of_several_that_resume_a_search_at_once_one_has_it(store: Tracking, run_id: str):
    leave(store, run_id, dataclasses.replace(Beat.of_this_process(), started="1"))
    outcomes = []

    def resume() -> None:
        try:
            Heartbeat(store).claim(run_id)
            outcomes.append("mine")
        except TrackingError as error:
            outcomes.append(str(error).partition(" (")[0])

    threads = [threading.Thread(target=resume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [
        *[f"The search {run_id} is being resumed by another process, too"] * 3,
        "mine",
    ]


def sign(store: Tracking, run_id: str) -> Beat:
    return Beat.of_run(store.client().get_run(run_id))


def test_signs_come_until_the_end(store: Tracking, run_id: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heartbeat, "_BEAT_SECONDS", 0.1)
    with Heartbeat(store).beating(run_id):
        first = sign(store, run_id).at
        with pytest.raises(TrackingError):
            check(store, run_id)
        wait_until(lambda: sign(store, run_id).at > first)
    wait_until(lambda: "heartbeat" not in {thread.name for thread in threading.enumerate()})


HELD = """
import sys, time
from tuner.tracking import heartbeat
from tuner.tracking.store import Tracking
heartbeat._BEAT_SECONDS = 0.1
with heartbeat.Heartbeat(Tracking(sys.argv[1], sys.argv[2])).beating(sys.argv[3]):
    print("ready", flush=True)
    try:
        time.sleep(600)
    finally:
        print("touched something", flush=True)
"""


@pytest.mark.long
def test_a_search_that_was_taken_over_ends_without_touching_anything(store: Tracking, run_id: str):
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, store.uri, store.experiment_id, run_id],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(TrackingError, match=f"process {process.pid} on"):
        check(store, run_id)
    Heartbeat(store)._write(run_id)
    said, errors = process.communicate(timeout=120)
    assert (process.returncode, said) == (1, "")
    assert f"the search {run_id} was taken over by another process (process " in errors
    assert store.client().get_run(run_id).info.status == "RUNNING"
