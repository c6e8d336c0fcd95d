import io
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.linear_model import LogisticRegressionCV

from tuner.base.errors import CacheError
from tuner.extraction.cache import FeatureCache
from tuner.extraction.files import Row, write_part
from tuner.images.index import ImageSet
from tuner.networks.resolution import Network
from tuner.preparation import feature_files
from tuner.preparation.feature_files import export_features, export_files
from tuner.preparation.images import PreparedImages

LABELS = ("ä b", "2")
NETWORK = Network("VGG16", "a" * 64, "nowhere.keras", (8, 8), "unit", 3, "float32")
IMAGES = 40
CONSOLE = Console(file=io.StringIO())


def features_of(image: int) -> np.ndarray:
    """Features that tell the class of an image, its number modulo 2."""
    return np.float32([image, image % 2 * 100 + image % 7, -image])


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    cache = FeatureCache(tmp_path / "cache")
    folder = cache.folder(NETWORK)
    folder.mkdir(parents=True)
    for start in range(0, IMAGES, 7):
        rows = range(start, min(start + 7, IMAGES))
        write_part(folder, [Row(f"d{image}", features_of(image), None) for image in rows])
    return cache


@pytest.fixture
def prepared() -> PreparedImages:
    """Every image once, and the last one twice."""
    images = [*range(IMAGES), IMAGES - 1]
    index = pd.DataFrame(
        {
            "path": [f"{LABELS[image % 2]}/{place}.png" for place, image in enumerate(images)],
            "label": [LABELS[image % 2] for image in images],
            "label_index": np.int32([image % 2 for image in images]),
            "part": ["test" if image < 10 else "train" for image in images],
            "digest": [f"d{image}" for image in images],
        }
    )
    return PreparedImages(ImageSet(None, None, LABELS), index, pd.DataFrame(), {"VGG16": NETWORK}, 0)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two rows: what is written is written in many pieces."""
    monkeypatch.setattr(feature_files, "_BLOCK_BYTES", 2 * 3 * 4)


def expected(prepared: PreparedImages) -> pd.DataFrame:
    rows = prepared.index.sort_values(["digest", "path"], ignore_index=True)
    return rows.assign(features=[features_of(int(digest[1:])) for digest in rows["digest"]])


def check(rows: pd.DataFrame, features: object, labels: object, paths: object, parts: object) -> None:
    np.testing.assert_array_equal(features, np.stack(rows["features"].to_list()))
    assert list(labels) == rows["label_index"].to_list()
    assert list(paths) == rows["path"].to_list()
    assert list(parts) == rows["part"].to_list()


def test_hdf5_has_the_layout_that_scripts_of_others_read(
    cache: FeatureCache, prepared: PreparedImages, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "features.h5"
    export_features(cache, prepared, NETWORK, target, CONSOLE)
    assert [file.name for file in target.parent.iterdir()] == ["features.h5"]
    with h5py.File(target) as file:
        assert (file["features"].dtype, file["features"].shape) == (np.float32, (IMAGES + 1, 3))
        assert file["labels"].dtype == np.int64
        assert tuple(file["label_names"].asstr()) == LABELS
        paths, parts = file["paths"].asstr()[:], file["parts"].asstr()[:]
        check(expected(prepared), file["features"][:], file["labels"][:], paths, parts)
        # As the source's own script goes on: the first three quarters train, the rest test.
        cut = int(file["labels"].shape[0] * 0.75)
        model = LogisticRegressionCV(
            Cs=3, cv=3, scoring="accuracy", use_legacy_attributes=False, l1_ratios=(0,)
        )
        model.fit(file["features"][:cut], file["labels"][:cut])
        assert model.score(file["features"][cut:], file["labels"][cut:]) > 0.9


def test_an_npz_is_numpy_s_own(cache: FeatureCache, prepared: PreparedImages, tmp_path: Path) -> None:
    export_features(cache, prepared, NETWORK, tmp_path / "features.npz", CONSOLE)
    with np.load(tmp_path / "features.npz", allow_pickle=False) as file:
        assert file["features"].dtype == np.float32
        assert tuple(file["label_names"]) == LABELS
        check(expected(prepared), *(file[name] for name in ("features", "labels", "paths", "parts")))


def test_parquet_has_a_row_an_image(cache: FeatureCache, prepared: PreparedImages, tmp_path: Path) -> None:
    export_features(cache, prepared, NETWORK, tmp_path / "features.parquet", CONSOLE)
    found, rows = pd.read_parquet(tmp_path / "features.parquet"), expected(prepared)
    assert list(found) == ["path", "label", "label_index", "part", "features"]
    assert found["label"].tolist() == rows["label"].tolist()
    features = np.stack(found["features"].to_list())
    assert features.dtype == np.float32
    check(rows, features, found["label_index"], found["path"], found["part"])


def test_rows_stand_in_an_order_that_knows_nothing_of_classes(prepared: PreparedImages) -> None:
    labels = expected(prepared)["label_index"].to_numpy()
    assert 5 < np.abs(np.diff(labels)).sum() < IMAGES


def test_what_was_there_stays_if_the_export_fails(
    cache: FeatureCache, prepared: PreparedImages, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "features.h5"
    target.parent.mkdir()
    target.write_text("earlier")
    lost = PreparedImages(prepared.images, prepared.index.replace("d0", "gone"), pd.DataFrame(), {}, 0)
    with pytest.raises(CacheError, match="1 images have lost their features"):
        export_features(cache, lost, NETWORK, target, CONSOLE)
    assert target.read_text() == "earlier"
    assert list(target.parent.iterdir()) == [target]


def test_a_full_disk_is_one_sentence(cache: FeatureCache, prepared: PreparedImages) -> None:
    with pytest.raises(CacheError, match=r"The file of features /proc/new/a.h5 cannot be written \(.*\): "):
        export_features(cache, prepared, NETWORK, Path("/proc/new/a.h5"), CONSOLE)


# The files' names


def test_each_of_several_networks_has_a_file(tmp_path: Path) -> None:
    target = tmp_path / "my.features.h5"
    assert export_files(str(target), ["VGG16"], False) == {"VGG16": target}
    assert export_files(str(target), ["VGG16", "my_net"], False) == {
        "VGG16": tmp_path / "my.features-VGG16.h5",
        "my_net": tmp_path / "my.features-my_net.h5",
    }
    assert export_files(f"file://{target}", ["VGG16"], False) == {"VGG16": target}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("features", r"its name must end in \.h5, \.hdf5, \.npz, \.parquet"),
        ("features.csv", "its name must end in"),
        ("hdfs://host/features.h5", "is exported to a file of this machine|are exported to a file of this"),
        ("~nobody-here/features.h5", "home folder that is not known"),
        ("folder.h5", "which is a folder"),
        ("there.h5", "there-b.h5 exists already: give --overwrite"),
    ],
)
def test_a_file_that_cannot_be_is_refused(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder-a.h5").mkdir()
    (tmp_path / "there-b.h5").touch()
    with pytest.raises(CacheError, match=sentence):
        export_files(name, ["a", "b"], False)


def test_a_file_is_replaced_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.h5").touch()
    assert export_files(str(tmp_path / "a.h5"), ["a"], True) == {"a": tmp_path / "a.h5"}
