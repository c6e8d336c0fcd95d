import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.models import as_png, embedded
from tuner.base.errors import ImageSourceError
from tuner.extraction.files import counts, parts, read_features
from tuner.extraction.worker import FeatureWriter
from tuner.images.decoding import load_input
from tuner.networks.files import open_network
from tuner.networks.resolution import Network


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return embedded(tmp_path_factory.mktemp("store"), "GaborNet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "features" / "key"
    place.mkdir(parents=True)
    return place


def writer(network: Network, folder: Path, part_seconds: float = 60, stop: bool = False) -> FeatureWriter:
    return FeatureWriter(network, folder, threads=1, part_seconds=part_seconds, stop_on_bad=stop)


def contents(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [as_png(rng.integers(0, 256, (5, 6, 3), np.uint8)) for _ in range(count)]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def listed(folder: Path, images: list[bytes]) -> list[tuple[str, str]]:
    for number, content in enumerate(images):
        (folder / f"{number}.png").write_bytes(content)
    return [(str(folder / f"{number}.png"), digest(content)) for number, content in enumerate(images)]


def expected(network: Network, images: list[bytes]) -> np.ndarray:
    compute = open_network(Path(network.file), network.input_size, network.precision)
    return compute(np.stack([load_input(one, network.input_size, network.preprocessing) for one in images]))


def test_shares_of_files_become_parts_of_features(network: Network, folder: Path, tmp_path: Path) -> None:
    images = contents(40)  # more than a batch, and no whole number of them
    files = listed(tmp_path, images)
    assert list(writer(network, folder).of_files([files[:7], files[7:], []])) == [7, 33, 0]
    assert sorted(counts(part) for part in parts(folder)) == [(7, 0), (33, 0)]
    found = read_features(parts(folder), [digest(content) for content in images])
    np.testing.assert_allclose(found, expected(network, images), rtol=1e-4, atol=1e-5)


def test_contents_come_in_batches_and_go_into_one_part(network: Network, folder: Path) -> None:
    images = contents(20)
    batches = [
        pa.RecordBatch.from_pydict({"digest": list(map(digest, some)), "content": some})
        for some in (images[:3], images[3:])
    ]
    (answer,) = writer(network, folder).of_contents(iter(batches))
    assert answer.to_pydict() == {"images": [20]}
    assert [counts(part) for part in parts(folder)] == [(20, 0)]
    found = read_features(parts(folder), [digest(content) for content in images])
    np.testing.assert_allclose(found, expected(network, images), rtol=1e-4, atol=1e-5)


def test_an_image_that_cannot_be_decoded_is_a_row_with_its_reason(
    network: Network, folder: Path, tmp_path: Path
) -> None:
    files = listed(tmp_path, [*contents(2), b"no image"])
    assert list(writer(network, folder).of_files([files])) == [3]
    (part,) = parts(folder)
    assert counts(part) == (3, 1)
    rows = pq.read_table(part).to_pylist()
    assert [row["digest"] for row in rows] == [known for _, known in files]
    assert [row["features"] is None for row in rows] == [False, False, True]
    assert [row["error"] for row in rows][:2] == [None, None]
    assert rows[2]["error"].startswith("not an image")


@pytest.mark.parametrize("stop", [False, True])
def test_where_a_bad_image_ends_the_search_it_is_written_at_once(
    network: Network, folder: Path, tmp_path: Path, stop: bool
) -> None:
    images = contents(20)
    images[1:1] = [b"no image"]
    list(writer(network, folder, stop=stop).of_files([listed(tmp_path, images)]))
    assert sorted(counts(part) for part in parts(folder)) == ([(2, 1), (19, 0)] if stop else [(21, 1)])


def test_an_interruption_costs_as_much_as_was_asked_for(
    network: Network, folder: Path, tmp_path: Path
) -> None:
    """With no time to lose each image is a part; those before a file that changed are kept."""
    files = listed(tmp_path, contents(20))
    Path(files[-1][0]).write_bytes(b"another")
    with pytest.raises(ImageSourceError, match=r"19\.png changed or vanished while it was in use"):
        list(writer(network, folder, part_seconds=0).of_files([files]))
    assert {counts(part) for part in parts(folder)} == {(1, 0)}
    assert len(parts(folder)) == 16  # the batch that was not whole had not gone through the network


def test_a_file_that_vanished_is_not_taken_for_another(
    network: Network, folder: Path, tmp_path: Path
) -> None:
    files = listed(tmp_path, contents(2))
    Path(files[0][0]).unlink()
    with pytest.raises(ImageSourceError, match=r"0\.png changed or vanished"):
        list(writer(network, folder).of_files([files]))
    assert parts(folder) == []
