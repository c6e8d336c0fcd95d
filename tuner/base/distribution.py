"""The distribution tuner comes in: its name on a package index, version, requirements, origin."""

from __future__ import annotations

import importlib.metadata

NAME = "transfer-tuner"  # `tuner` on the public index is a musical instrument's; the import name is `tuner`


def version() -> str:
    """The installed version."""
    return importlib.metadata.version(NAME)


def requirements() -> list[str]:
    """What it requires, extras included, as its metadata has it."""
    return importlib.metadata.requires(NAME) or []


def metadata_file(name: str) -> str | None:
    """The text of a file of its metadata, such as `direct_url.json`; None if there is none."""
    return importlib.metadata.distribution(NAME).read_text(name)
