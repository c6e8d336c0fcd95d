import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.preparation.test_images import letters_experiment
from tuner.base.errors import ImageSourceError
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.schema import Experiment
from tuner.extraction.cache import FeatureCache
from tuner.images.decoding import load_input
from tuner.preparation.images import PreparedImages, prepare_images
from tuner.preparation.pixels import prepare_pixels
from tuner.spark.sessions import DriverSession

BASE = NetworkSpec(name="GaborNet")


def decoded(
    driver: DriverSession, experiment: Experiment, folder: Path
) -> tuple[PreparedImages, np.ndarray]:
    file = folder / "images" / "pixels.npy"
    said = Console(file=io.StringIO())
    prepared = prepare_pixels(driver, experiment, FeatureCache(folder), BASE, (16, 20), file, said)
    return prepared, np.load(file, mmap_mode="r")


def test_pixels_and_split_are_a_search_s(driver: DriverSession, letters: Path, tmp_path: Path) -> None:
    experiment = letters_experiment(letters)
    prepared, pixels = decoded(driver, experiment, tmp_path / "pixels")
    searched = prepare_images(driver, experiment, FeatureCache(tmp_path / "search"), Console(quiet=True))
    assert prepared.digest == searched.digest
    assert prepared.quarantine.equals(searched.quarantine)
    assert pixels.shape[1:] == (16, 20, 3)
    for _, row in prepared.index.iloc[::7].iterrows():
        expected = load_input(Path(row["path"]).read_bytes(), (16, 20), "none")
        np.testing.assert_array_equal(pixels[row["row"]], expected)


def test_images_that_only_spark_reads_are_decoded_alike(
    driver: DriverSession, letters: Path, tmp_path: Path
) -> None:
    experiment = letters_experiment(letters)
    frame = driver.spark.read.format("binaryFile").load(str(letters / "*" / "0*.png"))
    table = frame.selectExpr("path", "content", "element_at(split(path, '/'), -2) as label")
    table.write.parquet(str(tmp_path / "parquet"))
    experiment = experiment.model_copy(update={"images": str(tmp_path / "parquet")})
    prepared, pixels = decoded(driver, experiment, tmp_path / "cache")
    assert len(prepared.index) == 30
    contents = {row["path"]: bytes(row["content"]) for row in table.collect()}
    for _, row in prepared.index.iterrows():
        picture = Image.open(io.BytesIO(contents[row["path"]])).convert("RGB").resize((20, 16), 2)
        np.testing.assert_array_equal(pixels[row["row"]], np.asarray(picture))


def test_a_bad_image_ends_it_if_it_shall(driver: DriverSession, letters: Path, tmp_path: Path) -> None:
    experiment = letters_experiment(letters, on_bad_image="fail")
    with pytest.raises(ImageSourceError, match=r"broken\.jpg cannot be used"):
        decoded(driver, experiment, tmp_path)


def test_a_split_that_cannot_work_is_refused_before_anything_is_decoded(
    driver: DriverSession, letters: Path, tmp_path: Path
) -> None:
    experiment = letters_experiment(letters)
    split = experiment.split.model_copy(update={"test": Fraction(1, 1000)})
    with pytest.raises(ImageSourceError, match="leaves none of it in test"):
        decoded(driver, experiment.model_copy(update={"split": split}), tmp_path)
    assert not (tmp_path / "images").exists()
