"""Errors of other libraries, and names of all kinds, fit for a sentence."""

from __future__ import annotations

import re
from unicodedata import category

VERBOSE = "TUNER_VERBOSE"  # in the environment, workers' too: notices of libraries are shown
_UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, halves of pairs, ends of lines


def first_line(error: object) -> str:
    """What an error says first, without its full stop; its class where it says nothing."""
    said = str(error).strip() or repr(error)
    return said.splitlines()[0].strip().rstrip(".")


def first_sentence(message: object) -> str:
    """What a message says first, up to its first full stop or line break."""
    return re.split(r"\.?\s*\n|\.\s|\.?$", str(message).strip(), maxsplit=1)[0]


def clock(seconds: float) -> str:
    """How long: minutes and seconds, ``12:05``, and hours where there are some, ``2:00:41``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def visible(text: str) -> str:
    r"""Text on one line, as it is to be seen: line breaks and control characters are escapes (`\n`).

    They would break a sentence, or steer the terminal.
    """
    return "".join(sign if category(sign) not in _UNSEEN else ascii(sign)[1:-1] for sign in text)
