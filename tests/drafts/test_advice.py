from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.base.errors import ImageSourceError
from tuner.drafts.advice import advise
from tuner.drafts.survey import Survey
from tuner.images.splits import split_images

LITE = ["EfficientNetLite0", "EfficientNetLite2"]


def found(counts: dict[str, int], side: int = 300, gray: bool = False) -> Survey:
    rows = [(f"{label}/{number}", label) for label, count in counts.items() for number in range(count)]
    listing = pd.DataFrame(rows, columns=["path", "label"])
    return Survey(Path("/a"), None, counts, listing, side, gray, ())


@pytest.mark.parametrize(
    ("counts", "test", "validation"),
    [
        ({"a": 1000, "b": 900}, "1/5", "holdout"),
        ({"a": 1000, "b": 20}, "1/5", "cv:5"),
        ({"a": 200, "b": 200}, "1/5", "cv:5"),
        ({"a": 30, "b": 30}, "1/3", "cv:5"),
        ({"a": 30, "b": 4}, "1/3", "cv:3"),
        ({"a": 3, "b": 3}, "1/3", "cv:2"),
    ],
)
def test_few_images_are_ranked_on_folds(counts: dict[str, int], test: str, validation: str) -> None:
    advice = advise(found(counts), LITE)
    assert (advice.test, advice.validation) == (Fraction(test), validation)


@given(st.lists(st.integers(3, 80), min_size=2, max_size=6))
def test_whatever_is_advised_works(sizes: list[int]) -> None:
    images = found({f"class {number}": size for number, size in enumerate(sizes)})
    advice = advise(images, LITE)
    index = images.listing.rename(columns={"path": "digest"})
    split_images(index, advice.test, advice.validation, Fraction(1, 5), 42)


def test_a_class_of_too_few_is_refused_as_by_a_search() -> None:
    with pytest.raises(ImageSourceError, match="The class b has 1 usable image"):
        advise(found({"a": 30, "b": 1}), LITE)


@pytest.mark.parametrize(
    ("side", "gray", "at_hand", "backbones", "wanted"),
    [
        (300, False, LITE, LITE, ""),
        (
            300,
            False,
            ["VGG16", *LITE, "MobileNetV2"],
            ["EfficientNetLite0", "MobileNetV2", "EfficientNetLite2"],
            "",
        ),
        (300, False, [], ["GlyphNet", "GaborNet"], "EfficientNetLite0"),
        (28, True, LITE, ["GlyphNet", "GaborNet"], ""),
        (28, False, LITE, ["GlyphNet", "GaborNet", "EfficientNetLite0"], ""),
        (28, True, [], ["GlyphNet", "GaborNet"], ""),
    ],
)
def test_networks_fit_the_pictures_and_are_here(
    side: int, gray: bool, at_hand: list[str], backbones: list[str], wanted: str
) -> None:
    advice = advise(found({"a": 50, "b": 50}, side, gray), at_hand)
    assert list(advice.backbones) == backbones
    assert advice.wanted == wanted
    assert set(advice.others) == set(at_hand) - set(backbones)


def test_rare_classes_weigh_more_where_they_are_rare() -> None:
    assert not advise(found({"a": 90, "b": 30}), LITE).balanced
    assert advise(found({"a": 91, "b": 30}), LITE).balanced
