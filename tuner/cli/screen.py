"""What the commands write to: a console for people, and the end of what nobody reads any more."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from rich.console import Console
from rich.table import Table

from tuner.base.interrupts import NOT_READ, advice, ask_to_stop
from tuner.base.wording import visible

# The groups of commands in `tuner --help`.
BEFORE, SEARCHES, MODELS, MACHINE = "Before a search", "Searches", "Models", "This machine"
_LOG_WIDTH = 200  # of tables in a file or a pipe
_SHOW_CURSOR = "\x1b[?25h"  # a bar that is drawn hides it


class Screen(Console):
    """A console; a reader that has gone away, as `head` does, ends the command in order."""

    def on_broken_pipe(self) -> None:
        """Write nothing more, and stop; rich's own way leaves with success."""
        self.quiet = True
        stop_unread(self.file)  # type: ignore[arg-type]

    def say(self, text: str) -> None:
        """Write a line as it is, in letters that can be seen."""
        self.print(visible(text), markup=False, soft_wrap=True)

    def show(self, table: Table) -> None:
        """Write a table: a file or a pipe has no width of its own, and cut names are of no use there."""
        (self if self.is_terminal else Screen(width=_LOG_WIDTH)).print(table)


def stop_unread(out: TextIO) -> None:
    """Stop the command, for nobody reads what it writes; what is still in the buffer goes nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    ask_to_stop(NOT_READ)


def say_stopped(signum: int) -> None:
    """Write that the command was stopped, and how to go on, to standard error; from any thread.

    Past Python's buffers and rich's locks: a thread that is stuck may hold them. Who pipes the command
    into `head` needs no word, unless there is something to go on with.
    """
    how = advice()
    if signum == NOT_READ and not how:
        return
    said = "stopped, for nobody reads its output any more" if signum == NOT_READ else "stopped"
    text = "\n".join([f"tuner: {said}.", *how, ""])
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    with suppress(OSError):
        os.write(2, ((_SHOW_CURSOR if os.isatty(2) else "") + text).encode(encoding, "backslashreplace"))


def end_at_once(code: int) -> None:
    """End the process now: threads of libraries would be waited for."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
