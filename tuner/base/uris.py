"""Paths as URIs, and back; in the two dialects that there are, for each reads the other's wrongly.

RFC 8089's is percent-encoded: MLflow, log4j and Spark's `addFile` want it (`file_uri`). Hadoop's, which
Spark reads and writes tables and models by, is not: ``file:///photos #1/50%20`` is the folder of exactly
this name (`hadoop_uri`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

_ELSEWHERE = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://", re.IGNORECASE)
_FILE = re.compile(r"file:(//(localhost)?(?=/))?", re.IGNORECASE)
_ENCODED = re.compile(r"([A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")  # RFC 3986: a path, no more
_PATTERN = re.compile(r"([{}\[\]*?\\])")


def file_uri(path: Path) -> str:
    """The URI of a path as RFC 8089 has it: percent-encoded."""
    return path.absolute().as_uri()


def hadoop_uri(path: Path) -> str:
    """The URI of a path as Hadoop has it: not encoded; it names this machine's file on a cluster, too."""
    return f"file://{path.absolute()}"


def hadoop_path(uri: str) -> Path | None:
    """The path that Spark means by a path or a URI; None where it is not of this machine."""
    if _ELSEWHERE.match(uri):
        return None
    return Path(_without_scheme(uri))


def _without_scheme(uri: str) -> str:
    scheme = _FILE.match(uri)
    return uri[scheme.end() :] if scheme else uri


def literal(place: str) -> str:
    """A path or a Hadoop URI in which Spark's readers see no pattern."""
    return _PATTERN.sub(r"\\\1", place)


def local_path(place: str) -> Path | None:
    """The path of what a user gives: a path, with `~` for the home folder, or a `file:` URI.

    People write URIs in either dialect: one that could not be encoded, for it has a space, a `#` or letters
    beyond ASCII, is taken as it stands. None where it is not of this machine (`hdfs:`, `s3a:`).

    Raises
    ------
    ValueError
        `~` stands for a user who has no home here.
    """
    if _ELSEWHERE.match(place):
        return None
    path = _without_scheme(place)
    if path != place:
        return Path(os.fsdecode(unquote_to_bytes(path)) if _ENCODED.fullmatch(path) else path)
    return expanded(Path(place))


def expanded(path: Path) -> Path:
    """A path with the home folder for a `~` at its beginning; no other sign of a shell is looked at.

    Raises
    ------
    ValueError
        `~` stands for a user who has no home here.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(
            f"{path} begins with a home folder that is not known here: give the whole path"
        ) from None
