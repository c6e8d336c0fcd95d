"""What a program has of an image reaches the model as a file of the same pixels would."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.conftest import FinishedSearch, glyph
from tuner.api.models import Model, image_content, load
from tuner.base.errors import ImageSourceError, ModelError
from tuner.images.decoding import decode_image


def decoded(image: object) -> np.ndarray:
    content, error = image_content(image)
    assert content is not None, error
    return np.asarray(decode_image(content))


def content_of(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 20), st.sampled_from([None, 3, 4]))
def test_pixels_arrive_as_they_are(seed: int, height: int, width: int, channels: int | None) -> None:
    shape = (height, width) if channels is None else (height, width, channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    if channels == 4:
        pixels[..., 3] = 255
    wanted = np.dstack([pixels] * 3) if channels is None else pixels[..., :3]
    assert np.array_equal(decoded(pixels), wanted)
    assert np.array_equal(decoded(Image.fromarray(pixels)), wanted)
    assert np.array_equal(decoded(pixels[::-1, ::-1]), wanted[::-1, ::-1])  # a view


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16"]
)
def test_a_picture_of_any_mode_is_what_its_file_is(mode: str) -> None:
    gray = mode in ("I", "F", "I;16")
    picture = glyph("A", 0).convert("I" if mode == "I;16" else mode if gray else "RGB").convert(mode)
    wanted = decode_image(content_of(picture, "TIFF"))
    assert np.array_equal(decoded(picture), wanted)


def test_a_picture_is_turned_as_its_file_is(tmp_path: Path) -> None:
    picture = glyph("A", 0).convert("RGB")
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        assert np.array_equal(decoded(opened), decoded(tmp_path / "turned.png"))
        assert np.array_equal(decoded(ImageOps.exif_transpose(opened)), decoded(tmp_path / "turned.png"))
    unturned = glyph("A", 0).convert("RGB")
    assert not np.array_equal(decoded(unturned), decoded(tmp_path / "turned.png"))


def test_bytes_and_paths_are_the_file_s(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    glyph("A", 0).save(file)
    content = file.read_bytes()
    for image in (content, bytearray(content), memoryview(content), file, str(file)):
        assert image_content(image) == (content, None)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((2, 2)), r"An array of float64 of shape \(2, 2\) is no image"),
        (np.zeros((2, 2, 2), np.uint8), r"of shape \(2, 2, 2\) is no image"),
        (np.zeros((0, 2), np.uint8), "is no image"),
        ("nowhere.png", r"There is no image nowhere\.png: check the path"),
        (7, "An image of type int cannot be scored"),
        (None, "An image of type NoneType cannot be scored"),
    ],
)
def test_what_is_no_image_is_refused(image: object, said: str) -> None:
    with pytest.raises(ImageSourceError, match=said):
        image_content(image)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path)


@pytest.mark.long
def test_a_model_names_paths_bytes_pictures_and_arrays(search_store: Path, letters: Path) -> None:
    model = load("models:/letters@champion")
    files = sorted((letters / "o").glob("*.png"))[:3]
    table = model.predict(files, top_k=2)
    assert list(table["path"]) == list(map(str, files))
    assert list(table["prediction"]) == ["o"] * 3
    assert [len(listed) for listed in table["top_k"]] == [2, 2, 2]
    scores = model.score(files)
    assert scores.shape == (3, len(model.labels))
    pictures = [Image.open(file) for file in files]
    arrays = [np.asarray(picture) for picture in pictures]
    together = np.stack([np.dstack([array] * 3) for array in arrays])
    for images in ([file.read_bytes() for file in files], pictures, arrays, together):
        assert np.array_equal(model.score(images), scores)
    np.testing.assert_allclose(
        model.score(files[0]), scores[:1], rtol=1e-5
    )  # one at a time rounds otherwise
    bad = model.predict([letters / "A" / "broken.jpg", b"nothing"])
    assert bad["prediction"].tolist() == [None, None]
    assert bad["error"].notna().all()
    assert isinstance(model, Model)
    assert model.predict([]).empty
    with pytest.raises(ModelError, match="top_k is -1"):
        model.predict(files, top_k=-1)


@pytest.mark.long
def test_a_model_does_not_hang_on_the_store_that_is_set(finished_search: FinishedSearch) -> None:
    run = finished_search.parent().info.run_id
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(f"runs:/{run}/model")
