import subprocess
import sys
from pathlib import Path

import pytest

from tuner.base.errors import CacheError
from tuner.extraction.cache import FeatureCache
from tuner.extraction.occupancy import alone_in


def test_a_cache_that_is_open_is_pruned_by_nobody(tmp_path: Path) -> None:
    first, second = FeatureCache(tmp_path / "cache"), FeatureCache(tmp_path / "cache")
    for left in (first, second):
        with pytest.raises(CacheError, match="in use by a search"), alone_in(tmp_path / "cache"):
            pass
        left.close()
    with alone_in(tmp_path / "cache"):
        pass


def test_a_cache_is_left_with_the_object_that_has_it(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    with pytest.raises(CacheError), alone_in(tmp_path):
        pass
    del cache
    with alone_in(tmp_path):
        pass


def test_another_process_has_it_until_it_ends_in_whatever_way(tmp_path: Path) -> None:
    program = (
        "import sys; from tuner.extraction.cache import FeatureCache\n"
        "cache = FeatureCache(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(CacheError, match="prune it when"), alone_in(tmp_path):
            pass
        process.kill()
    with alone_in(tmp_path):
        pass


def test_where_there_is_no_cache_nobody_has_it(tmp_path: Path) -> None:
    with alone_in(tmp_path / "nowhere"):
        pass
    assert list(tmp_path.iterdir()) == []
