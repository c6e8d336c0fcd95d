import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.base.errors import ImageSourceError
from tuner.experiment.schema import Split
from tuner.images.splits import TEST, TRAIN, VALIDATION, leaked
from tuner.preparation.findings import (
    about_labels,
    about_split,
    about_values,
    keep_apart,
    left_out,
    mark_conflicts,
    usable,
    with_outcomes,
)

# Left out -------------------------------------------------------------------------------------------

rows_of_index = st.lists(
    st.tuples(
        st.integers(0, 12).map(str),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 3),
        st.sampled_from([None, None, None, "truncated"]),
    ),
    max_size=40,
).map(lambda rows: pd.DataFrame(rows, columns=["digest", "label", "bytes", "error"]))


@given(rows_of_index)
def test_what_is_left_has_one_class_and_only_images_of_several_are_taken_out(index: pd.DataFrame):
    before = index.copy()
    marked = mark_conflicts(index)
    pd.testing.assert_frame_equal(index, before)
    pd.testing.assert_frame_equal(marked.drop(columns="error"), index.drop(columns="error"))
    good = index[index["error"].isna() & (index["bytes"] > 0)]
    for row, was, now in zip(index.itertuples(), index["error"], marked["error"], strict=True):
        others = set(good.loc[good["digest"] == row.digest, "label"]) - {row.label}
        if row.Index in good.index and others:
            assert now == f"label conflict: also in {', '.join(sorted(others))}"
        else:
            assert now is was or (pd.isna(now) and pd.isna(was))


def test_what_the_cache_knows_and_what_failed_this_time_are_reasons():
    index = pd.DataFrame({"digest": ["a", "b", "c", "d"], "error": [None, None, None, "cannot be read"]})
    known = [
        pd.DataFrame({"digest": ["a", "b"], "error": [None, "truncated"]}),
        pd.DataFrame({"digest": ["a", "b"], "error": [None, "truncated"]}),
    ]
    found = with_outcomes(index, known, {"c": "memory did not suffice"})["error"]
    assert list(found.where(found.notna(), None)) == [
        None,
        "truncated",
        "memory did not suffice",
        "cannot be read",
    ]


def test_a_class_without_a_usable_image_is_named_with_the_first_reason():
    outcome = pd.DataFrame(
        {
            "path": ["1", "2", "3"],
            "label": ["a", "b", "b"],
            "digest": ["x", "y", "z"],
            "error": [None, "cut", "bad"],
        }
    )
    sentence = (
        r"None of the 2 image\(s\) of the class b can be used \(the first, 2: cut\): add images or remove"
    )
    with pytest.raises(ImageSourceError, match=sentence):
        usable(outcome, ["a", "b"], fail=False)
    assert list(usable(outcome, ["a"], fail=False)["path"]) == ["1"]
    with pytest.raises(ImageSourceError, match="The image 2 cannot be used"):
        usable(outcome, ["a"], fail=True)


given_rows = st.lists(
    st.tuples(st.integers(0, 9).map(str), st.sampled_from([TRAIN, VALIDATION, TEST])),
    min_size=1,
    max_size=30,
).map(lambda rows: pd.DataFrame(rows, columns=["digest", "given"]))


@given(given_rows, st.sampled_from(["holdout", "cv:2"]))
def test_copies_of_what_is_held_back_leave_the_other_parts_with_a_reason(
    index: pd.DataFrame, validation: str
):
    split = Split(given="folders", validation=validation)
    kept, copies = keep_apart(index, split)
    assert sorted([*kept.index, *copies.index]) == list(index.index)
    assert leaked(kept, split.folds).isna().all()
    test = set(index["digest"][index["given"] == TEST])
    assert not set(kept["digest"][kept["given"] != TEST]) & test
    for row in copies.itertuples():
        assert row.reason in (
            f"copy of an image of the part {TEST}",
            f"copy of an image of the part {VALIDATION}",
        )
        assert (row.digest in test) == row.reason.endswith(TEST)
    said = list(left_out(copies, len(index), {}))
    assert len(said) == (len(copies) > 0) + copies["reason"].nunique()


def test_each_kind_of_what_is_left_out_is_counted():
    reasons = [
        "truncated",
        "label conflict: also in b",
        "memory did not suffice",
        "copy of an image of the part test",
    ]
    said = list(left_out(pd.DataFrame({"reason": reasons}), 9, {"x": "memory did not suffice"}))
    assert said[0] == "4 of 9 images cannot be used: see quarantine.csv"
    assert "1 of them are in conflict over their label" in said[1]
    assert "1 of them are copies of images of test in other parts" in said[2]
    assert said[3] == (
        "1 of them could not be decoded this time, which says nothing of the images (memory did not "
        "suffice): the next search tries them again"
    )
    assert list(left_out(pd.DataFrame({"reason": []}, dtype=str), 9, {})) == []


# Said -----------------------------------------------------------------------------------------------


def test_what_became_of_a_given_split_is_said():
    index = pd.DataFrame({"label": [*"aabbaab"], "given": [TRAIN] * 4 + [TEST] * 3})
    parts = pd.Series([TRAIN, VALIDATION, TRAIN, VALIDATION, TEST, TEST, TEST])
    assert list(about_split(index, parts, Split(given="folders"))) == [
        "The given split is kept: 4 for train, 3 for test; validation is cut from train"
    ]
    assert list(about_split(index, parts, Split())) == []
    with_validation = index.assign(given=[TRAIN, VALIDATION, TRAIN, VALIDATION, TEST, TEST, TEST])
    (kept, lacking) = about_split(with_validation[:6], parts[:6], Split(given="folders", validation="cv:2"))
    assert kept == (
        "The given split is kept: 2 for train, 2 for validation, 2 for test; train and validation are "
        "dealt to the folds"
    )
    assert lacking == "The part test has no image of 1 class(es): b"


def values(white: float, *highest: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    digests = [f"{white} {number}" for number in range(len(highest))]
    return pd.DataFrame({"digest": digests}), pd.DataFrame(
        {"digest": digests, "highest": highest, "white": white, "lowest": 0.0}
    )


@pytest.mark.parametrize(
    ("white", "highest", "likely"),
    [
        (65535, 4095, "4095"),
        (65535, 4000, "4095"),
        (65535, 1023, "1023"),
        (255, 15, "15"),
        (1, 0.1, "0.1"),
        (65535, 255, "255"),
    ],
)
def test_a_set_that_fills_little_of_its_range_is_told_with_a_likely_white(white, highest, likely):
    (said,) = about_values(*values(white, highest / 2, highest), None)
    assert said.startswith(f"No value of 2 image(s) is above {highest:g}, where {white:g} stands for white")
    assert said.endswith(f"say so with max_value in the experiment (such as {likely})")


@pytest.mark.parametrize(("white", "highest"), [(65535, 65535), (65535, 30_000), (255, 100), (1, 0.9)])
def test_a_set_of_which_one_image_fills_its_range_is_not(white: float, highest: float):
    assert list(about_values(*values(white, 0, highest), None)) == []


def test_a_white_that_was_stated_is_not_questioned_but_what_it_cuts_off_is():
    assert list(about_values(*values(4095, 100, 200), 4095)) == []
    (said,) = about_values(*values(4095, 100, 5000), 4095)
    assert said == (
        "1 image(s) have values above 4095, up to 5000, which are cut off: max_value in the experiment "
        "says what stands for white"
    )


def test_values_below_black_are_told_with_what_becomes_of_them():
    index, known = values(1, 1, 1, 0.9)
    known["lowest"] = [-1.0, -0.5, np.nan]  # NaN: of an earlier version's cache
    (said,) = about_values(index, known, None)
    assert said == (
        "2 image(s) have values below 0, down to -1, which become black: shift the values before, where "
        "they mean something"
    )


def test_images_of_several_ranges_are_looked_at_apart_and_others_not_at_all():
    (index, deep), (others, plain) = values(65535, 4095, 17), values(255, 255, 12)
    known = pd.concat(
        [deep, plain, pd.DataFrame({"digest": ["bad"], "highest": [np.nan], "white": [np.nan]})]
    )
    assert len(list(about_values(pd.concat([index, others]), known, None))) == 1
    assert list(about_values(others, known, None)) == []


# Classes


@pytest.mark.parametrize(
    "labels",
    [
        ("Cat", "cat"),
        (" cat", "cat"),
        ("cat", "cat "),
        ("caf\u00e9", "cafe\u0301"),  # as most systems write é, and as the Mac does
        ("cat", "cat\r"),
        ("black  cat", "black cat"),
        ("\uff21", "A"),
    ],
)
def test_classes_that_look_alike_are_told(labels: tuple[str, str]):
    (note,) = about_labels(("dog", *labels, "2", "02"))
    assert note.startswith("Classes whose names look alike are taken for different ones: ")
    assert all(ascii(label) in note for label in labels)
    assert "dog" not in note


def test_classes_that_differ_are_not():
    assert list(about_labels(("cat", "cats", "2", "02", "è", "é", "ß", "b", "1", "10"))) == []
