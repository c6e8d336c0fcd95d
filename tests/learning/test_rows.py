from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.learning.rows import RowFile


@given(rows=st.integers(1, 30), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_rows_are_read_as_they_were_written_in_whatever_order(
    rows: int, width: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    values, order = rng.normal(size=(rows, width)).astype(np.float32), rng.permutation(rows)
    with RowFile(tmp_path_factory.mktemp("rows") / "rows", (rows, width)) as file:
        assert file.lowest == np.inf
        file[order[:2]] = values[order[:2]]
        file[order[2:]] = values[order[2:]].astype(np.float64)
        places = rng.integers(rows, size=7)
        np.testing.assert_array_equal(file[places], values[places])
        assert file[places[:0]].shape == (0, width)
        assert file.lowest == values.min()


def test_its_room_on_the_disk_is_taken_at_once(tmp_path: Path) -> None:
    with RowFile(tmp_path / "rows", (1000, 250)):
        assert (tmp_path / "rows").stat().st_size == 1_000_000
        assert (tmp_path / "rows").stat().st_blocks * 512 >= 1_000_000
    with RowFile(tmp_path / "none", (0, 250)) as file:
        assert file.shape == (0, 250)
