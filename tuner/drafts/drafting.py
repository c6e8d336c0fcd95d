"""An experiment file for a folder of images, with comments that say why it says what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tuner.base.wording import visible
from tuner.drafts.advice import Advice, advise
from tuner.drafts.survey import Survey, survey
from tuner.experiment.fields import Name
from tuner.experiment.file import experiment_of, parse_yaml, yaml_text
from tuner.networks.table import NETWORKS

_LONGEST = 100  # letters of a name
_CLASSES_SHOWN = 20
_MORE_TRIALS = 8  # for each network


@dataclass(frozen=True)
class Draft:
    """An experiment file that is not written yet.

    Attributes
    ----------
    name
        The experiment's.
    file_name
        The same, fit for a file.
    text
        What stands in the file.
    summary
        What was found, in a line.
    notes
        What is unusual about the images.
    """

    name: str
    file_name: str
    text: str
    summary: str
    notes: tuple[str, ...]


def draft_experiment(source: str) -> Draft:
    """Draft an experiment for a folder of class folders of this machine.

    Raises
    ------
    ImageSourceError
        It is no such folder, or too small for any split.
    """
    found = survey(source)
    advice = advise(found)
    name = experiment_name(found.source)
    text = _text(name, found, advice)
    experiment_of(parse_yaml(text), "the draft")  # a draft that a search refused would be a mistake of ours
    summary = f"{found.total:,} images of {len(found.counts)} classes, {', '.join(advice.backbones)}"
    return Draft(name, name.replace(" ", "_"), text, summary, found.notes)


def experiment_name(folder: Path) -> str:
    """A name for runs and models, of a folder's; what no name may hold becomes a dash."""
    name = re.sub(r"[^\w. ()+-]+", "-", folder.name).strip(" .-")[:_LONGEST].strip(" .-")
    try:
        return str(TypeAdapter(Name).validate_python(name))
    except ValidationError:
        return "images"


def _text(name: str, found: Survey, advice: Advice) -> str:
    lines = [
        f"# {found.total:,} images of {len(found.counts)} classes in {visible(str(found.source))}",
        "#",
        *_wrapped_classes(found),
        *(f"# Noticed: {visible(note)}." for note in found.notes),
        "",
        _line("name", name),
        _line("images", str(found.source)),
        "",
        "split:",
        *_given(found),
        f"  test: {advice.test!s:<14}    # held back for the winner, seen once",
        f"  validation: {advice.validation:<8}    # {_why_validation(advice, found)}",
        "",
        "search:",
        "  backbone:",
        *(f"    - {backbone:<18}    # {_about(backbone)}" for backbone in advice.backbones),
        *_other_backbones(advice),
        "  regParam: 1e-4:1:log",
        "  elasticNetParam: 0:1",
        "  maxIter: 5:30",
        f"  max_evals: {max(16, _MORE_TRIALS * len(advice.backbones)):<9}    # trials",
        "  parallelism: 2          # at once",
        "  seed: 42",
    ]
    return "\n".join([*lines, *_weights(advice, found)]) + "\n"


def _given(found: Survey) -> list[str]:
    return ["  given: folders          # as the images lie in folders"] if found.given else []


def _weights(advice: Advice, found: Survey) -> list[str]:
    if not advice.balanced:
        return []
    return [
        f"  # The largest class has {found.imbalance:.3g} times the images of the smallest.",
        "  # How good each class is, the winner's report says.",
        "  class_weight: balanced",
    ]


def _line(key: str, value: str) -> str:
    return yaml_text({key: value}).rstrip("\n")


def _wrapped_classes(found: Survey) -> list[str]:
    shown = list(found.counts.items())[:_CLASSES_SHOWN]
    lines = [f"#   {visible(label)}: {count:,}" for label, count in shown]
    more = len(found.counts) - len(shown)
    return [*lines, *([f"#   and {more} more"] if more else []), "#"]


def _why_validation(advice: Advice, found: Survey) -> str:
    if advice.validation == "holdout":
        return "trials are ranked on a fifth of the rest"
    return f"{found.total:,} images are too few to hold some back for good"


def _about(backbone: str) -> str:
    row = NETWORKS[backbone]
    if row.weights == "embedded":
        return "comes with tuner; suits small pictures of signs"
    return f"ImageNet's, for photographs; {row.input_size[0]} pixels"


def _other_backbones(advice: Advice) -> list[str]:
    lines = []
    if advice.others:
        lines.append(f"    # also here: {', '.join(advice.others)}")
    if advice.wanted:
        lines.append(f"    # for photographs, {advice.wanted}: pip install 'transfer-tuner[efficientnet]'")
        lines.append(
            "    # or any of keras.applications, whose weights are downloaded: ResNet50, InceptionV3, …"
        )
    return lines
