import hashlib
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tuner.base.errors import ImageSourceError
from tuner.images.splits import (
    GIVEN,
    TEST,
    TRAIN,
    VALIDATION,
    absent_classes,
    leaked,
    split_images,
)

FIFTH, THIRD = Fraction(1, 5), Fraction(1, 3)
RATIOS = st.fractions(Fraction(1, 20), Fraction(19, 20), max_denominator=20)


def digest(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def index_of(sizes: dict[str, int]) -> pd.DataFrame:
    """Classes of images that are all different."""
    rows = [(digest((label, number)), label) for label, size in sizes.items() for number in range(size)]
    return pd.DataFrame(rows, columns=["digest", "label"])


def half_up(total: int, ratio: Fraction) -> int:
    """Round by hand, in whole numbers."""
    return (2 * total * ratio.numerator + ratio.denominator) // (2 * ratio.denominator)


def counts(index: pd.DataFrame, parts: pd.Series, label: str) -> Counter[str]:
    return Counter(parts[index["label"] == label])


classes = st.dictionaries(
    st.text("abé", min_size=1, max_size=2), st.integers(8, 40), min_size=2, max_size=4
)
# Few digests, so that they repeat, within a class and across classes.
repeated = st.lists(
    st.tuples(st.integers(0, 60).map(digest), st.sampled_from(["a", "b", "c"])), min_size=40, max_size=120
).map(lambda rows: pd.DataFrame(rows, columns=["digest", "label"]))


def split_or_reject(index: pd.DataFrame, *arguments: object) -> pd.Series:
    """Split, where the images suffice for the split; hypothesis draws others where they do not."""
    try:
        return split_images(index, *arguments)  # type: ignore[arg-type]
    except ImageSourceError:
        assume(False)
        raise


def test_thirty_images_at_a_third_give_ten() -> None:
    index = index_of({"messi": 30, "ronaldo": 30})
    parts = split_images(index, THIRD, "holdout", FIFTH, seed=0)
    for label in ("messi", "ronaldo"):
        assert counts(index, parts, label) == {"test": 10, "validation": 4, "train": 16}


@given(classes, RATIOS, RATIOS, st.integers(0, 2**32 - 1))
def test_ratios_are_exact_within_each_class(
    sizes: dict[str, int], test: Fraction, validation: Fraction, seed: int
) -> None:
    index = index_of(sizes)
    parts = split_or_reject(index, test, "holdout", validation, seed)
    for label, size in sizes.items():
        held = half_up(size, test)
        ranked = half_up(size - held, validation)
        expected = {"test": held, "validation": ranked, "train": size - held - ranked}
        assert counts(index, parts, label) == expected


@given(classes, RATIOS, st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_folds_are_stratified_to_within_one_image(
    sizes: dict[str, int], test: Fraction, folds: int, seed: int
) -> None:
    index = index_of(sizes)
    parts = split_or_reject(index, test, f"cv:{folds}", FIFTH, seed)
    names = [f"fold-{number}" for number in range(folds)]
    assert set(parts) == {"test", *names}
    for label, size in sizes.items():
        found = counts(index, parts, label)
        assert found["test"] == half_up(size, test)
        assert max(found[name] for name in names) - min(found[name] for name in names) <= 1


@given(repeated, st.sampled_from(["holdout", "cv:3"]), st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(
    index: pd.DataFrame, validation: str, seed: int, random: object
) -> None:
    parts = split_or_reject(index, FIFTH, validation, FIFTH, seed)
    order = list(index.index)
    random.shuffle(order)  # type: ignore[attr-defined]
    again = split_images(index.loc[order], FIFTH, validation, FIFTH, seed)
    assert list(again.index) == order  # aligned with what was given
    pd.testing.assert_series_equal(again.sort_index(), parts)


@given(repeated, st.sampled_from(["holdout", "cv:3"]), st.integers(0, 9))
def test_identical_images_stand_on_one_side(index: pd.DataFrame, validation: str, seed: int) -> None:
    parts = split_or_reject(index, FIFTH, validation, FIFTH, seed)
    assert parts.groupby(index["digest"]).nunique().max() == 1


@given(repeated, st.integers(0, 9))
def test_copies_cost_no_more_exactness_than_they_must(index: pd.DataFrame, seed: int) -> None:
    """Without images in two classes, a part misses its size by less than the most frequent image counts."""
    index = index.assign(digest=index["digest"] + index["label"])
    parts = split_or_reject(index, FIFTH, "holdout", FIFTH, seed)
    for label, rows in index.groupby("label"):
        most = rows["digest"].value_counts().max()
        found = counts(index, parts, str(label))
        wanted = half_up(len(rows), FIFTH)
        assert wanted - most < found["test"] <= wanted
        ranked = half_up(len(rows) - found["test"], FIFTH)
        assert ranked - most < found["validation"] <= ranked


def test_an_image_in_two_classes_has_one_part_and_sizes_hold() -> None:
    index = index_of({"a": 40, "b": 40})
    shared = pd.DataFrame([(digest(n), label) for n in range(10) for label in "ab"], columns=index.columns)
    index = pd.concat([index, shared], ignore_index=True)
    for seed in range(20):
        parts = split_images(index, FIFTH, "holdout", Fraction(1, 4), seed)
        assert parts.groupby(index["digest"]).nunique().max() == 1
        for label in "ab":
            assert counts(index, parts, label) == {"test": 10, "validation": 10, "train": 30}


def test_an_image_keeps_its_place_whatever_it_is_called() -> None:
    """What decides is the order of sha256(seed:digest) in a class, so other classes' names do not."""
    index = index_of({"a": 30, "b": 30})
    parts = split_images(index, THIRD, "holdout", FIFTH, seed=3)
    renamed = index.assign(label=index["label"].map({"a": "zebra", "b": "yak"}))
    pd.testing.assert_series_equal(split_images(renamed, THIRD, "holdout", FIFTH, seed=3), parts)
    first = sorted(
        index.loc[index["label"] == "a", "digest"],
        key=lambda name: hashlib.sha256(f"3:{name}".encode()).hexdigest(),
    )[:10]
    assert set(index.loc[(index["label"] == "a") & (parts == "test"), "digest"]) == set(first)


def test_another_seed_gives_another_split() -> None:
    index = index_of({"a": 30, "b": 30})
    splits = {tuple(split_images(index, FIFTH, "holdout", FIFTH, seed)) for seed in range(5)}
    assert len(splits) == 5


def test_another_process_gives_the_same_split() -> None:
    """Python's own hashes differ from process to process: nothing may depend on them."""
    code = (
        "import pandas as pd; from fractions import Fraction; from tuner.images.splits import split_images;"
        "rows = [(f'{n * 7919 % 1000:064x}', 'ab'[n % 2]) for n in range(60)] * 2;"
        "index = pd.DataFrame(rows, columns=['digest', 'label']);"
        "print(list(split_images(index, Fraction(1, 5), 'cv:3', Fraction(1, 5), 1)))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert "fold-2" in printed.pop()


@pytest.mark.parametrize(
    ("sizes", "validation", "part"),
    [
        ({"many": 30, "few": 2}, "holdout", "test"),  # a fifth of 2 rounds to 0
        ({"many": 30, "few": 3}, "holdout", "validation"),  # a fifth of the other 2 rounds to 0
        ({"many": 30, "few": 5}, "cv:5", "fold-4"),  # one is held back, and 4 make 4 folds
    ],
)
def test_a_class_too_small_for_the_split_is_named(
    sizes: dict[str, int], validation: str, part: str
) -> None:
    sentence = f"The class few has {sizes['few']} usable image.* none of it in {part}"
    with pytest.raises(ImageSourceError, match=sentence):
        split_images(index_of(sizes), FIFTH, validation, FIFTH, seed=0)


def test_copies_of_one_image_are_no_split() -> None:
    index = pd.concat([index_of({"a": 30}), pd.DataFrame({"digest": [digest(0)] * 30, "label": "b"})])
    with pytest.raises(ImageSourceError, match="The class b has 30 usable image"):
        split_images(index.reset_index(drop=True), FIFTH, "holdout", FIFTH, seed=0)


@pytest.mark.parametrize("sizes", [{}, {"alone": 30}])
def test_fewer_than_two_classes_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ImageSourceError, match=f"usable images of {len(sizes)} class"):
        split_images(index_of(sizes), FIFTH, "holdout", FIFTH, seed=0)


@given(classes, st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_folds_of_all_classes_together_differ_by_one_image_at_most(
    sizes: dict[str, int], folds: int, seed: int
) -> None:
    parts = split_or_reject(index_of(sizes), FIFTH, f"cv:{folds}", FIFTH, seed)
    found = Counter(parts[parts != "test"])
    assert len(found) == folds
    assert max(found.values()) - min(found.values()) <= 1


def test_a_split_is_the_same_in_every_version() -> None:
    """Else what was tested on yesterday is trained on today."""
    index = index_of({"a": 8, "b": 8})
    parts = split_images(index, Fraction(1, 4), "holdout", THIRD, seed=42)
    initials = {"test": "t", "validation": "v", "train": "-"}
    assert "".join(parts.map(initials)) == "vv---t-t--t-vtv-"
    parts = split_images(index, Fraction(1, 4), "cv:3", THIRD, seed=42)
    assert "".join(part[-1] for part in parts) == "10022t1t12t01t02"


# Splits that are given ------------------------------------------------------------------------------

given_rows = st.lists(
    st.tuples(st.integers(0, 25), st.sampled_from("ab"), st.sampled_from([TRAIN, TRAIN, VALIDATION, TEST])),
    max_size=60,
).map(
    lambda rows: pd.DataFrame(
        [(f"{label}{number}", label, part) for number, label, part in rows],
        columns=["digest", "label", GIVEN],
    )
)


@given(given_rows, st.sampled_from([0, 3]))
def test_of_an_image_in_several_parts_the_one_that_is_held_back_most_keeps_it(
    index: pd.DataFrame, folds: int
):
    held = leaked(index, folds)
    kept = index[held.isna()]
    pooled = index[GIVEN].replace(VALIDATION, TRAIN) if folds else index[GIVEN]
    assert kept.empty or pooled[kept.index].groupby(kept["digest"]).nunique().max() == 1
    assert set(kept["digest"]) == set(index["digest"])
    for digest, reason in zip(index["digest"], held, strict=True):
        if reason is not None:
            assert reason in set(pooled[index["digest"] == digest])
            assert reason != TRAIN


@given(given_rows, st.integers(0, 3), st.sampled_from(["holdout", "cv:2"]))
def test_parts_that_are_given_are_kept_and_the_others_cut_from_train(
    index: pd.DataFrame, seed: int, validation: str
):
    folds = 2 if validation == "cv:2" else 0
    index = index[leaked(index, folds).isna()]
    try:
        parts = split_images(index, Fraction(1, 5), validation, Fraction(1, 5), seed)
    except ImageSourceError:
        return
    there = set(index[GIVEN])
    for given_part, part in zip(index[GIVEN], parts, strict=True):
        if given_part == TEST:
            assert part == TEST
        elif TEST in there:
            assert part != TEST
        if not folds and given_part == VALIDATION:
            assert part == VALIDATION
        if not folds and given_part == TRAIN and VALIDATION in there:
            assert part != VALIDATION
        assert part == TEST or part.startswith("fold-") == bool(folds)
    assert parts.groupby(index["digest"]).nunique().max() == 1


def given_index(**counts: int) -> pd.DataFrame:
    """So many images by `<part>_<class>`."""
    rows = [
        (f"{name} {number}", name[-1], name[:-2])
        for name, count in counts.items()
        for number in range(count)
    ]
    return pd.DataFrame(rows, columns=["digest", "label", GIVEN])


def split_given(index: pd.DataFrame, validation: str = "holdout") -> pd.Series:
    return split_images(index, Fraction(1, 4), validation, Fraction(1, 4), seed=1)


def test_what_is_not_given_is_cut_from_train_by_its_ratio():
    without_validation = given_index(train_a=8, train_b=8, test_a=2, test_b=2)
    assert split_given(without_validation).value_counts().to_dict() == {TRAIN: 12, VALIDATION: 4, TEST: 4}
    without_test = given_index(train_a=8, train_b=8, validation_a=2, validation_b=2)
    assert split_given(without_test).value_counts().to_dict() == {TRAIN: 12, VALIDATION: 4, TEST: 4}


def test_folds_are_dealt_from_train_and_validation():
    index = given_index(train_a=8, train_b=8, validation_a=2, validation_b=2, test_a=3, test_b=3)
    parts = split_given(index, "cv:2")
    assert parts.value_counts().to_dict() == {"fold-0": 10, "fold-1": 10, TEST: 6}


def test_a_class_that_a_given_part_lacks_is_told_and_one_that_train_lacks_refused():
    index = given_index(train_a=8, train_b=8, train_c=8, validation_a=2, validation_b=2, test_a=3, test_c=1)
    assert absent_classes(index, split_given(index)) == {VALIDATION: ["c"], TEST: ["b"]}
    index = given_index(train_a=8, train_b=8, validation_a=2, validation_b=2, test_a=3, test_c=1)
    with pytest.raises(
        ImageSourceError, match=r"The class c has 1 usable .*given, the rest.* none of it in train"
    ):
        split_given(index)


def test_a_given_part_of_one_class_is_refused():
    index = given_index(train_a=8, train_b=8, validation_a=2, test_a=3, test_b=1)
    with pytest.raises(
        ImageSourceError, match="The part validation of the given split has usable images of fewer"
    ):
        split_given(index)
