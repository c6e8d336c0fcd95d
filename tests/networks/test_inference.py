from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.models import ODD_IMAGES, embedded
from tuner.base.errors import ImageError
from tuner.images.decoding import decode_image, load_input
from tuner.networks.inference import NOT_FINITE, content_reader, featurize, struct_reader


def read(value: int) -> np.ndarray:
    if value < 0:
        raise ImageError(f"{value} is bad")
    return np.full((1, 1, 3), value, np.float32)


@given(st.lists(st.integers(-5, 50), max_size=20), st.integers(1, 7))
def test_each_image_has_its_outcome_in_order_and_batches_hold_the_good_ones(values, batch_size) -> None:
    batches: list[int] = []

    def network(images: np.ndarray) -> np.ndarray:
        batches.append(len(images))
        return images[:, 0, 0, :1] * 2

    def lazily():  # as Spark hands rows over: they cannot be read twice
        yield from values

    outcomes = list(featurize(lazily(), read, network, batch_size))
    assert [reason for _, reason in outcomes] == [
        f"{value} is bad" if value < 0 else None for value in values
    ]
    assert [None if features is None else features.tolist() for features, _ in outcomes] == [
        None if value < 0 else [2.0 * value] for value in values
    ]
    assert all(0 < size <= batch_size for size in batches)
    assert sum(batches) == sum(value >= 0 for value in values)


def test_an_image_is_decoded_before_the_next_one_is_fetched() -> None:
    """So that of large files one is held, not a batch."""
    events: list[str] = []

    def fetched():
        for value in range(3):
            events.append(f"fetch {value}")
            yield value

    def decode(value: int) -> np.ndarray:
        events.append(f"decode {value}")
        return read(value)

    list(featurize(fetched(), decode, lambda images: images[:, 0, 0], 8))
    assert events == [f"{step} {value}" for value in range(3) for step in ("fetch", "decode")]


def test_images_can_be_read_by_a_pool_of_threads() -> None:
    values = [3, -1, *range(30)]
    with ThreadPoolExecutor(4) as pool:
        pooled = list(featurize(values, read, lambda images: images[:, 0, 0], 8, pool.map))
    plain = list(featurize(values, read, lambda images: images[:, 0, 0], 8))
    assert [reason for _, reason in pooled] == [reason for _, reason in plain]
    assert all(np.array_equal(one, other) for (one, _), (other, _) in zip(pooled, plain, strict=True))


def test_features_that_are_not_finite_are_none_with_a_reason() -> None:
    values = np.array([[1.0, np.nan], [1.0, 2.0], [np.inf, 0.0]])
    outcomes = list(featurize([0, 1, -1, 2], read, lambda _: values, 8))
    assert [features is None for features, _ in outcomes] == [True, False, True, True]
    assert [reason for _, reason in outcomes] == [NOT_FINITE, None, "-1 is bad", NOT_FINITE]


def test_an_error_that_is_not_the_image_s_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        list(featurize([1], lambda value: np.array(value / 0), lambda images: images, 4))


def test_a_file_and_spark_s_struct_of_it_are_read_alike(tmp_path: Path) -> None:
    backbone = embedded(tmp_path)
    content = ODD_IMAGES["PNG RGB"]
    pixels = decode_image(content)
    height, width, _ = pixels.shape
    struct = {"height": height, "width": width, "nChannels": 3, "data": pixels[..., ::-1].tobytes()}
    expected = load_input(content, backbone.input_size, backbone.preprocessing)
    np.testing.assert_array_equal(content_reader(backbone)(content), expected)
    np.testing.assert_array_equal(struct_reader(backbone)(struct), expected)
