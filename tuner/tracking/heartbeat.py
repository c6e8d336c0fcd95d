"""A search's sign of life, or of what is like one: a tag, by which any machine knows who is at work."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from mlflow.entities import Run

from tuner.base.errors import TrackingError
from tuner.tracking.names import HEARTBEAT
from tuner.tracking.store import Tracking

_BEAT_SECONDS = 10.0
_DEAD_SECONDS = 60.0  # without a sign, on another machine
_SETTLE_SECONDS = 1.0  # for two that resume one search at once: the one that wrote last has it


@dataclass(frozen=True)
class Beat:
    """Who is at work on a search, and when that was last written.

    `place` is where `pid` means something: a host may have the name of another, and a container numbers of
    its own. `started` tells a process from a later one of the same number.
    """

    host: str
    place: str
    pid: int
    started: str
    at: float = field(default_factory=time.time)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def of_this_process(cls) -> Beat:
        """Make a first sign."""
        return cls(socket.gethostname(), _place(), os.getpid(), _started(os.getpid()) or "")

    @classmethod
    def of_run(cls, run: Run) -> Beat | None:
        """Read a run's last sign; None where there is none that can be read."""
        try:
            return cls(**json.loads(run.data.tags[HEARTBEAT]))
        except (KeyError, TypeError, ValueError):
            return None

    def lives(self) -> bool:
        """Whether the process may still be at work."""
        if self.place == _place():
            return _started(self.pid) == self.started
        return time.time() - self.at < _DEAD_SECONDS

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, last heard of {max(time.time() - self.at, 0):.0f} s ago"


@lru_cache(maxsize=1)
def _place() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):  # not on Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """When a process of this machine began, in its kernel's terms; None if there is none."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except OSError:  # somebody else's
            pass
        return ""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in "ZX" else fields[19]


def check_free(run: Run, which: str) -> None:
    """Refuse a run that another process is at work on; `which` it is, for people.

    Raises
    ------
    TrackingError
        Who it is, and what to do.
    """
    beat = Beat.of_run(run)
    if run.info.status == "RUNNING" and beat is not None and beat.lives():
        raise TrackingError(
            f"The {which} is still running ({beat}): stop it, or let it end. If it is "
            f"surely gone, wait until it was not heard of for {_DEAD_SECONDS:.0f} s; --force takes it over "
            "at once."
        )


class Heartbeat:
    """The signs of life of this process's search, written to its run; `what` it is, for people."""

    def __init__(self, tracking: Tracking, what: str = "search") -> None:
        self._tracking = tracking
        self._what = what
        self._beat = Beat.of_this_process()

    def claim(self, run_id: str) -> None:
        """Take a search that nobody is at work on, before its run is touched.

        Raises
        ------
        TrackingError
            Another process did so at the same moment.
        """
        self._write(run_id)
        time.sleep(_SETTLE_SECONDS)
        other = self._other(run_id)
        if other is not None:
            raise TrackingError(
                f"The {self._what} {run_id} is being resumed by another process, too ({other}): let it go "
                "on."
            )

    @contextmanager
    def beating(self, run_id: str) -> Iterator[None]:
        """Write a sign every few seconds meanwhile.

        Where another process has taken the search over, this one ends at once: whatever it did to the run,
        its trials or the registry would be done to the other's.
        """
        self._write(run_id)
        over = threading.Event()
        thread = threading.Thread(
            target=self._keep_beating, args=(run_id, over), name="heartbeat", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            over.set()

    def _keep_beating(self, run_id: str, over: threading.Event) -> None:
        while not over.wait(_BEAT_SECONDS):
            with suppress(Exception):  # a store that is away hears the next one
                other = self._other(run_id)
                if over.is_set():
                    return
                if other is not None:
                    _give_way(f"{self._what} {run_id}", other)
                self._write(run_id)

    def _write(self, run_id: str) -> None:
        sign = asdict(self._beat) | {"at": time.time()}
        self._tracking.client().set_tag(run_id, HEARTBEAT, json.dumps(sign), synchronous=True)

    def _other(self, run_id: str) -> Beat | None:
        """Who wrote the last sign, if it was somebody else."""
        beat = Beat.of_run(self._tracking.client().get_run(run_id))
        return None if beat is None or beat.token == self._beat.token else beat


def _give_way(which: str, other: Beat) -> None:
    text = f"tuner: the {which} was taken over by another process ({other}): this one ends.\n"
    with suppress(OSError):
        os.write(2, text.encode("ascii", "backslashreplace"))
    os._exit(1)
