"""Ctrl-C and SIGTERM: the first one ends a search in order, the second one at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The user, or the system, stopped the process; `signum` is the signal.

    Not a `KeyboardInterrupt`, which command line libraries take for their own.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class StopRequests:
    """Takes the signals that ask this process to stop.

    The first one raises `Interrupted` or, where `handled_by` says so, calls a function and lets the work
    come to its end; `check` raises then. The second one ends the process.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._handler: Callable[[], None] | None = None

    def listen(self) -> None:
        """Take the signals, also from a library that has taken them meanwhile, as pyspark does."""
        if threading.current_thread() is threading.main_thread():
            for signum in _SIGNALS:
                signal.signal(signum, self._receive)

    def _receive(self, signum: int, _: FrameType | None) -> None:
        if self._signum is not None:
            os._exit(128 + signum)
        self._signum = signum
        if self._handler is None:
            raise Interrupted(signum)
        self._handler()

    @contextmanager
    def handled_by(self, handler: Callable[[], None]) -> Iterator[None]:
        """Call a function at the first signal; at the end, raise if there was one."""
        self._handler = handler
        try:
            yield
        finally:
            self._handler = None
        self.check()

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self._signum is not None:
            raise Interrupted(self._signum)


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Take the signals, and give them back at the end."""
    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    requests = StopRequests()
    requests.listen()
    try:
        yield requests
    finally:
        if threading.current_thread() is threading.main_thread():
            for signum, handler in before.items():
                signal.signal(signum, handler)
