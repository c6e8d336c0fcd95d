import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.base.errors import CacheError
from tuner.extraction.cache import FeatureCache
from tuner.extraction.files import Row, write_part
from tuner.networks.resolution import Network
from tuner.preparation.images import PreparedImages
from tuner.preparation.matrices import FeatureMatrices, FeatureTable, matrix_bytes, write_matrices

NO_IMAGES: Any = None  # nothing reads them any more
PARTS = ["fold-0", "fold-1", "train", "validation", "test"]
NETWORKS = {
    name: Network(name, digest * 64, "nowhere.keras", (8, 8), "unit", width, "float32")
    for name, digest, width in (("narrow", "a", 2), ("wide.v2", "b", 5))
}


def features_of(image: int, network: Network) -> np.ndarray:
    return np.float32([image * 10 + column for column in range(network.width)])


def index_of(images: list[tuple[int, int, str]]) -> pd.DataFrame:
    """Images by their content, with class and part; each has a path of its own, in no order."""
    rows = [
        {"path": f"{place * 7 % 11}-{place}.png", "label_index": label, "part": part, "digest": f"d{image}"}
        for place, (image, label, part) in enumerate(images)
    ]
    return pd.DataFrame(rows).astype({"label_index": "int32"})


def prepare(root: Path, index: pd.DataFrame) -> tuple[FeatureCache, PreparedImages]:
    """What a search has before its trials: the split images, and their features in the cache."""
    cache = FeatureCache(root)
    for network in NETWORKS.values():
        folder = cache.folder(network)
        folder.mkdir(parents=True)
        for digest in index["digest"].unique():
            write_part(folder, [Row(digest, features_of(int(digest[1:]), network), None)])
    return cache, PreparedImages(NO_IMAGES, index, pd.DataFrame(), NETWORKS, 0)


# The file that the driver writes and workers map


@settings(max_examples=25, deadline=None)
@given(
    images=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 2), st.sampled_from(PARTS)), min_size=1, max_size=20
    ).filter(lambda images: any(part != "test" for _, _, part in images))
)
def test_a_worker_finds_each_image_once_with_its_own_features_and_none_of_the_test_part(
    tmp_path_factory: pytest.TempPathFactory, images: list[tuple[int, int, str]]
) -> None:
    index = index_of(images)
    place = tmp_path_factory.mktemp("search")
    cache, prepared = prepare(place / "cache", index)
    matrices = write_matrices(cache, prepared, place / "features")
    rest = index[index["part"] != "test"].set_index("path")
    assert matrices.nbytes == matrix_bytes(prepared) == len(rest) * 5 * 4
    for network in NETWORKS.values():
        table = matrices.open(network.name)
        assert isinstance(table.features, np.memmap)
        assert table.features.dtype == np.float32
        assert sorted(table.path) == sorted(rest.index)
        assert list(zip(table.part, table.path, strict=True)) == sorted(
            zip(table.part, table.path, strict=True)
        )
        found = rest.loc[list(table.path)]
        np.testing.assert_array_equal(table.label_index, found["label_index"])
        np.testing.assert_array_equal(table.part, found["part"])
        expected = [features_of(int(digest[1:]), network) for digest in found["digest"]]
        np.testing.assert_array_equal(table.features, expected)


def test_features_that_the_cache_lost_are_a_sentence(tmp_path: Path) -> None:
    cache, prepared = prepare(tmp_path / "cache", index_of([(0, 0, "train"), (1, 1, "validation")]))
    prepared.index.loc[0, "digest"] = "gone"
    with pytest.raises(CacheError, match=r"^1 images have lost their features"):
        write_matrices(cache, prepared, tmp_path / "features")


def test_a_disk_without_room_for_the_features_is_a_sentence(tmp_path: Path) -> None:
    (small := tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small disk needs the right to")
    try:
        index = index_of([(0, 0, "train")] * 5000)  # × 5 features of 4 bytes
        cache, prepared = prepare(tmp_path / "cache", index)
        with pytest.raises(CacheError, match=r"cannot be written \(No space left on device\)"):
            write_matrices(cache, prepared, small / "features")
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("lost", ["the folder", "a network's file"])
def test_a_worker_that_cannot_see_the_features_says_it_in_a_sentence(tmp_path: Path, lost: str) -> None:
    cache, prepared = prepare(tmp_path / "cache", index_of([(0, 0, "train"), (1, 1, "validation")]))
    matrices = write_matrices(cache, prepared, tmp_path / "features")
    if lost == "the folder":
        shutil.rmtree(matrices.folder)
    else:
        (matrices.folder / matrices.files["narrow"]).unlink()
    sentence = (
        rf"^The features in {matrices.folder} cannot be read by this worker \(No such file.*\): set cache"
    )
    with pytest.raises(CacheError, match=sentence) as caught:
        matrices.open("narrow")
    assert "\n" not in str(caught.value)


def test_a_process_maps_a_file_once(tmp_path: Path) -> None:
    cache, prepared = prepare(tmp_path / "cache", index_of([(0, 0, "train"), (1, 1, "validation")]))
    matrices = write_matrices(cache, prepared, tmp_path / "features")
    sent = FeatureMatrices(matrices.folder, dict(matrices.files), matrices.nbytes)  # as each task gets it
    assert matrices.open("narrow") is sent.open("narrow")
    assert matrices.open("wide.v2") is not matrices.open("narrow")


# Parts of it


def table_of(parts: list[str]) -> FeatureTable:
    rows = np.arange(len(parts))
    features = np.float32(rows[:, None] + [[0, 0.5]])
    return FeatureTable(
        features, rows.astype(str).astype(object), rows % 3, np.array(sorted(parts), object)
    )


@settings(deadline=None)
@given(parts=st.lists(st.sampled_from(PARTS[:-1]), min_size=1, max_size=20), part=st.sampled_from(PARTS))
def test_a_part_and_all_the_others_are_what_a_mask_would_take(parts: list[str], part: str) -> None:
    table = table_of(parts)
    for found, mask in ((table.only(part), table.part == part), (table.all_but(part), table.part != part)):
        for name in ("features", "path", "label_index", "part"):
            np.testing.assert_array_equal(getattr(found, name), getattr(table, name)[mask])


@settings(deadline=None)
@given(parts=st.lists(st.sampled_from(PARTS[:-1]), min_size=1, max_size=20), part=st.sampled_from(PARTS))
def test_rows_are_copied_only_where_the_part_that_is_left_out_lies_between_them(
    parts: list[str], part: str
) -> None:
    table = table_of(parts)
    between = part in parts and min(parts) < part < max(parts)
    rest = table.all_but(part).features
    assert np.shares_memory(rest, table.features) == (not between and bool(len(rest)))
    if part in parts:
        assert np.shares_memory(table.only(part).features, table.features)
