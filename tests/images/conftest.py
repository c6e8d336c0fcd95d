"""What the tests of sources share: files below a folder."""

from pathlib import Path

import pytest

from tests.helpers.sources import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make files below a folder: each has its own name, from there, as its content."""

    def make(*names: str) -> Path:
        root = tmp_path / "the images"
        root.mkdir(exist_ok=True)
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        return root

    return make
