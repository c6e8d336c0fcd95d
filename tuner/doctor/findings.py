"""What an examination finds: in order, worth a note, or in a search's way, with what to type."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from tuner.base.errors import TunerError
from tuner.base.wording import first_line

State = Literal["ok", "note", "wrong", "left out"]


@dataclass(frozen=True)
class Finding:
    """One line of an examination.

    Attributes
    ----------
    about
        What was looked at, in a word.
    state
        `ok`; `note`: worth knowing, and no hindrance; `wrong`: a search would not run; `left out`: it could
        not be looked at, for something else is wrong.
    said
        What is so, or what is wrong.
    type
        What to type against it; empty where `said` has all of it.
    """

    about: str
    state: State
    said: str
    type: str = ""


Check = Callable[[], Iterable[Finding]]


def examined(about: str, check: Check, advice: str = "") -> Iterator[Finding]:
    """What a check finds; where a search would be refused, the sentence that it would be refused with.

    Parameters
    ----------
    about
        What the check looks at.
    check
        Gives its findings, or raises what a search would.
    advice
        What to type where it raises.
    """
    try:
        yield from check()
    except TunerError as error:
        yield Finding(about, "wrong", str(error), advice)
    except Exception as error:  # an examination goes on, whatever a library does
        yield Finding(about, "wrong", f"{type(error).__name__}: {first_line(error)}.", advice)


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect what tuner warns of meanwhile, which else goes to standard error."""
    logger, listener = logging.getLogger("tuner"), _Listener()
    before = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield listener.heard
    finally:
        logger.removeHandler(listener)
        logger.propagate = before
