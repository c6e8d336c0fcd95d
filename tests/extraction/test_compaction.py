"""Parts that are put together hold what they held."""

from pathlib import Path

import numpy as np
import pytest

from tuner.extraction import compaction
from tuner.extraction.compaction import MOST_PARTS, compact
from tuner.extraction.files import (
    Row,
    counts,
    parts,
    read_columns,
    read_features,
    remove_damaged,
    write_part,
)

OUTCOMES = (None, "Pillow 1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "features" / "key"
    place.mkdir(parents=True)
    return place


def fill(folder: Path, count: int) -> list[str]:
    """As many parts of three rows, one of them an image that cannot be read."""
    digests = [f"{number:064d}" for number in range(3 * count)]
    for number in range(count):
        first, second, bad = digests[3 * number : 3 * number + 3]
        write_part(
            folder,
            [
                Row(first, np.full(4, number, np.float32), None),
                Row(second, np.full(4, -number, np.float32), None),
                Row(bad, None, "truncated", "Pillow 1"),
            ],
        )
    return digests


def features(folder: Path, digests: list[str]) -> np.ndarray:
    matrix = np.empty((len(digests), 4), np.float32)
    read_features(parts(folder), digests, matrix, OUTCOMES)
    return matrix


def test_few_parts_stay_as_they_are(folder: Path):
    fill(folder, MOST_PARTS)
    before = parts(folder)
    assert compact(folder) == 0
    assert parts(folder) == before


@pytest.mark.parametrize("rows", [50, compaction.PART_ROWS])
def test_many_parts_become_few_and_hold_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch, rows: int):
    monkeypatch.setattr(compaction, "PART_ROWS", rows)
    digests = fill(folder, MOST_PARTS + 36)
    good = [digest for number, digest in enumerate(digests) if number % 3 < 2]
    before, known = features(folder, good), set(read_columns(parts(folder), ["digest"], OUTCOMES)["digest"])
    assert compact(folder) == MOST_PARTS + 36 - len(parts(folder))
    put_together = [(48, 16)] * 6 + [(12, 4)] if rows == 50 else [(300, 100)]
    assert sorted(counts(part) for part in parts(folder)) == sorted(put_together)
    np.testing.assert_array_equal(features(folder, good), before)
    assert set(read_columns(parts(folder), ["digest"], OUTCOMES)["digest"]) == known
    assert remove_damaged(folder) == 0
    assert compact(folder) == 0
    assert all(path.name.startswith("part-") for path in folder.iterdir())


def test_what_is_put_together_already_is_not_written_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compaction, "PART_ROWS", 300)
    fill(folder, 100)
    compact(folder)
    (whole,) = parts(folder)
    fill(folder, 200)
    compact(folder)
    assert whole in parts(folder)
