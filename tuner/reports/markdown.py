"""Any text as Markdown that shows it as it is, and tables of such texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown_text(text: str) -> str:
    """Escape what Markdown or HTML would take for markup; line breaks become spaces."""
    flat = " ".join(text.split())
    for character, entity in _ENTITIES.items():
        flat = flat.replace(character, entity)
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", flat)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Give the lines of a table; what stands in the cells is escaped."""
    cells = [[markdown_text(str(cell)) for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return [f"| {' | '.join(row)} |" for row in cells]
