"""Where transformers with a network are saved: their parameters and files are tried with each of them."""

from pathlib import Path

import pytest

from tuner.base.errors import NetworkError
from tuner.models.stages.saving import local_path


@pytest.mark.parametrize("uri", ["s3a://bucket/model", "viewfs://here/model"])
def test_a_network_is_not_embedded_where_python_cannot_write(uri: str) -> None:
    with pytest.raises(NetworkError, match=f"A DeepImageFeaturizer is saved .* and {uri} is none"):
        local_path(uri, "DeepImageFeaturizer")


def test_a_file_uri_is_its_path(tmp_path: Path) -> None:
    assert local_path(f"file://{tmp_path}/a b%20", "DeepImageFeaturizer") == tmp_path / "a b%20"
