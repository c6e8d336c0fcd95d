"""Ctrl-C, SIGTERM, a closed terminal or pipe: the first ends the work in order, the second at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a stop takes at most, five seconds: for the work to come to its end by itself, for what is to be done
# before it is ended by force, for a word on it.
_ORDERLY_SECONDS, _LAST_SECONDS, _WORD_SECONDS = 3.0, 1.5, 0.3
NOT_READ = signal.SIGPIPE  # in `ask_to_stop`; as a signal Python ignores it, for sockets break, too

Action = Callable[[], object]


def _run_until(deadline: float, actions: Sequence[Action]) -> None:
    """Do things side by side, as far as they come in time; one that hangs keeps none of the others."""

    def run(action: Action) -> None:
        with suppress(Exception):
            action()

    threads = [threading.Thread(target=run, args=(action,), daemon=True) for action in [*actions]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))


class Interrupted(BaseException):
    """The user, or the system, stopped the process; `signum` is the signal.

    Not a `KeyboardInterrupt`, which command line libraries take for their own.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """What shells make of an end by this signal."""
        return 128 + self.signum


class StopRequests:
    """Takes the signals that ask this process to stop.

    The first one raises `Interrupted` in the main thread or, where `handled_by` says so, calls a function
    and lets the work come to its end. The same signal once more ends the process; another one is part of
    the same stop: after a Ctrl-C, `mlflow run` sends a SIGTERM on its own.

    Parameters
    ----------
    forced
        Given, the process ends some seconds after the first one, too, whatever holds it up: code in C keeps
        the main thread from raising, servers keep it from their answers. What is to be done before
        (`at_last`) is done, and this is called.
    """

    def __init__(self, forced: Callable[[int], object] | None = None) -> None:
        self.signum: int | None = None
        self.advice: list[str] = []  # how to go on with what is stopped
        self.last: list[Action] = []
        self.freeing: list[Action] = []
        self._forced = forced
        self._handler: Action | None = None
        self._postponed = 0
        self._asked: int | None = None
        self._over = threading.Event()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals of this process, and give them back at the end."""
        before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
        if before[signal.SIGHUP] == signal.SIG_IGN:  # started with nohup, to outlive its terminal
            del before[signal.SIGHUP]
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        # A thread learns of a signal at once; the main thread when it comes back from C.
        watcher = threading.Thread(target=self._watch, args=(receiver,), name="stop-requests", daemon=True)
        with receiver, sender:
            watcher.start()
            earlier = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
            for signum in before:
                signal.signal(signum, self._receive)
            try:
                yield
            finally:
                self._over.set()
                for signum, handler in before.items():
                    signal.signal(signum, handler)
                signal.set_wakeup_fd(earlier)
                sender.shutdown(socket.SHUT_RDWR)
                watcher.join()

    def _watch(self, receiver: socket.socket) -> None:
        seen: set[int] = set()
        while byte := receiver.recv(1):
            signum = byte[0]
            if signum not in _SIGNALS or self._over.is_set():
                continue
            if signum in seen:
                os._exit(128 + signum)
            if not seen and self._forced is not None:
                threading.Thread(target=self._force, args=(self._asked or signum,), daemon=True).start()
            seen.add(signum)

    def _force(self, signum: int) -> None:
        if self._over.wait(_ORDERLY_SECONDS):
            return
        deadline = time.monotonic() + _LAST_SECONDS
        _run_until(deadline, self.last)
        if not self._over.is_set():
            _run_until(deadline + _WORD_SECONDS, [lambda: self._forced and self._forced(signum)])
            os._exit(128 + signum)

    def _receive(self, signum: int, _: FrameType | None) -> None:
        if self.signum is not None:
            return  # the thread ends the process
        self.signum = self._asked or signum
        if self._handler is not None:
            self._handler()
        elif not self._postponed:
            self.raise_if_asked()

    def ask(self, signum: int) -> None:
        """Stop as if a signal had come, from any thread."""
        self._asked = signum
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def raise_if_asked(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.signum is None:
            return
        for action in self.freeing:
            with suppress(Exception):
                action()
        raise Interrupted(self.signum)

    @contextmanager
    def handled_by(self, handler: Action) -> Iterator[None]:
        """Call a function at the first signal; at the end, raise if there was one."""
        self._handler = handler
        try:
            yield
        finally:
            self._handler = None
        self.raise_if_asked()

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """Raise at the end, not in the midst."""
        self._postponed += 1
        try:
            yield
        finally:
            self._postponed -= 1
            if not self._postponed:
                self.raise_if_asked()


_current: StopRequests | None = None  # those of this process; signals are a process's


@contextmanager
def stop_requests(forced: Callable[[int], object] | None = None) -> Iterator[StopRequests]:
    """Take the signals; within another call, and outside of the main thread, nothing is taken anew.

    Once a stop was asked for, any other error is what it cut off: `Interrupted` is raised instead.
    """
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield _current or StopRequests()
        return
    _current = StopRequests(forced)
    try:
        with _current.listening(), stop_counts():
            yield _current
    finally:
        _current = None


@contextmanager
def stop_counts() -> Iterator[None]:
    """Once a stop was asked for, raise `Interrupted` in place of whatever error that makes."""
    try:
        yield
    except Exception as error:
        if _current is None or _current.signum is None:
            raise
        raise Interrupted(_current.signum) from error


def ask_to_stop(signum: int) -> None:
    """Stop this process as if a signal had come, from any thread; nobody may be listening."""
    if _current is not None:
        _current.ask(signum)


def advice() -> list[str]:
    """How to go on with what is stopped."""
    return list(_current.advice) if _current else []


def is_listening() -> bool:
    """Whether the signals of this process are taken already."""
    return _current is not None


def is_stopping() -> bool:
    """Whether this process was asked to stop."""
    return _current is not None and _current.signum is not None


def uninterrupted() -> AbstractContextManager[None]:
    """Let a short step come to its end before a stop: half of it would be worse than none."""
    if _current is None or threading.current_thread() is not threading.main_thread():
        return nullcontext()
    return _current.postponed()


@contextmanager
def at_last(action: Action) -> Iterator[None]:
    """Do something before the process is ended by force meanwhile, from another thread."""
    with _listed(action, _current.last if _current else []):
        yield


@contextmanager
def freed_by(action: Action) -> Iterator[None]:
    """Do something in the main thread before it raises meanwhile, to free it from where it is."""
    with _listed(action, _current.freeing if _current else []):
        yield


@contextmanager
def _listed(action: Action, actions: list[Action]) -> Iterator[None]:
    actions.append(action)
    try:
        yield
    finally:
        actions.remove(action)


@contextmanager
def advising(*how: str) -> Iterator[None]:
    """Say how to go on, in lines of their own, if a stop comes meanwhile."""
    stop = _current or StopRequests()
    before = stop.advice
    stop.advice = [*before, *how]
    try:
        yield
    finally:
        if stop.signum is None:
            stop.advice = before
