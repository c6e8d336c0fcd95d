"""Signals to a process of its own: what ends it, in what order, and with which code."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tuner.base.interrupts import (
    NOT_READ,
    Interrupted,
    advice,
    advising,
    ask_to_stop,
    is_stopping,
    stop_counts,
    stop_requests,
    uninterrupted,
)

HEAD = """
import hashlib, os, signal, sys, threading, time
from tuner.base.interrupts import *

def say(*words):
    print(*words, flush=True)

def in_c():  # for minutes; no signal handler of Python's runs meanwhile
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)

def ready():  # said once the main thread is in what follows
    threading.Timer(0.3, say, ["ready"]).start()
"""


class Script:
    """A program that takes signals; it says `ready` when it may get one."""

    def __init__(self, text: str, **settings: object) -> None:
        program = HEAD + textwrap.dedent(text)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, **settings
        )
        assert self.process.stdout.readline() == "ready\n"

    def end(self, *signals: int) -> tuple[int, list[str]]:
        """Send signals, one after the other; gives the exit code and what was said."""
        for signum in signals:
            self.process.send_signal(signum)
            time.sleep(0.2)
        said, _ = self.process.communicate(timeout=120)
        return self.process.returncode, said.split("\n")[:-1]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_unwinds_what_runs(signum: int):
    script = Script("""
        with stop_requests():
            try:
                ready()
                time.sleep(600)
            except Interrupted as stopped:
                say("unwound", is_stopping())
                sys.exit(stopped.exit_code)
        """)
    assert script.end(signum) == (128 + signum, ["unwound True"])


def test_the_second_signal_ends_at_once_what_unwinds():
    script = Script("""
        with stop_requests():
            try:
                ready()
                time.sleep(600)
            finally:
                say("unwinding")
                in_c()
        """)
    assert script.end(signal.SIGTERM, signal.SIGTERM) == (143, ["unwinding"])


def test_another_signal_is_part_of_the_same_stop():
    script = Script("""
        with stop_requests():
            try:
                ready()
                time.sleep(600)
            except Interrupted as stopped:
                time.sleep(2)
                say("unwound")
                sys.exit(stopped.exit_code)
        """)
    assert script.end(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) == (130, ["unwound"])


def test_the_second_signal_ends_at_once_what_is_in_c():
    script = Script("""
        with stop_requests():
            ready()
            in_c()
        """)
    assert script.end(signal.SIGINT, signal.SIGINT) == (130, [])


@pytest.mark.parametrize("stuck", ["in_c()", "threading.Event().wait()"])
def test_what_does_not_unwind_is_ended_by_force_after_its_last_deeds(stuck: str):
    script = Script(f"""
        def refuses():
            raise OSError
        with stop_requests(forced=lambda signum: say("forced", signum)):
            with at_last(lambda: say("first")), at_last(refuses), at_last(lambda: say("second")):
                with at_last(lambda: say("over")):
                    pass
                try:
                    ready()
                    {stuck}
                finally:
                    {stuck}
        """)
    code, said = script.end(signal.SIGTERM)
    assert (code, sorted(said[:2]), said[2:]) == (143, ["first", "second"], ["forced 15"])


def test_last_deeds_that_hang_are_not_waited_for():
    script = Script("""
        with stop_requests(forced=lambda signum: say("forced")):
            with at_last(in_c), at_last(lambda: say("done")):
                ready()
                in_c()
        """)
    assert script.end(signal.SIGINT) == (130, ["done", "forced"])


def test_a_word_that_nobody_takes_is_not_waited_for():
    script = Script("""
        with stop_requests(forced=lambda signum: in_c()):
            ready()
            in_c()
        """)
    assert script.end(signal.SIGINT) == (130, [])


def test_a_program_under_nohup_outlives_its_terminal():
    text = """
        with stop_requests():
            ready()
            for _ in range(20):
                time.sleep(0.1)
            say("went on")
        """
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    assert Script(text, **ignoring).end(signal.SIGHUP) == (0, ["went on"])


def test_a_handler_lets_the_work_come_to_its_end():
    script = Script("""
        done = threading.Event()
        with stop_requests() as stop:
            try:
                with stop.handled_by(done.set):
                    ready()
                    done.wait()
                    say("came to its end")
                say("never")
            except Interrupted as stopped:
                sys.exit(stopped.exit_code)
        """)
    assert script.end(signal.SIGINT) == (130, ["came to its end"])


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)  # the handler runs between two instructions


def test_a_short_step_comes_to_its_end_before():
    steps = []

    def work() -> None:
        with stop_requests(), uninterrupted():
            with uninterrupted():
                interrupt()
                steps.append("inner")
            steps.append("outer")

    with pytest.raises(Interrupted):
        work()
    assert steps == ["inner", "outer"]
    assert not is_stopping()


def test_an_error_that_a_stop_makes_is_that_stop():
    def work() -> None:
        with stop_requests(), stop_counts():
            try:
                interrupt()
            finally:
                raise ConnectionError("what was cut off")

    with pytest.raises(Interrupted) as caught:
        work()
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_another_error_stays_what_it_is():
    with pytest.raises(ConnectionError), stop_requests(), stop_counts():
        raise ConnectionError("the server")


def test_inner_requests_are_the_outer_ones_and_handlers_are_given_back():
    before = signal.getsignal(signal.SIGINT)
    with stop_requests() as outer:
        with stop_requests() as inner:
            assert inner is outer
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_other_threads_take_no_signals():
    taken = []

    def work() -> None:
        with stop_requests(), uninterrupted():
            taken.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert taken == [before]


def test_any_thread_may_ask_for_a_stop():
    def work() -> None:
        with stop_requests():
            threading.Thread(target=ask_to_stop, args=(NOT_READ,)).start()
            time.sleep(60)

    with pytest.raises(Interrupted) as caught:
        work()
    assert caught.value.exit_code == 141


def test_advice_outlives_what_was_stopped_and_nothing_else():
    def work() -> None:
        with stop_requests():
            with advising("for what is over"):
                pass
            try:
                with advising("first"), advising("second", "third"):
                    interrupt()
            finally:
                assert advice() == ["first", "second", "third"]

    with pytest.raises(Interrupted):
        work()
    assert advice() == []


def test_the_command_ends_at_once_while_it_is_imported():
    blocking = (
        "import sys, time\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'tuner.cli.main':\n"
        "            print('ready', flush=True)\n"
        "            time.sleep(600)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "import runpy; runpy.run_module('tuner', run_name='__main__')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", blocking],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "")
