import io
from fractions import Fraction
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from tests.conftest import glyph
from tuner.base.errors import CacheError, ImageSourceError
from tuner.experiment.schema import Experiment, Split
from tuner.experiment.search import SearchSettings
from tuner.extraction.cache import FeatureCache
from tuner.preparation.images import (
    PreparedImages,
    data_digest,
    first_image,
    is_filled,
    open_cache,
    prepare_images,
)
from tuner.spark.sessions import DriverSession
from tuner.tracking.store import Tracking


def letters_experiment(letters: Path, **settings) -> Experiment:
    return Experiment(
        name="letters",
        images=str(letters),
        split=Split(test="1/4", validation_ratio=Fraction(1, 3)),
        search=SearchSettings(backbone="GaborNet"),
        **settings,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return FeatureCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def prepared(driver: DriverSession, letters: Path, cache: FeatureCache) -> PreparedImages:
    return prepare_images(driver, letters_experiment(letters), cache, Console(quiet=True))


def test_good_images_are_split_and_bad_ones_listed(prepared: PreparedImages):
    counts = prepared.index.groupby(["label", "part"]).size().unstack()
    assert set(counts["test"]) == {5}
    assert set(counts["validation"]) == {5}
    assert set(counts["train"]) == {10}
    assert [Path(path).name for path in prepared.quarantine["path"]] == ["broken.jpg", "notes.txt"]
    assert prepared.extracted == 62


def test_a_cache_is_filled_where_each_network_has_features(
    letters: Path, cache: FeatureCache, prepared: PreparedImages, tmp_path: Path
):
    experiment = letters_experiment(letters)
    assert is_filled(cache, experiment)
    assert not is_filled(FeatureCache(tmp_path), experiment)
    both = experiment.model_copy(update={"search": SearchSettings(backbone="GaborNet,GlyphNet")})
    assert not is_filled(cache, both)


def test_what_is_cached_is_not_extracted_again_and_the_digest_stays(
    driver: DriverSession, letters: Path, cache: FeatureCache, prepared: PreparedImages
):
    again = prepare_images(driver, letters_experiment(letters), cache, Console(quiet=True))
    assert again.extracted == 0
    assert again.digest == prepared.digest
    assert data_digest(again.index.sample(frac=1, random_state=0)) == again.digest
    assert data_digest(again.index.assign(part="train")) != again.digest


def test_example_is_the_smallest_image(letters: Path, prepared: PreparedImages):
    sizes = [path.stat().st_size for path in letters.rglob("*.png")]
    assert len(first_image(prepared)) == min(sizes)


@pytest.mark.parametrize("warm", [False, True])
def test_a_bad_image_stops_everything_where_that_is_asked_for(
    driver: DriverSession, letters: Path, tmp_path: Path, cache: FeatureCache, prepared, warm: bool
):
    experiment = letters_experiment(letters, on_bad_image="fail")
    used = cache if warm else FeatureCache(tmp_path)
    with pytest.raises(ImageSourceError, match=r"(broken\.jpg|notes\.txt) cannot be used"):
        prepare_images(driver, experiment, used, Console(quiet=True))


# Images that stand in two classes ------------------------------------------------------------------


def classes_of(root: Path, **letters: str) -> Experiment:
    """An experiment on folders of eight letters each; no two letters are the same file."""
    for seed, (label, text) in enumerate(letters.items()):
        (root / label).mkdir(parents=True)
        for number in range(8):
            glyph(text, 100 * seed + number).save(root / label / f"{number}.png")
    return Experiment(name="small", images=str(root), search=SearchSettings(backbone="GaborNet"))


def test_an_image_of_two_classes_is_in_the_quarantine_of_both(
    driver: DriverSession, tmp_path: Path, cache: FeatureCache
):
    root = tmp_path / "images"
    experiment = classes_of(root, cat="c", dog="d")
    copy = (root / "cat" / "3.png").read_bytes()
    for place in ("cat/again.png", "dog/copy.png"):
        (root / place).write_bytes(copy)
    console = Console(file=io.StringIO(), width=200)
    found = prepare_images(driver, experiment, cache, console)
    listed = {str(Path(row.path).relative_to(root)): row.reason for row in found.quarantine.itertuples()}
    assert listed == {
        "cat/3.png": "label conflict: also in dog",
        "cat/again.png": "label conflict: also in dog",
        "dog/copy.png": "label conflict: also in cat",
    }
    assert found.index.groupby("label").size().to_dict() == {"cat": 7, "dog": 8}
    assert found.index.groupby("digest")["label"].nunique().max() == 1
    assert "3 of them are in conflict over their label" in console.file.getvalue()
    strict = experiment.model_copy(update={"on_bad_image": "fail"})
    with pytest.raises(ImageSourceError, match=r"3\.png cannot be used \(label conflict: also in dog\)"):
        prepare_images(driver, strict, FeatureCache(tmp_path / "cold"), Console(quiet=True))
    assert not (tmp_path / "cold" / "features").exists()  # said before any image was decoded


def test_a_class_that_is_a_link_to_another_is_refused(
    driver: DriverSession, tmp_path: Path, cache: FeatureCache
):
    experiment = classes_of(tmp_path, a="a", b="b")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    sentence = (
        r"None of the 8 image\(s\) of the class b can be used \(.*/b/0\.png: label conflict: also in c\)"
    )
    with pytest.raises(ImageSourceError, match=sentence):
        prepare_images(driver, experiment, cache, Console(quiet=True))


def test_a_class_without_a_usable_image_is_refused_and_not_forgotten(
    driver: DriverSession, tmp_path: Path, cache: FeatureCache
):
    experiment = classes_of(tmp_path, a="a", b="b", c="c")
    for number in range(8):
        (tmp_path / "b" / f"{number}.png").write_text(f"no image {number}")
    with pytest.raises(ImageSourceError, match=r"None of the 8 image\(s\) of the class b .*not an image"):
        prepare_images(driver, experiment, cache, Console(quiet=True))


def test_thousands_of_bad_files_are_refused_as_fast_as_one(
    driver: DriverSession, tmp_path: Path, cache: FeatureCache
):
    """The same bytes, or none: matched with one another by digest they would be 10^8 rows."""
    experiment = classes_of(tmp_path, a="a", b="b").model_copy(update={"on_bad_image": "fail"})
    for number in range(10_000):
        (tmp_path / "b" / f"dangling {number}.png").symlink_to("nowhere")
    with pytest.raises(ImageSourceError, match=r"dangling 0\.png cannot be used \(cannot be read: No such"):
        prepare_images(driver, experiment, cache, Console(quiet=True))


def test_a_cache_among_mlflow_s_artifacts_is_refused(letters: Path, tmp_path: Path) -> None:
    store = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "")
    client = MlflowClient(store.uri)
    made = client.create_experiment("letters", (tmp_path / "artifacts").as_uri())
    store = Tracking(store.uri, made)
    climbing = tmp_path / "other" / ".." / "artifacts" / "cache"
    with pytest.raises(CacheError, match="lies among MLflow's artifacts"):
        open_cache(letters_experiment(letters, cache=climbing), store)
    assert open_cache(letters_experiment(letters, cache=tmp_path / "cache"), store).root.is_dir()


def given_split(root: Path, letters: str = "cd", **parts: int) -> Experiment:
    """An experiment on parts of so many letters of each class; no two of them are the same file."""
    for number, (part, count) in enumerate(parts.items()):
        for seed, letter in enumerate(letters):
            (root / part / letter).mkdir(parents=True)
            for each in range(count):
                path = root / part / letter / f"{each}.png"
                glyph(letter, 1000 * number + 100 * seed + each).save(path)
    return Experiment(
        name="given",
        images=str(root),
        split=Split(given="folders"),
        search=SearchSettings(backbone="GaborNet"),
    )


def test_a_given_split_is_kept_and_copies_of_test_images_leave_the_others(
    driver: DriverSession, tmp_path: Path, cache: FeatureCache
):
    root = tmp_path / "images"
    experiment = given_split(root, train=8, val=4, test=5)
    copy = (root / "test" / "c" / "1.png").read_bytes()
    for place in ("train/c/copy.png", "val/c/copy.png", "test/c/copy.png"):
        (root / place).write_bytes(copy)
    console = Console(file=io.StringIO(), width=200)
    found = prepare_images(driver, experiment, cache, console)
    folders = found.index["path"].map(lambda path: Path(path).relative_to(root).parts[0])
    assert dict(zip(folders, found.index["part"], strict=True)) == {
        "train": "train",
        "val": "validation",
        "test": "test",
    }
    assert found.index["part"].value_counts().to_dict() == {"train": 16, "validation": 8, "test": 11}
    assert "given" not in found.index
    listed = {str(Path(row.path).relative_to(root)): row.reason for row in found.quarantine.itertuples()}
    assert listed == dict.fromkeys(
        ["train/c/copy.png", "val/c/copy.png"], "copy of an image of the part test"
    )
    printed = console.file.getvalue()
    assert "The given split is kept: 16 for train, 8 for validation, 11 for test" in printed
    assert "2 of them are copies of images of test in other parts" in printed
    strict = experiment.model_copy(update={"on_bad_image": "fail"})  # a copy is no bad image
    assert prepare_images(driver, strict, cache, Console(quiet=True)).digest == found.digest


def test_options_of_decoding_extract_anew_what_they_change_and_nothing_else(
    driver: DriverSession, tmp_path: Path
):
    root, cache = tmp_path / "images", FeatureCache(tmp_path / "cache")
    experiment = classes_of(root, a="a", b="b")
    for number in range(3):
        picture = glyph("b", 500 + number)
        picture.putalpha(picture.point(lambda value: 255 if value < 128 else 0))
        picture.save(root / "b" / f"transparent {number}.png")
    console = Console(file=io.StringIO(), width=200)

    def extracted(**options: object) -> int:
        return prepare_images(driver, experiment.model_copy(update=options), cache, console).extracted

    assert extracted() == 19
    assert extracted(transparent="black") == 3
    assert extracted() == extracted(transparent="black") == extracted(max_value=4095) == 0
    assert extracted(max_value=100) == 19  # gray pictures of 8 bits, too
    assert "have values above 100, up to 255, which are cut off" in console.file.getvalue()
