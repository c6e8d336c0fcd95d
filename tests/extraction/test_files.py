from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.base.errors import CacheError
from tuner.extraction.files import (
    Row,
    counts,
    parts,
    read_features,
    remove_damaged,
    write_part,
    writing_to,
)

ROWS = [
    Row("a" * 64, np.arange(4, dtype=np.float32), None, "transparent: white", 200, 255, -1),
    Row("b" * 64, None, "truncated", "Pillow 1"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "features" / "key"
    folder.mkdir(parents=True)
    return folder


def test_a_part_is_named_after_its_rows_and_its_content(folder: Path) -> None:
    assert write_part(folder, ROWS) == 2
    (part,) = parts(folder)
    assert counts(part) == (2, 1)
    assert pq.read_table(part).to_pylist() == [
        {
            "digest": "a" * 64,
            "features": [0, 1, 2, 3],
            "error": None,
            "depends": "transparent: white",
            "highest": 200,
            "white": 255,
            "lowest": -1,
        },
        {
            "digest": "b" * 64,
            "features": None,
            "error": "truncated",
            "depends": "Pillow 1",
            "highest": None,
            "white": None,
            "lowest": None,
        },
    ]
    assert remove_damaged(folder) == 0
    assert write_part(folder, []) == 0
    assert list(folder.iterdir()) == [Path(part)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_part_with_a_flipped_bit_or_cut_off_is_removed(
    folder: Path, place: float, bit: int, cut: bool
) -> None:
    for old in parts(folder):
        Path(old).unlink()
    write_part(folder, ROWS)
    whole = Path(parts(folder)[0])
    write_part(folder, ROWS[:1])
    assert remove_damaged(folder) == 0
    content = bytearray(whole.read_bytes())
    at = int(place * len(content))
    content[at] ^= 1 << bit
    whole.write_bytes(content[:at] if cut else content)
    assert remove_damaged(folder) == 1
    assert not whole.exists()
    assert len(parts(folder)) == 1


def test_what_the_system_refuses_is_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(CacheError, match=r"cannot be written \(No space left on device\): free it"),
        writing_to(tmp_path),
    ):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("ahead", [True, False])
def test_features_are_the_same_whichever_way_they_are_read(folder: Path, ahead: bool) -> None:
    features = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    digests = [f"{number:064d}" for number in range(60)]
    for first in range(0, 60, 20):
        write_part(folder, [Row(digests[n], features[n], None, "today") for n in range(first, first + 20)])
    matrix = np.zeros((31, 5), np.float32)
    read_features(parts(folder), [*digests[59:29:-1], digests[50]], matrix, ["today"], ahead=ahead)
    assert np.array_equal(matrix, features[[*range(59, 29, -1), 50]])
