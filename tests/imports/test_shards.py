from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.imports.test_listing import SPLIT, make_folder
from tuner.imports import shards as module
from tuner.imports.listing import Image, Source, list_sources
from tuner.imports.shards import SCHEMA, deal, write_shards


def sources_of(sizes: list[list[int]], parts: tuple[str | None, ...] = (None,)) -> list[Source]:
    return [
        Source(
            Path(f"source{place}"),
            [
                Image(number, f"{place}/{number}", "cat", parts[number % len(parts)], size, "")
                for number, size in enumerate(row)
            ],
            frozenset(["cat"]),
            [],
            [],
        )
        for place, row in enumerate(sizes)
    ]


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=10), min_size=1, max_size=3),
    st.sampled_from([(None,), ("train", "test")]),
)
def test_each_image_is_in_one_shard_of_its_part_of_about_the_size(
    sizes: list[list[int]], parts: tuple[str | None, ...]
) -> None:
    sources = sources_of(sizes, parts)
    dealt = deal(sources, "digest", 20)
    held = [(place, number) for shard in dealt for place, some in shard.members.items() for number in some]
    assert sorted(held) == [
        (place, number) for place, row in enumerate(sizes) for number in range(len(row))
    ]
    assert len({shard.name for shard in dealt}) == len(dealt)
    for shard in dealt:
        images = [sources[place].images[number] for place, some in shard.members.items() for number in some]
        assert {image.part or "images" for image in images} == {shard.name.partition("-")[0]}
        assert shard.images == len(images)
        in_order = sorted(images, key=lambda image: tuple(map(int, image.path.split("/"))))
        assert sum(image.size for image in in_order[:-1]) < 20
    assert [shard.name for shard in deal(sources, "digest", 20)] == [shard.name for shard in dealt]
    others = {shard.name for shard in deal(sources, "other", 20)}
    assert not others & {shard.name for shard in dealt}


@pytest.mark.parametrize("group_bytes", [1, 8, 2**20])
def test_shards_hold_what_the_sources_hold(
    group_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GROUP_BYTES", group_bytes)
    make_folder(tmp_path / "a", SPLIT)
    sources = list_sources([str(tmp_path / "a")], "folders")
    dealt = deal(sources, "digest", 8)
    assert len(dealt) > 3
    (tmp_path / "out").mkdir()
    done, found = [], {}
    for shard, file in write_shards(sources, dealt, tmp_path / "out", lambda image, _: done.append(image)):
        table = pq.read_table(file)
        assert table.schema == SCHEMA
        assert table.num_rows == shard.images
        part = shard.name.partition("-")[0]
        for row in table.to_pylist():
            assert row["path"].startswith(f"{part}/{row['label']}/")
            found[row["path"]] = row["content"]
        groups = pq.ParquetFile(file).num_row_groups
        assert groups == (shard.images if group_bytes == 1 else 1 if group_bytes > 8 else groups)
    assert found == SPLIT
    assert len(done) == len(SPLIT)
    assert list((tmp_path / "out").iterdir()) == []  # one at a time lies there


def test_what_is_there_already_is_not_read(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", SPLIT)
    sources = list_sources([str(tmp_path / "a")], "folders")
    dealt, done = deal(sources, "digest", 8), []
    (tmp_path / "out").mkdir()
    made = list(write_shards(sources, dealt[1:2], tmp_path / "out", lambda image, _: done.append(image)))
    assert [shard for shard, _ in made] == dealt[1:2]
    assert len(done) == dealt[1].images


def test_a_damaged_file_stands_there_without_content(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", {"cat/1.png": b"x"})
    (tmp_path / "a" / "cat" / "2.png").symlink_to("nowhere")
    sources = list_sources([str(tmp_path / "a")], None)
    shards = deal(sources, "digest", 100)
    (tmp_path / "out").mkdir()
    for _, file in write_shards(sources, shards, tmp_path / "out", lambda *_: None):
        rows = {row["path"]: row["content"] for row in pq.read_table(file).to_pylist()}
    assert rows == {"cat/1.png": b"x", "cat/2.png": None}
