"""Errors of other libraries, fit for a sentence."""

from __future__ import annotations

import re


def first_line(error: object) -> str:
    """What an error says first, without its full stop; its class where it says nothing."""
    said = str(error).strip() or repr(error)
    return said.splitlines()[0].strip().rstrip(".")


def first_sentence(message: object) -> str:
    """What a message says first, up to its first full stop or line break."""
    return re.split(r"\.?\s*\n|\.\s|\.?$", str(message).strip(), maxsplit=1)[0]
