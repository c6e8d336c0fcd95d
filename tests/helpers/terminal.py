"""A command in a terminal: a pseudo-terminal, and the screen that a person would see."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pyte

from tests.helpers.searches import kill_tree, wait_until


class Terminal:
    """A command that runs in a terminal of its own.

    Parameters
    ----------
    command
        The program and its arguments.
    folder
        Where it runs.
    columns, lines
        The size of the screen; what scrolls out of it is kept nowhere.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, *, columns: int = 110, lines: int = 40
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        self.process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=environment | {"TERM": "xterm-256color", "COLORTERM": ""},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._ours = ours
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                some = os.read(self._ours, 65536)
            except OSError:  # the command has ended
                return
            if not some:
                return
            with self._lock:
                self._stream.feed(some)

    def text(self) -> str:
        """What stands on the screen, without the spaces at the ends of its lines."""
        with self._lock:
            return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def wait_for(self, condition: Callable[[str], object], seconds: float = 240) -> str:
        """Wait for something on the screen; gives what stands there then."""
        found = ""

        def is_there() -> bool:
            nonlocal found
            found = self.text()
            return bool(condition(found)) or self.process.poll() is not None

        wait_until(is_there, seconds)
        assert condition(found), found
        return found

    def end(self, seconds: float = 240) -> int:
        """Wait for the command's end, and for its last words; gives the exit code."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        kill_tree(self.process)
        self._reader.join(10)
        os.close(self._ours)
