import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.base.errors import ImageSourceError
from tuner.images.layout import checked_split, class_folders, hint, odd_names, part_of, place
from tuner.images.splits import TEST, TRAIN, VALIDATION


def tree(*files: str) -> dict[str, Counter[str]]:
    """The tree of `<number> <folder>[/<folder>]` texts."""
    found: dict[str, Counter[str]] = {}
    for text in files:
        number, _, path = text.partition(" ")
        folder, _, inner = path.partition("/")
        found.setdefault(folder, Counter())[inner] += int(number)
    return found


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *(
            (name, TRAIN)
            for name in ("train", "Training", "TRAIN", "training_set", "train-set", "TrainSet")
        ),
        *((name, VALIDATION) for name in ("val", "valid", "Validation", "val set")),
        *((name, TEST) for name in ("test", "Testing", "test_set")),
        *(
            (name, None)
            for name in ("trains", "tests", "train station", "contest", "evaluation", "set", "", "cat")
        ),
    ],
)
def test_a_folder_is_called_after_a_part_in_any_case(name: str, part: str | None):
    assert part_of(name) == part


SPLITS = {
    "all three": tree("8 train/cat", "8 train/dog", "4 val/cat", "4 val/dog", "4 test/cat", "4 test/dog"),
    "in capitals": tree("8 Train/cat", "8 Train/dog", "4 Test/cat"),
    "training and testing": tree("8 training/cat", "8 training/dog", "4 testing/dog"),
    "train and validation": tree("8 train/cat", "8 train/dog", "4 validation/cat"),
    "some files beside the classes": tree("8 train/cat", "8 train/dog", "1 train", "4 test/cat", "2 test"),
    "another folder beside the parts": tree(
        "8 train/cat", "8 train/dog", "4 test/cat", "4 test/dog", "3 raw"
    ),
    "test images that nobody sorted": tree("8 train/cat", "8 train/dog", "9 test"),
    "test images in one folder": tree("8 train/cat", "8 train/dog", "9 test/unknown"),
    "no train": tree("8 test/cat", "8 test/dog", "4 val/cat", "4 val/dog"),
    "an empty part": tree("8 train/cat", "8 train/dog", "4 test/cat", "0 val/cat"),
}
CLASSES = {
    "plain": tree("8 cat", "8 dog"),
    "called train and test": tree("8 train", "8 test"),
    "called train and test with some folders": tree("8 train", "3 train/old", "8 test", "1 test/old"),
    "called train and test with folders of their own": tree(
        "4 train/steam", "4 train/diesel", "8 test/tube", "2 test/ban"
    ),
    "vehicles": tree("8 train/steam", "8 bus/steam", "8 car/steam"),
    "a little of it is split": tree("8 cat", "8 dog", "3 train/cat", "2 test/cat"),
    "deep": tree("8 cat/indoors", "8 dog/outdoors"),
    "one": tree("8 train/cat", "8 train/dog"),
    "with a part in their names": tree("8 train station", "8 test pattern", "3 bus"),
    "with a part in one name": tree(
        "8 train station/day", "8 train station/night", "8 pier/day", "8 pier/night"
    ),
    "none": {},
}


@pytest.mark.parametrize("name", SPLITS)
def test_what_looks_like_a_split_is_refused_with_the_key_that_keeps_it(name: str):
    with pytest.raises(ImageSourceError) as caught:
        checked_split(SPLITS[name], "data", None)
    assert "(" + ", ".join(part for part in SPLITS[name] if part != "raw") + ") look like the parts" in str(
        caught.value
    )
    assert "Set split.given: folders to keep that split, or give one of them alone, such as data/" in str(
        caught.value
    )


@pytest.mark.parametrize("name", SPLITS)
def test_to_evaluate_one_part_is_to_be_given(name: str):
    with pytest.raises(
        ImageSourceError, match=r"look like the parts.* Give one of them alone, such as data/"
    ):
        checked_split(SPLITS[name], "data", None, training=False)


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (
            tree("8 seg_train/cat", "8 seg_train/dog", "4 seg_test/cat", "4 seg_test/dog", "9 seg_pred"),
            r"\(seg_train, seg_test\) look like .* hold cat, dog\. Give .* as data/seg_train, or bring",
        ),
        (
            tree("8 train_1/cat", "8 train_1/dog", "8 val_1/cat", "8 val_1/dog"),
            r"\(train_1, val_1\) look like",
        ),
        (tree("8 train/cat", "8 train/dog", "8 dev/cat", "8 dev/dog"), r"\(train, dev\) look like"),
        (
            tree("8 training_set/training_set", "8 test_set/test_set"),
            r"training_set holds the folder training_set alone\. .* data/training_set/training_set, or",
        ),
        (tree("8 Train/train", "8 Test/test"), "Train holds the folder train alone"),
    ],
)
@pytest.mark.parametrize("given", [None, "folders"])
def test_parts_that_are_called_or_lie_otherwise_are_refused_in_any_case(folders, sentence: str, given):
    with pytest.raises(ImageSourceError, match=sentence):
        checked_split(folders, "data", given)


IN_ONE = [("trainA", "trainB", "testA", "testB"), ("train_cat", "val_cat", "val_dog", "train_dog")]


@pytest.mark.parametrize("names", IN_ONE)
@pytest.mark.parametrize("given", [None, "folders"])
def test_parts_and_classes_in_one_name_are_refused(names: tuple[str, ...], given: str | None):
    with pytest.raises(ImageSourceError, match="the parts of a split and its classes in one:") as caught:
        checked_split(tree(*(f"8 {name}" for name in names)), "photos", given)
    first = names[0][5:].strip("_")
    assert f"Bring their images into folders such as train/{first}, and" in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ("trainA", "trainB", "testA"),
        ("trainA", "testA"),
        ("trainee", "tester", "trainer", "testee"),
        ("trainA", "trainB"),
    ],
)
def test_other_names_that_begin_like_parts_are_classes(names: tuple[str, ...]):
    assert checked_split(tree(*(f"8 {name}" for name in names)), "photos", None) is None


@pytest.mark.parametrize(("training", "one"), [(True, "seg_train"), (False, "seg_test")])
def test_the_part_that_is_wanted_is_the_example(training: bool, one: str):
    folders = tree(
        "4 seg_test/cat", "4 seg_test/dog", "8 seg_train/cat", "8 seg_train/dog", "8 seg_val/dog"
    )
    with pytest.raises(ImageSourceError, match=f"alone, such as data/{one}(, or bring|\\.$)"):
        checked_split(folders, "data", None, training=training)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_stay_classes_whatever_they_are_called(name: str):
    assert checked_split(CLASSES[name], "data", None) is None
    with pytest.raises(
        ImageSourceError, match=r"split\.given is folders, and data holds no split: that takes"
    ):
        checked_split(CLASSES[name], "data", "folders")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "test images that nobody sorted",
            "data/test have no class, .* remove test, and test is cut from train",
        ),
        ("no train", "data has no folder train beside test, val: add it"),
    ],
)
def test_a_split_that_cannot_be_kept_is_one_sentence(name: str, sentence: str):
    with pytest.raises(ImageSourceError, match=sentence):
        checked_split(SPLITS[name], "data", "folders")


def test_a_split_that_is_kept_gives_each_file_its_class_and_part():
    split = checked_split(SPLITS["another folder beside the parts"], "data", "folders")
    assert place("train", "cat", split) == ("cat", TRAIN)
    assert place("test", "dog", split) == ("dog", TEST)
    assert place("test", "", split) == (None, TEST)
    assert place("raw", "", split) is None
    assert class_folders("train", ["", "cat", "dog"], split) == ["cat", "dog"]
    assert class_folders("raw", ["cat"], split) == []


def test_parts_within_the_class_folders_are_noted_and_kept_where_that_is_asked_for():
    turned = tree("8 cat/train", "4 cat/test", "8 dog/train", "2 dog/Test", "1 dog", "2 dog/more")
    assert checked_split(turned, "data", None) is None
    (note,) = odd_names(turned, "data", None)
    assert "hold the folders train, test, Test, which look like the parts of a split" in note
    assert "split.given: folders keeps that split" in note
    split = checked_split(turned, "data", "folders")
    assert place("dog", "Test", split) == ("dog", TEST)
    assert place("dog", "more", split) is None
    assert place("dog", "", split) is None
    assert class_folders("dog", turned["dog"], split) == ["dog"]
    assert odd_names(turned, "data", "folders") == []


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (
            CLASSES["called train and test"],
            "Classes of data are called train, test, as the parts of a split are",
        ),
        (
            tree("8 batch1/cat", "8 batch1/dog", "8 batch2/cat", "8 batch2/dog"),
            "all hold the same folders .cat, dog.",
        ),
        (CLASSES["plain"], None),
        (CLASSES["deep"], None),
        (CLASSES["vehicles"], None),
    ],
)
def test_what_is_odd_about_classes_is_said(folders, said: str | None):
    notes = odd_names(folders, "data", None)
    assert len(notes) == (said is not None)
    assert said is None or re.search(said, notes[0])


def test_a_source_that_begins_one_folder_deeper_is_guessed():
    assert hint(tree("8 photos/cat", "8 photos/dog"), "data/") == (
        " (did you mean data/photos, which holds the folders cat, dog?)"
    )
    assert "holds the folders test, train, with split.given: folders?)" in hint(
        tree("8 photos/train", "8 photos/test"), "data"
    )
    assert hint(tree("8 photos"), "data") == hint(tree("8 cat", "8 dog"), "data") == ""


counts = st.dictionaries(st.sampled_from(["", "cat", "dog", "x"]), st.integers(0, 5), max_size=4).map(
    Counter
)
trees = st.dictionaries(st.sampled_from(["train", "Test", "val", "cat", "dog", "bus"]), counts, max_size=5)


@given(trees)
def test_any_folders_are_classes_or_refused_and_a_kept_split_has_parts(folders):
    try:
        assert checked_split(folders, "data", None) is None
        looks = False
    except ImageSourceError:
        looks = True
    try:
        split = checked_split(folders, "data", "folders")
    except ImageSourceError:
        return
    assert looks or split.below
    assert {TRAIN} < set(split.parts.values())
