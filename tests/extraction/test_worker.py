"""A worker's part of an extraction, in this process: what Spark calls in a task."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.helpers.models import as_png, embedded
from tests.helpers.sources import sha256
from tuner.base.choices import DEFAULT_DECODING
from tuner.base.errors import ImageSourceError
from tuner.extraction.files import counts, parts, read_features
from tuner.extraction.worker import FeatureWriter
from tuner.images.decoding import decoder, load_input, outcomes
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
    return FeatureWriter(network, folder, frozenset(), decoder(), 1, part_seconds, stop)


def contents(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [as_png(rng.integers(0, 256, (5, 6, 3), np.uint8)) for _ in range(count)]


def listed(folder: Path, images: list[bytes]) -> list[tuple[str, str]]:
    for number, content in enumerate(images):
        (folder / f"{number}.png").write_bytes(content)
    return [(str(folder / f"{number}.png"), sha256(content)) for number, content in enumerate(images)]


def written(folder: Path) -> Counter[str]:
    return Counter(row["digest"] for row in rows_of(folder))


def rows_of(folder: Path) -> list[dict[str, object]]:
    return [row for part in parts(folder) for row in pq.read_table(part).to_pylist()]


def found(folder: Path, images: list[bytes]) -> np.ndarray:
    matrix = np.empty((len(images), 384), np.float32)
    read_features(
        parts(folder), [sha256(content) for content in images], matrix, outcomes(DEFAULT_DECODING)
    )
    return matrix


def expected(network: Network, images: list[bytes]) -> np.ndarray:
    compute = open_network(Path(network.file), network.input_size, network.precision)
    return compute(np.stack([load_input(one, network.input_size, network.preprocessing) for one in images]))


def test_shares_of_files_become_parts_of_features(network: Network, folder: Path, tmp_path: Path) -> None:
    images = contents(40)  # more than a batch, and no whole number of them
    files = listed(tmp_path, images)
    assert list(writer(network, folder).of_files([files[:7], files[7:], []])) == []
    assert sorted(counts(part) for part in parts(folder)) == [(7, 0), (33, 0)]
    np.testing.assert_allclose(found(folder, images), expected(network, images), rtol=1e-4, atol=1e-5)


def test_contents_come_in_batches_and_go_into_one_part(network: Network, folder: Path) -> None:
    images = contents(20)
    batches = [
        pa.RecordBatch.from_pydict({"digest": list(map(sha256, some)), "content": some})
        for some in (images[:3], images[3:])
    ]
    (answer,) = writer(network, folder).of_contents(iter(batches))
    assert answer.to_pydict() == {"digest": [], "error": []}  # none is to be tried again
    assert [counts(part) for part in parts(folder)] == [(20, 0)]
    np.testing.assert_allclose(found(folder, images), expected(network, images), rtol=1e-4, atol=1e-5)


def test_an_image_that_cannot_be_decoded_is_a_row_with_its_reason(
    network: Network, folder: Path, tmp_path: Path
) -> None:
    files = listed(tmp_path, [*contents(2), b"no image"])
    assert list(writer(network, folder).of_files([files])) == []
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


def test_a_task_that_is_tried_again_goes_on_where_it_was_and_writes_nothing_twice(
    network: Network, folder: Path, tmp_path: Path
) -> None:
    share, each = listed(tmp_path, contents(40)), writer(network, folder, part_seconds=0)
    path, content = Path(share[30][0]), Path(share[30][0]).read_bytes()
    path.unlink()  # here the first attempt ends
    with pytest.raises(ImageSourceError):
        list(each.of_files([share]))
    first = written(folder)
    assert 0 < len(first) < 40
    path.write_bytes(content)
    list(each.of_files([share]))
    assert written(folder) == Counter(digest for _, digest in share)
    assert set(first) < set(written(folder))
    before = parts(folder)
    list(each.of_files([share]))
    assert parts(folder) == before
    again = replace(each, before=frozenset(Path(part).name for part in before), part_seconds=60)
    list(again.of_files([share[:3]]))  # another extraction does what it is told
    assert sum(written(folder).values()) == 43


def test_contents_that_are_written_already_are_passed_over(network: Network, folder: Path) -> None:
    images = contents(30)
    table = pa.table({"digest": list(map(sha256, images)), "content": images})
    for rows in (table[:12], table):
        (told,) = writer(network, folder).of_contents(iter(rows.to_batches(7)))
        assert told.num_rows == 0
        assert told.schema.names == ["digest", "error"]
    assert written(folder) == Counter(map(sha256, images))


def test_a_failure_of_memory_is_told_and_not_written(
    network: Network, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = contents(20)
    images[4] = b"no image"
    share, each = listed(tmp_path, images), writer(network, folder)
    unlucky, load = images[7], Image.open

    def fail(file, *arguments: object, **options: object) -> Image.Image:
        if file.getvalue() == unlucky:
            raise MemoryError
        return load(file, *arguments, **options)

    monkeypatch.setattr(Image, "open", fail)
    assert list(each.of_files([share])) == [(sha256(unlucky), "memory did not suffice to decode it")]
    monkeypatch.undo()
    assert sha256(unlucky) not in written(folder)
    assert len(written(folder)) == 19
    rows = {row["digest"]: row for row in rows_of(folder)}
    bad = rows[share[4][1]]
    assert (bad["error"], bad["depends"]) == ("not an image of a known format", decoder())
    assert list(each.of_files([share])) == []  # it is tried again, and read
    assert sha256(unlucky) in written(folder)


def test_what_decided_features_stands_beside_them(network: Network, folder: Path, tmp_path: Path) -> None:
    pictures = {
        "opaque": Image.new("RGB", (4, 4), (0, 0, 90)),
        "transparent": Image.new("RGBA", (4, 4), (0, 0, 90, 128)),
        "deep": Image.fromarray(np.full((4, 4), 4095, np.uint16)),
    }
    digests = {}
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        digests[name] = sha256((tmp_path / f"{name}.png").read_bytes())
    list(
        writer(network, folder).of_files(
            [[(str(tmp_path / f"{name}.png"), digest) for name, digest in digests.items()]]
        )
    )
    rows = {row["digest"]: row for row in rows_of(folder)}
    found = {
        name: [rows[digest][key] for key in ("depends", "highest", "white", "lowest")]
        for name, digest in digests.items()
    }
    assert found == {
        "opaque": [None, 90, 255, 0],
        "transparent": ["transparent: white", 172, 255, 0],
        "deep": ["max_value: None", 4095, 65535, 0],
    }
