"""The format of saved models and pipelines: its version, written into each and asked for on reading."""

from __future__ import annotations

from tuner.base.errors import ModelError

FORMAT = 2
"""Raised whenever what is written cannot be read as before; 1 was before modules had folders."""

FORMAT_KEY = "tunerFormat"
"""Where it stands in the metadata of a stage of ours."""


def check_format(what: str, found: object) -> None:
    """Refuse what was saved in another format.

    Parameters
    ----------
    what
        What is read, for the sentence: ``The model models:/digits/1``.
    found
        The format that it states; None where it states none.

    Raises
    ------
    ModelError
        It is not this version's.
    """
    if found != FORMAT:
        stated = f"is of format {found}" if found is not None else "states no format"
        raise ModelError(
            f"{what} {stated}, and this version of tuner reads format {FORMAT}: use the version of tuner "
            "that made it, or search again (features are not extracted again)."
        )
