"""Kinds of values in an experiment file: names of runs and models, paths and places, ratios."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated
from unicodedata import category
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from tuner.base.uris import expanded, local_path
from tuner.classifiers.space import shown

CHALLENGER = "challenger"  # the alias of a version that has not won its place
NAME_LENGTH = 200  # databases keep 256 letters, and data sets are named after it, too


def _checked_name(value: str) -> str:
    """Refuse what is no name of a run and a model: MLflow makes addresses, filters and paths of them."""
    if len(value) > NAME_LENGTH:
        raise ValueError(f"the name has {len(value)} letters: give it {NAME_LENGTH} at most")
    if not any(sign.isprintable() and sign not in ". " for sign in value):
        raise ValueError(f"the name is {shown(value)}: give it letters or digits, which can be seen")
    if not _is_read_back(value):
        raise ValueError(
            f"the name is {shown(value)}, and runs and models are named after it: leave out / : \\ ? # @, "
            "line breaks, spaces at its ends, two dots at its beginning, and one of the two quotes ' and \""
        )
    return value


def _is_read_back(name: str) -> bool:
    """Whether MLflow finds a model of this name in the address, filter and path that it makes of it."""
    address = urlsplit(f"models:/{name}@{CHALLENGER}")
    return (
        address.path == f"/{name}@{CHALLENGER}"
        and not set(name) & set("/:\\@")
        and not {"'", '"'} <= set(name)
        and not any(category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in name)
        and name == name.strip()
        and not name.startswith("..")
    )


def _checked_text(value: object) -> object:
    """Text that may be a path: fit to be written, and with the home folder for a `~` at its beginning."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{shown(value)} has a null byte, which no path has")
    if isinstance(value, str) and any(category(sign) == "Cs" for sign in value):
        raise ValueError(f"{shown(value)} is no UTF-8, and cannot be written down: rename it")
    return str(expanded(Path(value))) if isinstance(value, str) and value.startswith("~") else value


def _checked_path(value: object) -> object:
    text = _checked_text(value)
    # What lies elsewhere is refused by whoever opens it, who knows what it would have been for.
    return local_path(text) or text if isinstance(text, str) else text


Name = Annotated[str, AfterValidator(_checked_name)]
PathOf = Annotated[Path, BeforeValidator(_checked_path)]
PlaceOf = Annotated[Path | str, BeforeValidator(_checked_path)]  # text: on a Hadoop filesystem
MaybePath = Annotated[str, BeforeValidator(_checked_text)]


def _parse_ratio(value: object) -> Fraction:
    """Read `1/3`, `0.2` or `20%` as an exact fraction, so that 30 images at 1/3 give 10."""
    text = str(value).strip()
    try:
        ratio = Fraction(text[:-1]) / 100 if text.endswith("%") else Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is not a ratio: write 1/3, 0.2 or 20%") from None
    if not 0 < ratio < 1:
        raise ValueError(f"the ratio {text} must lie between 0 and 1")
    return ratio


Ratio = Annotated[Fraction, BeforeValidator(_parse_ratio), PlainSerializer(str, return_type=str)]
