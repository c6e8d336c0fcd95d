"""`tuner.compare` and `tuner.promote`: a challenger against the champion, on the champion's test images."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.api.guest import as_it_was
from tuner.base.interrupts import advising
from tuner.experiment.fields import CHALLENGER

if TYPE_CHECKING:
    from tuner.evaluation.comparison import Comparison
    from tuner.registry.promotion import Promotion


@dataclass(frozen=True)
class ModelComparison:
    """A challenger against the champion, and what the gate says of it; nothing has moved.

    Attributes
    ----------
    name
        The registered model.
    champion, challenger
        The numbers of the versions.
    comparison
        What both are worth on the same images: `metric`, `gain` with its `interval`, `p_value`, `images`,
        and the `disagreements`.
    passed
        Whether the gate would let the challenger take the champion's place.
    reasons
        Why, in sentences.
    notes
        Sentences on the images: which are left out, which have another class now.
    """

    name: str
    champion: str
    challenger: str
    comparison: Comparison
    passed: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    def _repr_html_(self) -> str:
        """Both versions' metrics, the gain and the gate, as a notebook shows them."""
        found = self.comparison
        low, high = found.interval
        head = f"<tr><th></th><th>version {self.champion}</th><th>version {self.challenger}</th></tr>"
        rows = [
            f"<tr><th>{metric}</th><td>{value:.4f}</td><td>{found.challenger.metrics[metric]:.4f}</td></tr>"
            for metric, value in found.champion.metrics.items()
            if metric in found.challenger.metrics
        ]
        gate = f"gate {'passed' if self.passed else 'not passed'}: {'; '.join(self.reasons)}"
        said = (
            f"gain in {found.metric} {found.gain:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, on "
            f"{found.images} images; {gate}",
            *self.notes,
        )
        told = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in said)
        return f"<h4>{html.escape(self.name)}</h4><table>{head}{''.join(rows)}</table>{told}"


@as_it_was()
def compare(
    name: str,
    *,
    version: str = CHALLENGER,
    images: str | os.PathLike[str] | None = None,
    experiment: str | os.PathLike[str] | None = None,
    master: str | None = None,
) -> ModelComparison:
    """Compare a version with the champion on the champion's test images; nothing moves or is logged.

    Parameters
    ----------
    name
        The registered model.
    version
        The challenger: a version's number or an alias.
    images
        Where the champion's test images are now; None: where its search found them.
    experiment
        A file with the gate and the alias to use; None: those of the challenger's search.
    master
        A Spark master URL, should Spark be needed; None: the session that is running, or this machine.

    Returns
    -------
    ModelComparison
        What both are worth, and what the gate says.

    Raises
    ------
    InvalidInput
        No such model, version or alias, another tool's model, other classes, no images to compare on, or a
        registry that does not answer.
    """
    from tuner.registry.promotion import compare_with_champion  # Spark and MLflow take seconds

    compared, decision = compare_with_champion(
        name, version=version, images=_text(images), experiment=_path(experiment), master=master
    )
    return ModelComparison(
        name,
        compared.champion,
        compared.challenger,
        compared.comparison,
        decision.passed,
        decision.reasons,
        compared.notes,
    )


@as_it_was()
def promote(
    name: str,
    *,
    version: str = CHALLENGER,
    images: str | os.PathLike[str] | None = None,
    experiment: str | os.PathLike[str] | None = None,
    force: bool = False,
    why: str | None = None,
    master: str | None = None,
) -> Promotion:
    """Compare a version with the champion, log it, and make the version the champion if it passes the gate.

    Parameters
    ----------
    name
        The registered model.
    version
        The challenger: a version's number or an alias.
    images
        Where the champion's test images are now; None: where its search found them.
    experiment
        A file with the gate, alias and stage to use; None: those of the challenger's search.
    force
        Move in any case; a tag of the version says who overrode the gate. The comparison may then fail.
    why
        The reason to write on the version; None: what the gate says.
    master
        A Spark master URL, should Spark be needed; None: the session that is running, or this machine.

    Returns
    -------
    Promotion
        Whether it is the champion now, and what the comparison found.

    Raises
    ------
    InvalidInput
        No such model, version or alias, another tool's model, other classes, no images to compare on, or a
        registry that does not answer. Nothing has moved.
    StoreError
        The MLflow store stopped answering.
    """
    from tuner.registry.promotion import promote_version  # Spark and MLflow take seconds

    with advising(f"tuner registry {name} shows where it stands; the same command starts again."):
        return promote_version(
            name,
            version=version,
            images=_text(images),
            experiment=_path(experiment),
            force=force,
            why=why,
            master=master,
        )


def _text(place: str | os.PathLike[str] | None) -> str | None:
    return os.fspath(place) if place else None


def _path(place: str | os.PathLike[str] | None) -> Path | None:
    return Path(place) if place else None
