"""What fits a set of images, by number and size: its split, how trials are ranked, and the networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tuner.base.errors import ImageSourceError
from tuner.drafts.survey import UNEVEN, Survey
from tuner.images.splits import split_images
from tuner.networks.builders import weights_at_hand
from tuner.networks.table import NETWORKS

_SEED = 42  # the experiment's default
_FEW_IMAGES, _FEW_OF_A_CLASS = 500, 30  # below, a part held back for good ranks trials by luck
_LITTLE_TEST = 40  # images of a test part, below which a larger share is held back
_SMALL_SIDE = 64  # pixels: what is smaller holds signs, or is enlarged in vain
_MOST_NETWORKS = 3
_TEST, _LARGER_TEST = Fraction(1, 5), Fraction(1, 3)
# Those that cost little for what they are worth come first (keras.io/applications: accuracy, time a step).
_WORTH = (
    *("EfficientNetLite0", "MobileNetV2", "EfficientNetV2B0", "EfficientNetLite2", "EfficientNetB0"),
    *("ResNet50V2", "ResNet50", "InceptionV3", "Xception", "DenseNet121", "MobileNetV3Large"),
)


@dataclass(frozen=True)
class Advice:
    """What an experiment on a set of images should say.

    Attributes
    ----------
    test, validation
        As in the experiment file.
    balanced
        Whether rare classes should weigh more.
    backbones
        The networks, which this machine has.
    others
        Further ones that it has.
    wanted
        A network that would fit better and is not here; empty: none.
    """

    test: Fraction
    validation: str
    balanced: bool
    backbones: tuple[str, ...]
    others: tuple[str, ...]
    wanted: str = ""


def advise(found: Survey, at_hand: Sequence[str] | None = None) -> Advice:
    """Choose what fits.

    Parameters
    ----------
    found
        The images.
    at_hand
        The networks whose ImageNet weights are here; None: as this machine has them.

    Raises
    ------
    ImageSourceError
        The smallest class has too few images for any split.
    """
    test, validation = _split(found)
    here = weights_at_hand() if at_hand is None else at_hand
    trained = sorted(here, key=lambda name: _WORTH.index(name) if name in _WORTH else len(_WORTH))
    embedded = [name for name, row in NETWORKS.items() if row.weights == "embedded"]
    small = found.side <= _SMALL_SIDE
    fitting = [*embedded, *([] if found.gray else trained[:1])] if small else (trained or embedded)
    chosen = tuple(fitting[:_MOST_NETWORKS])
    return Advice(
        test=test,
        validation=validation,
        balanced=found.imbalance > UNEVEN,
        backbones=chosen,
        others=tuple(name for name in trained if name not in chosen),
        wanted="" if small or trained else _WORTH[0],
    )


def _split(found: Survey) -> tuple[Fraction, str]:
    """The first that leaves each class an image in each part."""
    refused: ImageSourceError | None = None
    for test, validation in _splits(found):
        rows = found.listing.rename(columns={"path": "digest"})
        try:
            split_images(rows, test, validation, _TEST, _SEED)
        except ImageSourceError as error:
            refused = refused or error
        else:
            return test, validation
    assert refused is not None
    raise refused


def _splits(found: Survey) -> Iterator[tuple[Fraction, str]]:
    """Splits to try: folds for few images, and a larger test part where a fifth would be too little."""
    test = _LARGER_TEST if found.total * _TEST < _LITTLE_TEST else _TEST
    if found.total >= _FEW_IMAGES and found.fewest >= _FEW_OF_A_CLASS:
        yield test, "holdout"
    yield from ((test, f"cv:{folds}") for folds in (5, 4, 3, 2))
