"""The tables of docs/classifiers.md, made of the table of classifiers; a test compares them."""

from __future__ import annotations

from tuner.classifiers.rows.row import Classifier
from tuner.classifiers.table import CLASSIFIERS, SPOTS

_GIVES = {"probability": "probabilities", "decision": "decision values"}


def _parameters(row: Classifier) -> str:
    shown = [(one.name, str(one.default).removesuffix(":linear")) for one in row.parameters]
    return ", ".join(f"`{name}` {default}" for name, default in shown)


def classifier_rows() -> list[str]:
    """One line of Markdown a classifier."""
    return [
        f"| `{row.name}` | {_parameters(row)} | {' or '.join(row.fits)} | {_GIVES[row.gives]} |"
        for row in CLASSIFIERS.values()
    ]


def spot_rows() -> list[str]:
    """One line of Markdown for what a spot-check tries; those of a row with many are one line."""
    lines = []
    for row in CLASSIFIERS.values():
        spots = [spot for spot in row.spots if SPOTS[spot][0] == row.name]
        values = list(row.spots.values())
        names = f"`{spots[0]}` … `{spots[-1]}`" if len(spots) > 1 else f"`{spots[0]}`"
        given = [", ".join(f"{name} {value}" for name, value in one.items()) for one in values]
        told = f"{given[0]} … {given[-1]}" if len(spots) > 1 else given[0] or "the library's defaults"
        lines.append(f"| {names} | `{row.name}` | {told} |")
    return lines


def main() -> None:
    print("\n".join([*classifier_rows(), "", *spot_rows()]))


if __name__ == "__main__":
    main()
